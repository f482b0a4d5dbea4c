"""How many workers an executor needs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prokos.resources import TaskExecutor

CALM = 60.0
"""Seconds for which fewer workers must have been enough before some are taken away."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A decision, and since when a smaller one would do (monotonic clock)."""

    replicas: int
    calm_since: float | None = None


def decide_scale(executor: TaskExecutor, backlog: int, before: Scale | None, now: float) -> Scale:
    """Workers for a backlog: as many as run it at once, between `scaling.min` and `.max`.

    More are there at once; fewer only when they have been enough for `CALM`, so that a short pause between two bursts
    stops nothing.

    Args:
        executor: The resource; `spec.replicas` overrules the backlog.
        backlog: Tasks that are dispatched to it and have not ended.
        before: The last decision.
        now: Seconds on a monotonic clock.
    """
    spec = executor.spec
    if spec.replicas is not None:
        return Scale(spec.replicas)
    needed = min(max(math.ceil(backlog / spec.concurrency), spec.scaling.min), spec.scaling.max)
    if before is None or needed >= before.replicas:
        return Scale(needed)
    since = before.calm_since if before.calm_since is not None else now
    if now - since >= CALM or before.replicas > spec.scaling.max:
        return Scale(needed)
    return Scale(before.replicas, since)
