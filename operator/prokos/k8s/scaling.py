"""How many workers an executor needs, as replicas of a Deployment or as pods of one task each. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prokos.k8s.single_use import SingleUse
    from prokos.resources import TaskExecutor

FIRST_WAIT, LONGEST_WAIT = 10.0, 60.0
"""Seconds without new single-use pods after one broke by itself; doubled each time, as the kubelet does."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A decision, and since when a smaller one would do (monotonic clock)."""

    replicas: int
    surplus_since: float | None = None


def decide_scale(executor: TaskExecutor, backlog: int, before: Scale | None, now: float) -> Scale:
    """Workers for a backlog: as many as run it at once, between `scaling.min` and `.max`.

    More are there at once; fewer only when they have been enough for `scaling.cooldown`, so that a short pause between
    two bursts stops nothing.

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
    since = now if before.surplus_since is None else before.surplus_since
    if now - since >= spec.scaling.cooldown.total_seconds() or before.replicas > spec.scaling.max:
        return Scale(needed)
    return Scale(before.replicas, since)


@dataclass(frozen=True, slots=True)
class PodChange:
    """Single-use pods to make and to end, and since when there have been too many (monotonic clock)."""

    make: int = 0
    end: tuple[str, ...] = ()
    surplus_since: float | None = None


def decide_pods(
    executor: TaskExecutor,
    backlog: int | None,
    pods: Sequence[SingleUse],
    surplus_since: float | None,
    now: float,
) -> PodChange:
    """Pods of one task each for a backlog: one for each task and `scaling.min` that wait, at most `scaling.max`.

    Pods of an older revision are told to end, and do so after their task. A surplus, which comes of tasks that were
    cancelled, is told to end after `scaling.cooldown`.

    Args:
        executor: The resource; `spec.replicas` overrules the backlog.
        backlog: Tasks that are dispatched to it and have not ended; None when nobody knows.
        pods: Its Kubernetes Jobs, oldest first.
        surplus_since: What the last decision said.
        now: Seconds on a monotonic clock.
    """
    spec = executor.spec
    current = [pod for pod in pods if pod.current]
    active = [pod for pod in current if pod.active]
    old = tuple(pod.name for pod in pods if pod.active and not pod.current)
    wanted = len(active) if backlog is None else backlog + spec.scaling.min
    needed = min(wanted, spec.scaling.max) if spec.replicas is None else spec.replicas
    if len(active) <= needed:
        return PodChange(0 if _holds_off(current) else needed - len(active), old)
    since = now if surplus_since is None else surplus_since
    if now - since < spec.scaling.cooldown.total_seconds():
        return PodChange(0, old, since)
    return PodChange(0, (*old, *(pod.name for pod in active[needed:])))


def _holds_off(pods: Sequence[SingleUse]) -> bool:
    """Whether the last pods to end broke by themselves, so lately that another one would break, too."""
    broken = 0
    ended = sorted((pod for pod in pods if pod.ended_ago is not None), key=lambda pod: pod.ended_ago or 0)
    for pod in ended:
        if not pod.failed:
            break
        broken += 1
    if not broken:
        return False
    wait: float = min(FIRST_WAIT * 2 ** (broken - 1), LONGEST_WAIT)
    return (ended[0].ended_ago or 0) < wait
