"""The outside world of the order example: a payment service and a warehouse, over HTTP, in memory.

    python shop_service.py [PORT] [--host ADDRESS] [--flaky] [--quiet]

    POST   /payments               charge {"orderId", "amount"}; 201, or 402 with a reason above the limit
    GET    /payments               what was charged
    POST   /reservations           set {"orderId", "items"} aside; 201, or 200 if that was done before
    DELETE /reservations/{orderId} give it back; 204, also if there is nothing to give back
    GET    /reservations           what is set aside

A payment answers a repeated `Idempotency-Key` with the answer it gave before, and charges an order once whatever the
key. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

DEFAULT_PORT = 18181
"""The port that the example's executors call."""

LIMIT = 1000
"""Largest amount that is not declined."""

MAX_BODY = 1_000_000
"""Longest request body in bytes."""

Answer = tuple[HTTPStatus, Any]
"""Status and JSON body of a response; None is no body."""


class BadRequestError(Exception):
    """The request is not what the service takes; the text says why."""


class Shop:
    """What the service knows. Every method may be called from any thread."""

    def __init__(self, *, flaky: bool = False) -> None:
        self._flaky = flaky
        self._lock = threading.Lock()
        self._payments: dict[str, dict[str, Any]] = {}
        self._reservations: dict[str, dict[str, Any]] = {}
        self._answers: dict[str, Answer] = {}
        self._seen: set[str] = set()

    def charge(self, request: dict[str, Any], key: str | None) -> Answer:
        """Charge an order, at most once."""
        order, amount = order_id(request), request.get("amount")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
            raise BadRequestError("amount must be a number that is not negative")
        with self._lock:
            if self._flaky and order not in self._seen:
                # Not kept under the key: nothing was decided, so a repetition is to be decided anew.
                self._seen.add(order)
                return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the payment service is restarting"}
            if key is not None and key in self._answers:
                return self._answers[key]
            answer = self._decide(order, amount)
            if key is not None:
                self._answers[key] = answer
            return answer

    def _decide(self, order: str, amount: float) -> Answer:
        if (payment := self._payments.get(order)) is not None:
            if payment["amount"] != amount:
                return HTTPStatus.CONFLICT, {"error": f"order {order} was charged {payment['amount']:.2f} before"}
            return HTTPStatus.OK, payment
        if amount > LIMIT:
            return HTTPStatus.PAYMENT_REQUIRED, {"reason": f"{amount:.2f} is more than the card's limit of {LIMIT}"}
        payment = {"paymentId": f"P-{len(self._payments) + 1}", "orderId": order, "amount": amount}
        self._payments[order] = payment
        return HTTPStatus.CREATED, payment

    def reserve(self, request: dict[str, Any]) -> Answer:
        """Set the items of an order aside."""
        order, items = order_id(request), request.get("items")
        if not isinstance(items, list) or not items:
            raise BadRequestError("items must be a list that is not empty")
        with self._lock:
            if order in self._reservations:
                return HTTPStatus.OK, {"reservationId": f"R-{order}"}
            self._reservations[order] = {"orderId": order, "items": items}
            return HTTPStatus.CREATED, {"reservationId": f"R-{order}"}

    def release(self, order: str) -> Answer:
        """Give back what is set aside for an order."""
        with self._lock:
            self._reservations.pop(order, None)
        return HTTPStatus.NO_CONTENT, None

    def payments(self) -> Answer:
        """What was charged, in order."""
        with self._lock:
            return HTTPStatus.OK, list(self._payments.values())

    def reservations(self) -> Answer:
        """What is set aside now."""
        with self._lock:
            return HTTPStatus.OK, list(self._reservations.values())


def order_id(request: dict[str, Any]) -> str:
    """The order a request is about."""
    order = request.get("orderId")
    if not isinstance(order, str) or not order:
        raise BadRequestError("orderId must be a text that is not empty")
    return order


class Handler(BaseHTTPRequestHandler):
    """HTTP in front of a `Shop`."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        shop = self.server.shop
        found = {"/payments": shop.payments, "/reservations": shop.reservations}.get(self._path())
        self._answer(found() if found else self._unknown())

    def do_POST(self) -> None:
        shop = self.server.shop
        try:
            body = self._body()
            if self._path() == "/payments":
                self._answer(shop.charge(body, self.headers.get("Idempotency-Key")))
            elif self._path() == "/reservations":
                self._answer(shop.reserve(body))
            else:
                self._answer(self._unknown())
        except BadRequestError as error:
            self._answer((HTTPStatus.BAD_REQUEST, {"error": str(error)}))

    def do_DELETE(self) -> None:
        prefix, _, order = self._path().rpartition("/")
        self._answer(
            self.server.shop.release(unquote(order)) if prefix == "/reservations" and order else self._unknown()
        )

    def _path(self) -> str:
        return urlsplit(self.path).path

    def _unknown(self) -> Answer:
        return HTTPStatus.NOT_FOUND, {"error": f"there is no {self.command} {self._path()}"}

    def _body(self) -> dict[str, Any]:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY:
            # What follows on this connection cannot be told from the next request.
            self.close_connection = True
            raise BadRequestError(f"Content-Length must be a number up to {MAX_BODY}")
        try:
            body = json.loads(self.rfile.read(length))
        except ValueError as error:
            raise BadRequestError(f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise BadRequestError("the body must be a JSON object")
        return body

    def _answer(self, answer: Answer) -> None:
        status, body = answer
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if body is not None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        if not self.server.quiet:
            print(f"{self.command} {self.path} {status.value} {content.decode()}", flush=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Leave the log to `_answer`, which knows what was answered."""


class Server(ThreadingHTTPServer):
    """One service on one port; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, port: int, *, host: str = "127.0.0.1", flaky: bool = False, quiet: bool = False) -> None:
        super().__init__((host, port), Handler)
        self.shop = Shop(flaky=flaky)
        self.quiet = quiet


def main() -> int:
    """Serve until interrupted. Returns the exit code."""
    parser = argparse.ArgumentParser(description="The payment service and warehouse of the order example.")
    parser.add_argument("port", nargs="?", type=int, default=int(os.environ.get("PORT", DEFAULT_PORT)))
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; %(default)s")
    parser.add_argument("--flaky", action="store_true", help="answer the first payment of each order with 503")
    parser.add_argument("--quiet", action="store_true", help="do not print the requests")
    options = parser.parse_args()
    try:
        server = Server(options.port, host=options.host, flaky=options.flaky, quiet=options.quiet)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"shop service: cannot listen on port {options.port}: {reason}", file=sys.stderr)
        return 1
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"shop service on http://{options.host}:{server.server_port}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
