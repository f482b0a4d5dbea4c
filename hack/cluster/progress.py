"""Lines that say what is being done and for how long already."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STARTED = time.monotonic()


def say(text: str) -> None:
    """Print a line to standard error, after the minutes and seconds since the program started."""
    minutes, seconds = divmod(int(time.monotonic() - _STARTED), 60)
    print(f"[{minutes}:{seconds:02}] {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, and at its end how long it took."""
    begun = time.monotonic()
    say(f"{text} ...")
    yield
    say(f"{text}: {time.monotonic() - begun:.1f} s")
