"""Following the output of a program: its lines to the log, in bounded memory and without secrets."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from prokos.tde.redaction import Redactor

LINE_LIMIT = 8192
"""Longest line of output in bytes; a longer one is cut into several."""
LINE_COST = 200
"""Bytes of log a line counts for besides its own: about what a log record has around it."""
TAIL_LIMIT = 2000
"""Bytes of the last output that are kept for the failure's message."""


class Budget:
    """How much more of a program's output may be logged, in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit
        self.dropped = 0

    def take(self, size: int, overhead: int) -> bool:
        """Take a line's share; False when it must be dropped."""
        if self.left < size + overhead:
            self.left = 0  # nothing later, however short: a log with holes misleads
            self.dropped += size
            return False
        self.left -= size + overhead
        return True

    def report(self, log: Callable[[str, str], None]) -> None:
        """Say how much was dropped in all."""
        if self.dropped:
            log("stderr", f"... {self.dropped} more bytes of output were dropped (limit {self.limit})")


class Output(asyncio.Protocol):
    """One stream of output: its lines go to the log, its last bytes are kept; both without secrets."""

    def __init__(self, stream: str, log: Callable[[str, str], None], budget: Budget, redactor: Redactor) -> None:
        self.stream = stream
        self.log = log
        self.budget = budget
        self.redactor = redactor
        self.writer = -1
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line = b""
        self._tail = b""
        self._tail_limit = TAIL_LIMIT + redactor.longest

    async def __aenter__(self) -> Self:
        reader, self.writer = os.pipe()
        pipe = os.fdopen(reader, "rb", 0)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, pipe)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.started()
        self._transport.close()

    def started(self) -> None:
        """Close this process's copy of the writing end, so that the stream ends with its program."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def data_received(self, data: bytes) -> None:
        """Take what the program wrote."""
        self._tail = (self._tail + data[-self._tail_limit :])[-self._tail_limit :]
        if not self.budget.left:
            self.budget.dropped += len(data)
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self._line) >= LINE_LIMIT + self.redactor.longest:
            # What may be the first part of a secret waits for the rest of it.
            at = self.redactor.cut_before(self._line, len(self._line) - max(self.redactor.longest - 1, 0))
            self._emit(self._line[:at])
            self._line = self._line[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the stream."""
        if self._line:
            self._emit(self._line)
            self._line = b""
        if not self.ended.done():
            self.ended.set_result(None)

    def _emit(self, line: bytes) -> None:
        line = self.redactor.clear(line)
        for start in range(0, max(len(line), 1), LINE_LIMIT):
            piece = line[start : start + LINE_LIMIT]
            left = self.budget.left
            if self.budget.take(len(piece), LINE_COST):
                self.log(self.stream, printable(piece))
            elif left:
                self.log("stderr", f"... the output is cut here: more than {self.budget.limit} bytes of log")

    def tail(self) -> str:
        """The last lines, about `TAIL_LIMIT` bytes."""
        tail = self._tail
        if len(tail) == self._tail_limit:  # its beginning may be the last part of a secret
            tail = tail[self.redactor.cut_after(tail, self.redactor.longest) :]
        return "\n".join(printable(line) for line in self.redactor.clear(tail).split(b"\n")).strip()


def printable(line: bytes) -> str:
    """Decode a line of output; what is not UTF-8, and control characters a terminal would obey, are replaced."""
    text = line.decode(errors="replace").rstrip("\r")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)
