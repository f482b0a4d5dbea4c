"""`prokos logs`."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING

from prokos.cli.output import FAILED, print_error
from prokos.dev.state import StateDirectory

if TYPE_CHECKING:
    from pathlib import Path


def show_logs(name: str | None, state: Path | None, follow: bool, lines: int) -> int:
    """Print a process's log, or which logs there are."""
    directory = StateDirectory.find(state)
    there = sorted(path.stem for path in directory.logs.glob("*.log"))
    if name is None:
        print("\n".join(there) or f"no logs in {directory.logs}")  # noqa: T201
        return 0
    if name not in there:
        print_error(f"there is no log {name!r}; there are: {', '.join(there) or 'none'}")
        return FAILED
    with (directory.logs / f"{name}.log").open(errors="replace") as file:
        for line in deque(file, maxlen=lines):
            print(readable(line))  # noqa: T201
        while follow:
            line = file.readline()
            if line:
                print(readable(line), flush=True)  # noqa: T201
            else:
                time.sleep(0.2)
    return 0


def readable(line: str) -> str:
    """A JSON log line as text; any other line as it is."""
    line = line.rstrip("\n")
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
    except ValueError:
        return line
    time_, level, event = record.pop("timestamp", ""), record.pop("level", ""), record.pop("event", "")
    rest = " ".join(f"{key}={value}" for key, value in record.items() if value is not None)
    return f"{time_[11:23]} {level:7} {event}  {rest}".rstrip()
