"""Worker pods that take one task each: what their Kubernetes Jobs tell. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from prokos.k8s.conditions import Statement
from prokos.k8s.diagnose import CONFIG_ERROR, pod_problem
from prokos.k8s.names import REVISION_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prokos.kube import Manifest

FAILED = frozenset({"Failed", "FailureTarget"})
ENDED = FAILED | {"Complete", "SuccessCriteriaMet"}
"""Conditions of a Job whose pod has ended, or is about to."""

JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
"""Kubernetes marks the pods of a Job with its name."""


@dataclass(frozen=True, slots=True)
class SingleUse:
    """A Job of one pod and one task.

    Attributes:
        current: It runs the newest revision of its executor.
        ended_ago: Seconds since it ended; None while it is there for a task.
        failed: The worker broke, whatever became of its task. A task that fails is not that: its worker ends well.
    """

    name: str
    current: bool
    ended_ago: float | None = None
    failed: bool = False

    @property
    def active(self) -> bool:
        """Whether its pod waits for its task, or works on it."""
        return self.ended_ago is None


def read_single_use(jobs: Iterable[Manifest], revision: str, now: datetime) -> list[SingleUse]:
    """The Jobs of an executor, oldest first; those that are being deleted are gone already.

    Args:
        jobs: As the API server has them.
        revision: The newest revision of the executor's workers.
        now: As the API server's clock has it, as far as is known.
    """
    there = [job for job in jobs if "deletionTimestamp" not in job["metadata"]]
    there.sort(key=lambda job: (job["metadata"].get("creationTimestamp", ""), job["metadata"]["name"]))
    return [_read(job, revision, now) for job in there]


def _read(job: Manifest, revision: str, now: datetime) -> SingleUse:
    metadata = job["metadata"]
    current = metadata.get("labels", {}).get(REVISION_LABEL) == revision
    ends = [one for one in job.get("status", {}).get("conditions", []) if one["status"] == "True"]
    ends = [one for one in ends if one["type"] in ENDED]
    if not ends:
        return SingleUse(metadata["name"], current)
    ended = min(datetime.fromisoformat(one["lastTransitionTime"]) for one in ends)
    failed = any(one["type"] in FAILED for one in ends)
    return SingleUse(metadata["name"], current, max((now - ended).total_seconds(), 0.0), failed)


def single_use_statement(
    kind: str, uses: Sequence[SingleUse], pods: Sequence[Manifest], *, missing_secrets: Iterable[str] = ()
) -> Statement:
    """Whether the pods of an executor that has one for each task work.

    Args:
        kind: Type of the condition.
        uses: Its Jobs.
        pods: Their pods.
        missing_secrets: What Secrets lack that its pods need.
    """
    if missing := list(missing_secrets):
        return Statement(kind, "False", "SecretMissing", "; ".join(missing))
    current = [use for use in uses if use.current]
    active = {use.name for use in current if use.active}
    for pod in pods:
        if _job_of(pod) in active and (problem := pod_problem(pod)):
            return Statement(kind, "False", problem[0], problem[1])
    last = min((use for use in current if not use.active), key=lambda use: use.ended_ago or 0, default=None)
    if last is not None and last.failed:
        why = next((_end_of(pod) for pod in pods if _job_of(pod) == last.name), "")
        message = f"the last pod broke{why}; see kubectl logs job/{last.name} --container worker"
        return Statement(kind, "False", "PodFailed", message)
    if not active:
        return Statement(kind, "True", "ScaledToZero", "a pod is made for each task that comes")
    return Statement(kind, "True", "Running", f"{len(active)} pods, each for one task")


def _job_of(pod: Manifest) -> str | None:
    name: str | None = pod["metadata"].get("labels", {}).get(JOB_NAME_LABEL)
    return name


def _end_of(pod: Manifest) -> str:
    """How the worker of a pod ended, for a message."""
    for container in pod.get("status", {}).get("containerStatuses", []):
        if ended := container.get("state", {}).get("terminated"):
            if ended.get("exitCode") == CONFIG_ERROR:
                return ": its settings do not work for it"
            return f": {ended.get('reason', 'Error')}, exit code {ended.get('exitCode')}"
    return f": {pod.get('status', {}).get('reason', 'it was lost')}"
