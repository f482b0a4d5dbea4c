"""What was executed and when: a file to which workers append a line at the start of each execution.

A line is `NUMBER ELEMENT NANOSECONDS`: the instance's variable `number`, the element's id, and the monotonic clock,
which is one for all processes of a machine. Short lines that are appended are written whole.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOOK = 0.005
"""Seconds between looks at the file."""


@dataclass(frozen=True, slots=True)
class Record:
    """The start of one execution; `at` is in seconds on the monotonic clock."""

    number: int
    element: str
    at: float


class RecordWriter:
    """A worker's side."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, number: int, element: str) -> None:
        """Note an execution that begins now."""
        os.write(self._descriptor, b"%d %s %d\n" % (number, element.encode(), time.monotonic_ns()))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class RecordReader:
    """The reader's side: each line is read once."""

    def __init__(self, file: Path) -> None:
        file.touch()
        self._file = file.open("rb", buffering=0)
        self._rest = b""
        self._seen: set[tuple[int, str]] = set()
        self.repeated = 0
        """Executions of a task that was executed before."""

    def read(self) -> list[Record]:
        """What came since the last time, in the order in which it was written, without repetitions."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        new = []
        for line in lines:
            number, element, at = line.split()
            record = Record(int(number), element.decode(), int(at) / 1e9)
            if (record.number, record.element) in self._seen:
                self.repeated += 1
            else:
                self._seen.add((record.number, record.element))
                new.append(record)
        return new

    async def wait_for(self, count: int, timeout: float) -> list[Record]:
        """Wait for so many more.

        Raises:
            TimeoutError: They did not come in time; the message says how many did.
        """
        deadline = time.monotonic() + timeout
        came: list[Record] = []
        while len(came) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(came)} of {count} executions within {timeout:g} s")
            await asyncio.sleep(LOOK)
            came += self.read()
        return came
