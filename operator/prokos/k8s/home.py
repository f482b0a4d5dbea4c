"""A cluster as the home of a system: workers and PDO as Deployments, or Jobs. Implements `prokos.kernel.Home`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import aiohttp
import structlog

from prokos.k8s.engine_access import pod_access
from prokos.k8s.names import (
    COMPONENT_LABEL,
    EXECUTOR_LABEL,
    PDO,
    REVISION_LABEL,
    ROUTER,
    STATUS_PORT,
    WORKER,
    label_selector,
    part_name,
    selector_labels,
    worker_name,
)
from prokos.k8s.pdo import build_pdo, build_router
from prokos.k8s.scaling import Scale, decide_scale
from prokos.k8s.single_use_pods import SingleUsePods
from prokos.k8s.workers import WorkerContext, build_workers, executor_owner, worker_revision
from prokos.kernel import Desired, Observed, WorkerState
from prokos.kernel.plan import late_shards

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prokos.k8s.single_use import SingleUse
    from prokos.kube import KubeClient, Manifest
    from prokos.registry.cluster import SystemRef
    from prokos.resources import TaskExecutor
    from prokos.resources.engine_settings import ExternalEngine

STATUS_TIMEOUT = 3.0
"""Seconds a PDO replica has to say how it is."""

log = structlog.get_logger("prokos.k8s")


@dataclass(frozen=True, slots=True)
class Images:
    """The images that come with this version of the operator."""

    system: str
    worker: str


@dataclass(frozen=True)
class PdoState:
    """What the PDO's replicas say together.

    Attributes:
        beats: Age of each shard's last beat in seconds.
        backlog: Tasks of each executor that are dispatched and have not ended; None while no replica answers.
        running: Tasks of each process that have not ended, by its id.
        silent_for: Seconds since all shards were last seen to beat, as long as they should.
    """

    beats: Mapping[int, float] = field(default_factory=dict)
    backlog: Mapping[str, int] | None = None
    running: Mapping[str, int] = field(default_factory=dict)
    silent_for: float = 0.0


@dataclass(frozen=True)
class Pods:
    """The workloads and pods of a system by name of the Deployment; an executor's Jobs by that of its workers."""

    deployments: Mapping[str, Manifest]
    pods: Mapping[str, Sequence[Manifest]]
    jobs: Mapping[str, Sequence[SingleUse]] = field(default_factory=dict)


