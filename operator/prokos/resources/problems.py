"""Problems: what is wrong with the user's files, where, and what to do about it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import total_ordering
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Severity = Literal["error", "warning"]

FieldPath = tuple[str | int, ...]
"""Path of a field in a document: keys and list indexes, as written in the YAML."""

_PLAIN_KEY = re.compile(r"^\w[\w-]*$")
_QUOTE_LIMIT = 60
"""Longest quotation of a user's value in a message, in characters."""
_CANDIDATE_LIMIT = 500
"""Most words to find a suggestion among: comparing takes about 20 microseconds each."""
PROBLEM_LIMIT = 100
"""Most problems reported of one document: nobody reads more, and finding a suggestion for each takes time."""


@total_ordering
@dataclass(frozen=True)
class Problem:
    """One finding. Problems sort by file, line and field, the order in which a reader fixes them.

    Attributes:
        severity: An error stops a deployment; a warning does not.
        file: Path as the user gave it.
        field: YAML path such as `spec.accepts[0].jobType`, or the BPMN element id; empty if there is none.
        message: What is wrong.
        line: Line in the file, counted from 1, if known.
        hint: What to do; empty if the message says it.
    """

    severity: Severity
    file: str
    field: str
    message: str
    line: int | None = None
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        parts = [place]
        if self.severity == "warning":
            parts.append("warning")
        if self.field:
            parts.append(self.field)
        text = ": ".join([*parts, self.message])
        if self.hint:
            text += f" ({self.hint})"
        return " ".join(text.split())

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Problem):
            return NotImplemented
        return self._key() < other._key()

    def _key(self) -> tuple[str, int, str, str, str, str]:
        return (self.file, self.line or 0, self.field, self.severity, self.message, self.hint)


def bounded(problems: Iterable[Problem], file: str) -> Iterator[Problem]:
    """The first problems of a document, and a note if there are more than `PROBLEM_LIMIT`."""
    for number, problem in enumerate(problems):
        if number == PROBLEM_LIMIT:
            yield Problem("error", file, "", f"more than {PROBLEM_LIMIT} problems; the others are not shown")
            return
        yield problem


def format_path(path: FieldPath) -> str:
    """Write a field path the way people read it: `spec.accepts[0].headers["prokos.io/executor"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.match(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def quote(value: object) -> str:
    """Quote a user's value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= _QUOTE_LIMIT else f"{text[:_QUOTE_LIMIT]}..."


def did_you_mean(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Suggest the known word that is closest.

    Returns:
        `did you mean x?`, or `otherwise` if nothing is close.
    """
    candidates = list(known)
    if len(candidates) > _CANDIDATE_LIMIT:
        return otherwise
    originals = {_fold(candidate): candidate for candidate in sorted(candidates)}
    close = get_close_matches(_fold(word[:_QUOTE_LIMIT]), originals, n=1, cutoff=0.6)
    return f"did you mean {originals[close[0]]}?" if close else otherwise


def _fold(word: str) -> str:
    return word.casefold().replace("_", "")
