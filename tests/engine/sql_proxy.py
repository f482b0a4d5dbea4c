"""A proxy before a database that loses an answer: the server has committed, and the client never hears of it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMIT = re.compile(rb"(?<!AUTO)COMMIT")


class Proxy:
    """Takes TCP connections to a server that listens on a Unix socket."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._losing = threading.Event()
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextlib.contextmanager
    def before(cls, target: str) -> Iterator[Self]:
        proxy = cls(target)
        try:
            yield proxy
        finally:
            proxy._listening.close()

    def lose_next_commit(self) -> None:
        """Cut the connection that commits next, after the server has done it."""
        self._losing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            silent = threading.Event()
            back = threading.Thread(target=self._answer, args=(server, client, silent), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    if _COMMIT.search(data) and self._losing.is_set():
                        self._losing.clear()
                        silent.set()
                    server.sendall(data)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _answer(self, server: socket.socket, client: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if silent.is_set():
                    self.lost += 1
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