class ClusterHome:
    """Applies what the kernel asks for. `engine`, `wanted` and `manifests` are set before each reconciliation."""

    def __init__(self, client: KubeClient, system: SystemRef, images: Images) -> None:
        self._client = client
        self._system = system
        self._images = images
        self.wanted = Desired()
        self.executor_manifests: Mapping[str, Manifest] = {}
        self.engine: ExternalEngine | None = None
        self._scales: dict[str, Scale] = {}
        self.beats_are_due = False
        """Whether there is an engine and a kernel, without which no heart beats. Set before each reconciliation."""
        self._beaten = time.monotonic()
        """When all shards were last seen to beat, or beats became due."""
        self._single_use = SingleUsePods(client, system)

    def desired(self) -> Desired:
        """The desired state as it was last read."""
        return self.wanted

    # --- workers ----------------------------------------------------------------------------------------------

    async def ensure_workers(self, executor: TaskExecutor) -> None:
        """Apply the executor's objects, and remove documents that no pod uses any more."""
        name = executor.metadata.name
        manifest, context = self.executor_manifests.get(name), self._context()
        if manifest is None or context is None:
            return
        replicas = await self._replicas(executor)
        objects = build_workers(executor, executor_owner(manifest), context, replicas)
        for built in objects:
            await self._client.apply(built)
        if executor.spec.network.policy == "None":
            await self._delete("networking.k8s.io/v1", "NetworkPolicy", worker_name(name))
        if executor.spec.scaling.pod_per_task:
            await self._delete("apps/v1", "Deployment", worker_name(name))
        else:
            await self._single_use.remove(name)
        await self._drop_documents(name, worker_revision(executor, context))

    async def _replicas(self, executor: TaskExecutor) -> int:
        """Workers to apply; as many as there are where nobody has decided since this operator started."""
        name = executor.metadata.name
        if executor.spec.replicas is not None or executor.spec.scaling.pod_per_task:
            return executor.spec.workers
        if name not in self._scales:
            there = await self._client.get("apps/v1", "Deployment", self._system.namespace, worker_name(name))
            self._scales[name] = Scale(_bounded(executor, there["spec"].get("replicas", 1) if there else 0))
        return self._scales[name].replicas

    def _context(self) -> WorkerContext | None:
        if self.engine is None:
            return None
        return WorkerContext(
            system=self._system.name,
            namespace=self._system.namespace,
            image=self._images.worker,
            defaults=self.wanted.system.executor_defaults.pod,
            engine=self.engine,
            access=pod_access(self.engine),
        )

    async def _drop_documents(self, executor: str, current: str) -> None:
        selector = label_selector(selector_labels(self._system.name, WORKER, executor))
        pods = await self._client.list_all("v1", "Pod", self._system.namespace, selector)
        used = {current, *(pod["metadata"]["labels"].get(REVISION_LABEL) for pod in pods)}
        documents = await self._client.list_all(
            "v1", "ConfigMap", self._system.namespace, f"{selector},{REVISION_LABEL}"
        )
        for document in documents:
            if document["metadata"]["labels"][REVISION_LABEL] not in used:
                await self._delete("v1", "ConfigMap", document["metadata"]["name"])

    async def remove_workers(self, name: str) -> None:
        """Delete the executor's objects; its pods end what they run first."""
        await self._delete("apps/v1", "Deployment", worker_name(name))
        await self._single_use.remove(name)
        await self._delete("networking.k8s.io/v1", "NetworkPolicy", worker_name(name))
        await self._delete("v1", "ServiceAccount", worker_name(name))
        selector = label_selector(selector_labels(self._system.name, WORKER, name))
        for document in await self._client.list_all("v1", "ConfigMap", self._system.namespace, selector):
            await self._delete("v1", "ConfigMap", document["metadata"]["name"])
        self._scales.pop(name, None)

    async def _delete(self, api_version: str, kind: str, name: str) -> None:
        await self._client.delete(api_version, kind, self._system.namespace, name)

    def scale(self, executor: TaskExecutor, backlog: int | None, deployment: Manifest | None) -> bool:
        """Decide how many workers run; True if that is another number than the Deployment says."""
        name = executor.metadata.name
        if deployment is None:
            return False
        running = deployment["spec"].get("replicas", 1)
        before = self._scales.get(name) or Scale(running)
        if backlog is None and executor.spec.replicas is None:
            # Nobody knows the backlog: as it is, within the bounds.
            decision = Scale(_bounded(executor, before.replicas))
        else:
            decision = decide_scale(executor, backlog or 0, before, time.monotonic())
        self._scales[name] = decision
        return bool(decision.replicas != running)

    @property
    def has_single_use(self) -> bool:
        """Whether an executor has a pod for each task."""
        return any(executor.spec.scaling.pod_per_task for executor in self.wanted.executors.values())

    async def serve_tasks(self, executor: TaskExecutor, backlog: int | None, pods: Pods) -> None:
        """Make a pod for each task of an executor that has it so."""
        name = executor.metadata.name
        manifest, context = self.executor_manifests.get(name), self._context()
        if manifest is not None and context is not None:
            await self._single_use.serve(executor, manifest, context, backlog, pods.jobs.get(worker_name(name), []))

    # --- PDO and router ---------------------------------------------------------------------------------------

    async def ensure_pdo(self) -> None:
        """Apply the objects of the PDO, and of the router if a model decides routes."""
        if self.engine is None:
            return
        spec, access = self.wanted.system, pod_access(self.engine)
        for built in build_pdo(self._system, spec, self._images.system, self.engine, access):
            await self._client.apply(built)
        if spec.pdo.replicas <= 1:
            await self._delete("policy/v1", "PodDisruptionBudget", part_name(self._system.name, PDO))
        for built in build_router(self._system, spec, self._images.system, self.engine, access):
            await self._client.apply(built)
        if spec.router.mode != "llm":
            await self._remove_router()

    async def _remove_router(self) -> None:
        name = part_name(self._system.name, ROUTER)
        await self._delete("apps/v1", "Deployment", name)
        await self._delete("networking.k8s.io/v1", "NetworkPolicy", name)
        for kind in ("RoleBinding", "Role"):
            await self._delete("rbac.authorization.k8s.io/v1", kind, name)
        await self._delete("v1", "ServiceAccount", name)

    # --- observed state ---------------------------------------------------------------------------------------

    async def observe(self) -> Observed:
        """Look at the Deployments, and ask the PDO for its beats."""
        pods, pdo = await self.pods(), await self.pdo_state()
        workers = {
            name: (
                _single_use_state(pods, worker_name(name))
                if executor.spec.scaling.pod_per_task
                else _worker_state(pods, worker_name(name), executor.spec.workers)
            )
            for name, executor in self.wanted.executors.items()
        }
        name = part_name(self._system.name, PDO)
        return Observed(workers, _worker_state(pods, name, self.wanted.system.pdo.replicas), pdo.beats)

    async def pods(self) -> Pods:
        """The Deployments and Jobs of the system and their pods."""
        selector = f"prokos.io/system={self._system.name}"
        found = await self._client.list_all("apps/v1", "Deployment", self._system.namespace, selector)
        pods: dict[str, list[Manifest]] = {}
        for pod in await self._client.list_all("v1", "Pod", self._system.namespace, selector):
            labels = pod["metadata"]["labels"]
            if executor := labels.get(EXECUTOR_LABEL):
                pods.setdefault(worker_name(executor), []).append(pod)
            elif component := labels.get(COMPONENT_LABEL):
                pods.setdefault(part_name(self._system.name, component), []).append(pod)
        context = self._context()
        jobs = await self._single_use.read(self.wanted.executors.values(), context) if context else {}
        return Pods({one["metadata"]["name"]: one for one in found}, pods, jobs)

    async def pdo_state(self) -> PdoState:
        """Ask every PDO replica."""
        selector = label_selector(selector_labels(self._system.name, PDO))
        pods = await self._client.list_all("v1", "Pod", self._system.namespace, selector)
        addresses = [pod["status"]["podIP"] for pod in pods if pod.get("status", {}).get("podIP")]
        timeout = aiohttp.ClientTimeout(total=STATUS_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            answers = await asyncio.gather(*(_ask(session, address) for address in addresses))
        return self._listened(combine([answer for answer in answers if answer is not None]))

    def _listened(self, state: PdoState) -> PdoState:
        now = time.monotonic()
        if not self.beats_are_due or not late_shards(self.wanted.system.pdo.shards, state.beats):
            self._beaten = now
        return replace(state, silent_for=now - self._beaten)


def _bounded(executor: TaskExecutor, workers: int) -> int:
    scaling = executor.spec.scaling
    return min(max(workers, scaling.min), scaling.max)


async def _ask(session: aiohttp.ClientSession, address: str) -> dict[str, Any] | None:
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{STATUS_PORT}/status") as response:
            found: dict[str, Any] | None = await response.json() if response.status == 200 else None
            return found
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def combine(answers: Sequence[Mapping[str, Any]]) -> PdoState:
    """The replicas' status as one: the newest beat of each shard, and all tasks. Pure."""
    beats: dict[int, float] = {}
    backlog, running = Counter[str](), Counter[str]()
    for answer in answers:
        for shard in answer["shards"]:
            age = answer["now"] - shard["at"]
            beats[shard["shard"]] = min(age, beats.get(shard["shard"], age))
        backlog.update(answer["inFlight"])
        running.update(answer["running"])
    for executor, process, twice in _counted_twice(answers):
        backlog[executor] -= twice
        running[process] -= twice
    return PdoState(beats, backlog if answers else None, running)


def _counted_twice(answers: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, int]]:
    """Executor, process and number of tasks that several replicas count, because they hear of them from workers."""
    heard = Counter[tuple[str, str]]()
    taken, counted = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for answer in answers:
        for group in answer.get("executing", ()):  # a replica of an older version has none
            key = group["executor"], group["process"]
            heard[key] = max(heard[key], group["tasks"])
            taken[key] += group["here"]
            counted[key] += group["tasks"] - group["here"]
    for (executor, process), tasks in heard.items():
        key = executor, process
        yield executor, process, counted[key] - max(tasks - taken[key], 0)


def _single_use_state(pods: Pods, name: str) -> WorkerState:
    active = sum(use.active for use in pods.jobs.get(name, []))
    return WorkerState(active, active, 0)


def _worker_state(pods: Pods, name: str, wanted: int) -> WorkerState:
    deployment = pods.deployments.get(name)
    restarts = sum(
        container.get("restartCount", 0)
        for pod in pods.pods.get(name, [])
        for container in pod.get("status", {}).get("containerStatuses", [])
    )
    if deployment is None:
        return WorkerState(wanted, 0, restarts)
    return WorkerState(
        deployment["spec"].get("replicas", wanted), deployment.get("status", {}).get("readyReplicas", 0), restarts
    )
