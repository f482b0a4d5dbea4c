"""What Helm says when it fails, as one error that says what to do. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HelmReason = Literal[
    "Busy", "ChartNotFound", "Conflict", "Failed", "Forbidden", "HelmMissing", "NotFound", "TimedOut", "Unreachable",
    "ValuesRefused",
]  # fmt: skip

LINES = 8
"""Lines of Helm's output that an error shows: its last ones, where the cause is."""

LENGTH = 700
"""Longest output in an error, in characters."""

SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|private|licen[cs]e|key$", re.IGNORECASE)
"""Names of values that must not be shown."""

REFERENCE = re.compile(r"existingSecret(Key)?|secretName|secretKeyRef|pullSecrets|imagePullSecrets", re.IGNORECASE)
"""Names below which there are names of Secrets, which may be shown."""

SHORTEST_SECRET = 4
"""Shorter values than this many characters are not looked for in messages: they are parts of ordinary words."""

NOISE = re.compile(
    r"^(WARNING:|[IWE]\d{4} |level=|coalesce\.go|\d{4}/\d\d/\d\d |Release .* (does not exist|has been cancelled))"
)
PREFIX = re.compile(r"^(Error: )?((UPGRADE|INSTALLATION|ROLLBACK) FAILED: )?")
SCHEMA = "values don't meet the specifications of the schema(s)"
SCHEMA_LINE = re.compile(r"^- (?:at '(?P<pointer>[^']*)': )?(?P<said>.+)$")

PATTERNS: tuple[tuple[HelmReason, re.Pattern[str], str], ...] = (
    ("NotFound", re.compile(r"release: not found|release has no \d+ version"), ""),
    ("Unreachable", re.compile(r"[Kk]ubernetes cluster unreachable"), ""),
    ("Busy", re.compile(r"another operation \(install/upgrade/rollback\) is in progress"), ""),
    ("Forbidden", re.compile(r" is forbidden: "), "the operator's Role must allow it"),
    (
        "Conflict",
        re.compile(r"exists and cannot be imported into the current release"),
        "delete that object, or name another release in spec.engine.helm.release",
    ),
    (
        "ChartNotFound",
        re.compile(
            r"valid chart repository or cannot be reached|failed to (fetch|download|pull|perform)"
            r"|no chart version found|chart .* not found|repo .* not found"
            r"|tags/list|manifests/|non-absolute URLs|path \".*\" not found"
            r"|Chart\.yaml file is missing|improper constraint|[Cc]ould not locate a version|chart metadata is missing"
        ),
        "check chart, repository and version in spec.engine.helm",
    ),
    ("TimedOut", re.compile(r"timed out waiting|context deadline exceeded"), ""),
    ("ValuesRefused", re.compile(r"^execution error at \("), "correct spec.engine.helm"),
)
"""What a message looks like, what kind of failure that is, and what to do beside what it says itself."""


class HelmError(Exception):
    """Helm failed. The message is for people.

    Args:
        reason: What kind of failure; one word.
    """

    def __init__(self, reason: HelmReason, message: str) -> None:
        super().__init__(message)
        self.reason: HelmReason = reason


def explain(command: str, output: str, values: Mapping[str, Any]) -> HelmError:
    """The error that a failed command's output tells of.

    Args:
        command: `upgrade`, `rollback`...
        output: What Helm wrote to its standard error.
        values: Those it was given; what is secret among them is removed from the message.
    """
    said = without_secrets(output, values)
    lines = [line.rstrip() for line in said.splitlines() if line.strip() and not NOISE.match(line)]
    text = PREFIX.sub("", "\n".join(lines[-LINES:]))
    if SCHEMA in output:
        problems = "; ".join(_schema_problems(lines))
        return HelmError("ValuesRefused", f"the chart refuses the values: {problems[:LENGTH]}")
    text = re.sub(r"\s*\n\s*(\* )?", " ", text)[:LENGTH] or "it said nothing"
    for reason, pattern, remedy in PATTERNS:
        if pattern.search(text):
            return HelmError(reason, f"helm {command}: {text}" + (f"; {remedy}" if remedy else ""))
    return HelmError("Failed", f"helm {command}: {text}")


def _schema_problems(lines: list[str]) -> Iterator[str]:
    """`orchestration.clusterSize: got number, want string` for each value that a chart's schema refuses."""
    for line in lines:
        if match := SCHEMA_LINE.match(line.strip()):
            pointer = (match["pointer"] or "").strip("/").replace("/", ".")
            yield f"{pointer}: {match['said']}" if pointer else match["said"]


def without_secrets(text: str, values: Mapping[str, Any]) -> str:
    """A text in which those of the values are hidden that have the name of a secret."""
    for secret in sorted(set(_secrets(values, within=False)), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(value: Any, *, within: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not REFERENCE.fullmatch(str(key)):
                yield from _secrets(item, within=within or bool(SECRET_NAME.search(str(key))))
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item, within=within)
    elif within and isinstance(value, str) and len(value) >= SHORTEST_SECRET:
        yield value
