"""What the commands print: tables for people, JSON for machines, problems on standard error."""

from __future__ import annotations

import contextlib
import enum
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prokos.resources.problems import Problem

FAILED = 1
"""Exit code: the command was right, what it asked for went wrong."""

INVALID = 2
"""Exit code: wrong usage or wrong manifests."""

NOT_RUNNING = 3
"""Exit code: there is no running system to ask."""

PIPED_WIDTH = 100_000
"""Characters of a row that goes to a file or another program: a row is one line there, however long."""


class OutputFormat(enum.StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


def print_json(value: Any) -> None:
    """Print a value for machines."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], output: OutputFormat, empty: str) -> None:
    """Print a list.

    Args:
        rows: What there is, all fields.
        columns: Field to heading: the fields a table shows.
        output: Table, or JSON with all fields.
        empty: Said instead of an empty table.
    """
    if output is OutputFormat.JSON:
        print_json(list(rows))
        return
    if not rows:
        sys.stdout.write(empty + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(field)) for field in columns))
    shown = sys.stdout.isatty()
    Console(soft_wrap=not shown, width=None if shown else PIPED_WIDTH).print(table)


def cell(value: Any) -> str:
    """A value as a cell of a table."""
    from rich.markup import escape

    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(str(value))


def print_error(message: str) -> None:
    """Say what went wrong, on standard error."""
    sys.stderr.write(f"prokos: {message}\n")


def print_note(message: str) -> None:
    """Say how long work gets on, on standard error, so that results can be piped."""
    # A note that cannot be written, as on a full disk, must not end the work it is about.
    with contextlib.suppress(OSError):
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


def print_problems(problems: Iterable[Problem]) -> None:
    """One line each, on standard error."""
    for problem in problems:
        sys.stderr.write(f"{describe(problem)}\n")


def describe(problem: Problem) -> str:
    """A problem in one line that begins with its severity."""
    return f"{problem}" if problem.severity == "warning" else f"error: {problem}"
