"""The outside world of the http example: a library with a token endpoint, and a printer that takes its time.

    LIBRARY_CLIENT_SECRET=... python print_service.py [PORT] [--seconds S]

    POST /token   an OAuth 2.0 token for the client `prokos` with the secret of the environment
    GET  /books   two books a page, `?after=` the cursor; needs the token, and is away every third time
    POST /jobs    print {"isbn", "callbackUrl"}: 202, and after S seconds the result is posted to callbackUrl

A job is known by its Idempotency-Key: asked again, it is not printed again, but its result is told to whoever asked.
Standard library only.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import sys
import threading
import urllib.request
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

DEFAULT_PORT = 18182
"""The port that the example's executors call."""

PAGE = 2
"""Books on a page."""

BOOKS = [
    {"isbn": "978-0", "title": "The Recursive Heartbeat", "pages": 200},
    {"isbn": "978-1", "title": "Leases and Other Promises", "pages": 120},
    {"isbn": "978-2", "title": "A Book That Is Too Long", "pages": 99_000},
    {"isbn": "978-3", "title": "On Being Called Back", "pages": 64},
    {"isbn": "978-4", "title": "The Idempotent Printer", "pages": 310},
]

LONGEST = 1000
"""Pages the printer can bind."""


class Press:
    """What the service knows. Every method may be called from any thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._jobs: set[str] = set()
        self._asked = 0
        self.token = secrets.token_urlsafe(16)

    def is_away(self) -> bool:
        """Whether this is one of the times at which the library is away."""
        with self._lock:
            self._asked += 1
            return self._asked % 3 == 2

    def accept(self, isbn: str, callback_url: str, key: str | None) -> None:
        """Print a book, once per key, and tell the result."""
        with self._lock:
            known = key is not None and key in self._jobs
            self._jobs.add(key or secrets.token_hex(8))
        print(f"{isbn}: {'was printed before' if known else 'is printed'}", flush=True)
        timer = threading.Timer(self._seconds, self._finish, (isbn, callback_url))
        timer.daemon = True
        timer.start()

    def _finish(self, isbn: str, callback_url: str, tries: int = 5) -> None:
        pages = next((int(str(book["pages"])) for book in BOOKS if book["isbn"] == isbn), 0)
        result: dict[str, Any] = {"state": "printed", "isbn": isbn, "pages": pages}
        if not 0 < pages <= LONGEST:
            result = {"state": "refused", "reason": f"a book of {pages} pages cannot be bound"}
        request = urllib.request.Request(callback_url, json.dumps(result).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                print(f"{isbn}: told {callback_url.rpartition('/')[0]}, which answered {response.status}", flush=True)
        except OSError as error:
            print(f"{isbn}: nobody takes the result: {error}", flush=True)
            if tries > 1:
                timer = threading.Timer(self._seconds, self._finish, (isbn, callback_url, tries - 1))
                timer.daemon = True
                timer.start()


def handler_of(press: Press, client_secret: str) -> type[BaseHTTPRequestHandler]:
    """The service's HTTP side."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path != "/books":
                self._answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})
            elif self.headers.get("Authorization") != f"Bearer {press.token}":
                self._answer(HTTPStatus.UNAUTHORIZED, {"error": "no token"})
            elif press.is_away():
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the librarian is at lunch"})
            else:
                after = parse_qs(url.query).get("after", ["0"])[0]
                start = int(after) if after.isdecimal() else 0
                end = start + PAGE
                self._answer(HTTPStatus.OK, {"books": BOOKS[start:end], "next": str(end) if end < len(BOOKS) else None})

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/token":
                # RFC 6749, 2.3.1: id and secret are encoded as in a form before they become a user and a password.
                expected = base64.b64encode(f"prokos:{quote_plus(client_secret)}".encode()).decode()
                if self.headers.get("Authorization") != f"Basic {expected}":
                    self._answer(HTTPStatus.UNAUTHORIZED, {"error": "invalid_client"})
                else:
                    token = {"access_token": press.token, "token_type": "Bearer", "expires_in": 3600}
                    self._answer(HTTPStatus.OK, token)
            elif self.path == "/jobs":
                self._accept(content)
            else:
                self._answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})

        def _accept(self, content: bytes) -> None:
            try:
                job = json.loads(content)
                isbn, callback_url = str(job["isbn"]), str(job["callbackUrl"])
            except (ValueError, KeyError, TypeError):
                self._answer(HTTPStatus.BAD_REQUEST, {"error": "isbn and callbackUrl are needed"})
                return
            if not callback_url.startswith("http://127.0.0.1:"):
                self._answer(HTTPStatus.BAD_REQUEST, {"error": "this service calls back on this machine only"})
                return
            press.accept(isbn, callback_url, self.headers.get("Idempotency-Key"))
            self._answer(HTTPStatus.ACCEPTED, {"state": "accepted"})

        def _answer(self, status: HTTPStatus, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            print(f"{self.command} {self.path.partition('?')[0]}", flush=True)

    return Handler


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", nargs="?", type=int, default=DEFAULT_PORT)
    parser.add_argument("--seconds", type=float, default=5, help="how long a book takes")
    options = parser.parse_args()
    client_secret = os.environ.get("LIBRARY_CLIENT_SECRET")
    if not client_secret:
        print("print service: the environment variable LIBRARY_CLIENT_SECRET is not set", file=sys.stderr)
        return 1
    try:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), handler_of(Press(options.seconds), client_secret))
    except OSError as error:
        print(f"print service: cannot listen on port {options.port}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"print service listens on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
