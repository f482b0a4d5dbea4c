"""Conditions: statements about a resource that keep the time at which they last changed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prokos.kube import Manifest

ConditionStatus = Literal["True", "False", "Unknown"]

MESSAGE_LIMIT = 1024
"""Longest message in characters; the API allows 32,768, a terminal less."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One condition as it is now.

    Attributes:
        reason: One CamelCase word.
        transient: It tells of something that passes by itself: a condition that was True stays so for the while.
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    transient: bool = False


def merge_conditions(
    before: Sequence[Manifest] | None, now: Iterable[Statement], generation: int | None, time: str
) -> list[Manifest]:
    """The conditions to write.

    Args:
        before: Those that are there.
        now: Statements about the resource as it is.
        generation: The generation of the spec they speak of.
        time: RFC 3339; becomes the transition time of those whose status changes.
    """
    known: Mapping[str, Manifest] = {condition["type"]: condition for condition in before or []}
    return [_merge(known.get(statement.type), statement, generation, time) for statement in now]


def _merge(before: Manifest | None, now: Statement, generation: int | None, time: str) -> Manifest:
    if before and now.transient and before["status"] == "True" and before.get("observedGeneration") == generation:
        return before
    unchanged = before is not None and before["status"] == now.status
    return {
        "type": now.type,
        "status": now.status,
        "reason": now.reason,
        "message": now.message[:MESSAGE_LIMIT],
        **({} if generation is None else {"observedGeneration": generation}),
        "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else time,
    }


def summary(parts: Sequence[Statement], *, ready: str = "Ready", message: str = "") -> Statement:
    """The condition `Ready`: True if all the others are, or else what the first of the others says."""
    for part in parts:
        if part.status != "True":
            return Statement(ready, part.status, part.reason, part.message, part.transient)
    return Statement(ready, "True", "Ready", message)
