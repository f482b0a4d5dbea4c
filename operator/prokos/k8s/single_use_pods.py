"""Keeps the Kubernetes Jobs of executors that have a pod for each task."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prokos.k8s.names import EXECUTOR_LABEL, WORKER, label_selector, selector_labels, worker_name
from prokos.k8s.scaling import decide_pods
from prokos.k8s.single_use import read_single_use
from prokos.k8s.workers import build_single_use, executor_owner, worker_revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prokos.k8s.single_use import SingleUse
    from prokos.k8s.workers import WorkerContext
    from prokos.kube import KubeClient, Manifest
    from prokos.registry.cluster import SystemRef
    from prokos.resources import TaskExecutor

JOB = ("batch/v1", "Job")


class SingleUsePods:
    """The single-use pods of one system."""

    def __init__(self, client: KubeClient, system: SystemRef) -> None:
        self._client = client
        self._system = system
        self._surplus: dict[str, float | None] = {}
        """Since when an executor has had more pods than it needs."""

    async def read(self, executors: Iterable[TaskExecutor], context: WorkerContext) -> dict[str, list[SingleUse]]:
        """The Jobs there are, by the name of the executor's workers."""
        wanted = [executor for executor in executors if executor.spec.scaling.pod_per_task]
        if not wanted:
            return {}
        now = datetime.now(UTC)
        jobs = await self._jobs(selector_labels(self._system.name, WORKER))
        found = {}
        for executor in wanted:
            name = executor.metadata.name
            own = [job for job in jobs if job["metadata"]["labels"].get(EXECUTOR_LABEL) == name]
            found[worker_name(name)] = read_single_use(own, worker_revision(executor, context), now)
        return found

    async def serve(
        self,
        executor: TaskExecutor,
        manifest: Manifest,
        context: WorkerContext,
        backlog: int | None,
        uses: Sequence[SingleUse],
    ) -> None:
        """Make pods for the tasks of an executor, and end those that are too many.

        Args:
            executor: The resource.
            manifest: The same as the API server has it.
            context: What all executors of the system share.
            backlog: Its tasks that have not ended; None when nobody knows.
            uses: What `read` found.
        """
        name = executor.metadata.name
        change = decide_pods(executor, backlog, uses, self._surplus.get(name), time.monotonic())
        self._surplus[name] = change.surplus_since
        for job in change.end:
            await self._client.delete(*JOB, self._system.namespace, job)
        for _ in range(change.make):
            made = build_single_use(executor, executor_owner(manifest), context, secrets.token_hex(3))
            await self._client.create(made)

    async def remove(self, executor: str) -> None:
        """Delete all Jobs of an executor; their pods end what they run first."""
        for job in await self._jobs(selector_labels(self._system.name, WORKER, executor)):
            await self._client.delete(*JOB, self._system.namespace, job["metadata"]["name"])
        self._surplus.pop(executor, None)

    async def _jobs(self, labels: dict[str, str]) -> list[Manifest]:
        return await self._client.list_all(*JOB, self._system.namespace, label_selector(labels))
