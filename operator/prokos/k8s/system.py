"""One system in a cluster: the loop that makes everything be as its resources say."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from prokos.engine import EngineClient, EngineError
from prokos.k8s.conditions import Statement
from prokos.k8s.desired import Found, ObjectKey, Wanted, config_maps_named, read_wanted
from prokos.k8s.engine import EngineKeeper
from prokos.k8s.engine_release import EngineRelease
from prokos.k8s.home import ClusterHome, Images
from prokos.k8s.names import worker_name
from prokos.k8s.notices import notices
from prokos.k8s.report import Facts, reports
from prokos.k8s.secrets import SecretReader
from prokos.kernel import Desired, Kernel
from prokos.kube import KubeError
from prokos.registry import Registry
from prokos.registry.cluster import ClusterRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prokos.engine import Connection
    from prokos.kube import KubeClient, Manifest
    from prokos.registry.cluster import SystemRef

LOOK = 10.0
"""Seconds after which everything is looked at again, whether or not an event came: events get lost."""

LOOK_FOR_TASKS = 2.0
"""The same while an executor has a pod for each task: no event tells of a task that has come, and it waits."""

RESYNC = 30.0
"""Seconds after which everything is applied again, whether or not it seems to have drifted."""

SETTLE = 0.2
"""Seconds to gather events that come together, such as those of one `kubectl apply`."""

KERNEL_RETRY = 3.0
"""Seconds before a kernel that broke is started again."""

KERNEL = "KernelLoaded"

log = structlog.get_logger("prokos.k8s")


@dataclass(slots=True)
class _KernelState:
    """The kernel that works on the engine, if one does."""

    connection: Connection | None = None
    task: asyncio.Task[None] | None = None
    kernel: Kernel | None = None
    look: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the desired state may be another one than what is registered."""
    statement: Statement = field(
        default_factory=lambda: Statement(KERNEL, "False", "EngineNotReady", "there is no engine yet", transient=True)
    )


class ClusterSystem:
    """Reconciles one ProkOS and the resources of its namespace.

    Args:
        client: The API server.
        system: The ProkOS.
        read: Gives the resources of the namespace that are not being deleted, as they are now.
        images: The images of this version.
        say: Told of what is worth an event: resource, type (`Normal`, `Warning`), reason, message.
    """

    def __init__(
        self,
        client: KubeClient,
        system: SystemRef,
        read: Callable[[], Mapping[ObjectKey, Manifest]],
        images: Images,
        say: Callable[[ObjectKey, str, str, str], None],
    ) -> None:
        self._client = client
        self._system = system
        self._read = read
        self._say = say
        self._changed = asyncio.Event()
        self.home = ClusterHome(client, system, images)
        self.registry = ClusterRegistry(client, system)
        self._secrets = SecretReader(client, system.namespace)
        self._engine = EngineKeeper(
            EngineRelease(client, system, settled=_settled(read().get(("ProkOS", system.name)))),
            self._secrets,
            lambda: self.home.wanted.system.engine,
            self.wake,
            lambda kind, reason, message: say(("ProkOS", system.name), kind, reason, message),
        )
        self._kernel = _KernelState()
        self._engine_task: asyncio.Task[None] | None = None
        self._understood = False  # whether the ProkOS was ever without an error
        self._resync_at = 0.0
        """When everything is applied again, on the monotonic clock."""
        self._broken = ""
        """Why a reconciliation broke off, when one last did."""
        self._told = Registry()  # as it was when `notices` was asked last
        self._ready: dict[ObjectKey, tuple[str, str]] = {}
        """Last reported status and reason of each resource's Ready condition."""

    def wake(self, *, drifted: bool = False) -> None:
        """Something has changed: look soon. `drifted`: it is an object of ours, which may have to be applied again."""
        if drifted:
            self._resync_at = 0.0
        self._changed.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            following = asyncio.create_task(self.registry.run(), name="registry")
            stack.push_async_callback(_end, following)
            await self.registry.ready()
            self._told = self.registry.load()
            stack.push_async_callback(self._stop_engine)
            stack.push_async_callback(self._stop_kernel)
            while not following.done() and not (self._engine_task and self._engine_task.done()):
                self._changed.clear()
                try:
                    await self.reconcile()
                except (KubeError, EngineError) as error:
                    log.warning("reconciliation failed and is tried again", system=self._system.name, error=str(error))
                except Exception as error:
                    # Not a thing to end for: what made it may be mended. But nobody sees it in a condition.
                    log.exception("reconciliation broke off and is tried again", system=self._system.name)
                    # What it says may hold a value that must not be shown.
                    self._tell_broken(f"{type(error).__name__}; the operator's log says more")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), LOOK_FOR_TASKS if self.home.has_single_use else LOOK)
                    await asyncio.sleep(SETTLE)
            for task in (following, self._engine_task):
                if task is not None and task.done():
                    task.result()

    def _tell_broken(self, message: str) -> None:
        """An event when it breaks off for another reason than before."""
        if message != self._broken:
            self._say(("ProkOS", self._system.name), "Warning", "ReconcileFailed", message)
        self._broken = message

    async def reconcile(self) -> None:
        """One round: read, act, report."""
        manifests = self._read()
        if ("ProkOS", self._system.name) not in manifests:
            return  # It is being deleted: nothing more is to be made.
        before = self.home.wanted
        wanted = await self._take(manifests)
        if self._engine_task is None and self._understood:
            self._engine_task = asyncio.create_task(self._engine.run(), name="engine")
        elif wanted.desired.system.engine != before.system.engine:
            self._engine.wake.set()
        await self._follow_engine()
        kernel = self._kernel.kernel
        booted = kernel is not None and kernel.steps.booted.is_set()
        self.home.beats_are_due = booted and self._engine.state.ready.status == "True"
        if booted:
            self._kernel.look.set()
            await self._repair(wanted.desired)
        await self._report(wanted, manifests)

    async def _take(self, manifests: Mapping[ObjectKey, Manifest]) -> Wanted:
        config_maps = {}
        for name in config_maps_named(manifests):
            found = await self._client.get("v1", "ConfigMap", self._system.namespace, name)
            config_maps[name] = None if found is None else found.get("data") or {}
        wanted = read_wanted(Found(manifests, config_maps), self.registry.load())
        if ("ProkOS", self._system.name) in wanted.problems:
            # What was understood last goes on; before anything was, nothing is made.
            wanted = replace(wanted, desired=replace(wanted.desired, system=self.home.wanted.system))
        else:
            self._understood = True
        self.home.wanted = wanted.desired
        self.home.executor_manifests = {name: one for (kind, name), one in manifests.items() if kind == "TaskExecutor"}
        return wanted

    # --- the kernel -------------------------------------------------------------------------------------------

    async def _follow_engine(self) -> None:
        """Run the kernel against the engine there is; another engine, or other credentials, take another kernel."""
        state = self._engine.state
        self.home.engine = state.engine
        running = self._kernel.task is not None and not self._kernel.task.done()
        if state.connection is None or (running and state.connection == self._kernel.connection):
            return
        if not running and state.ready.status != "True":
            return
        await self._stop_kernel()
        self._kernel = _KernelState(connection=state.connection)
        self._kernel.task = asyncio.create_task(self._run_kernel(self._kernel, state.connection), name="kernel")

    async def _run_kernel(self, state: _KernelState, connection: Connection) -> None:
        state.statement = Statement(KERNEL, "False", "Loading", "the kernel processes are being deployed", True)
        while True:
            try:
                async with EngineClient(connection) as client:
                    kernel = Kernel(client, self.home, self.registry, worker=f"operator-{self._system.name}")
                    deployed = await kernel.load()
                    await kernel.boot()
                    state.kernel = kernel
                    message = f"{len(deployed)} kernel processes are deployed"
                    state.statement = Statement(KERNEL, "True", "Loaded", message)
                    self.wake()
                    following = asyncio.create_task(self._follow_desired(kernel, state.look))
                    try:
                        await kernel.run()
                    finally:
                        following.cancel()
            except (EngineError, KubeError) as error:
                log.warning("the kernel broke off and starts again", system=self._system.name, error=str(error))
                state.statement = Statement(KERNEL, "False", "LoadFailed", str(error))
                self.wake()
            await asyncio.sleep(KERNEL_RETRY)

    async def _follow_desired(self, kernel: Kernel, look: asyncio.Event) -> None:
        """Have the engine register what has changed; apart from the rounds, which must not wait while it is away."""
        await kernel.steps.booted.wait()
        self.wake()
        while True:
            await look.wait()
            look.clear()
            try:
                await kernel.follow()
            except (KubeError, EngineError) as error:
                log.warning("changes are not registered yet", system=self._system.name, error=str(error))
            except Exception:
                # Nobody awaits this task: one change that breaks it must not end it for all that follow.
                log.exception("changes could not be registered", system=self._system.name)

    async def _stop_engine(self) -> None:
        if self._engine_task is not None:
            await _end(self._engine_task)

    async def _stop_kernel(self) -> None:
        if self._kernel.task is not None:
            await _end(self._kernel.task)
        self._kernel = _KernelState()

    # --- repair and scale -------------------------------------------------------------------------------------

    async def _repair(self, desired: Desired) -> None:
        """Apply again what should be there: drift, and what a registration could not do, end here."""
        resync = time.monotonic() >= self._resync_at
        if resync:
            self._resync_at = time.monotonic() + RESYNC
            # A PDO reads its settings when it starts: not before they are registered, which applies it as well.
            if self.registry.load().system == desired.system:
                await self.home.ensure_pdo()
        pdo, pods = await self.home.pdo_state(), await self.home.pods()
        if pdo.backlog is not None:
            # What depends on something that goes is the PDO's to know: it is told as soon as that answers.
            self._tell_changes(pdo.running)
        registered = self.registry.load().executors
        for name, executor in desired.executors.items():
            # One that is not registered as it is now has a registration coming that starts its workers in order.
            if registered.get(name) != executor:
                continue
            backlog = None if pdo.backlog is None else pdo.backlog.get(name, 0)
            if executor.spec.scaling.pod_per_task:
                if resync:
                    await self.home.ensure_workers(executor)
                await self.home.serve_tasks(executor, backlog, pods)
                continue
            scaled = self.home.scale(executor, backlog, pods.deployments.get(worker_name(name)))
            if scaled:
                self._say(("TaskExecutor", name), "Normal", "Scaled", f"for a backlog of {backlog} tasks")
            if scaled or resync:
                await self.home.ensure_workers(executor)

    def _tell_changes(self, running: Mapping[str, int]) -> None:
        """Say once of each process and route that goes what still depends on it."""
        registry = self.registry.load()
        for reason, message in notices(self._told, registry, running):
            self._say(("ProkOS", self._system.name), "Normal", reason, message)
        self._told = registry

    # --- status -----------------------------------------------------------------------------------------------

    async def _report(self, wanted: Wanted, manifests: Mapping[ObjectKey, Manifest]) -> None:
        kernel = self._kernel.kernel
        facts = Facts(
            system=self._system.name,
            wanted=wanted,
            registry=self.registry.load(),
            engine=self._engine.state,
            kernel=self._kernel.statement,
            pods=await self.home.pods(),
            pdo=await self.home.pdo_state(),
            refusals=dict(kernel.steps.refusals) if kernel else {},
            missing_secrets=await self._missing_secrets(wanted.desired),
        )
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for key, report in reports(facts, manifests, now).items():
            manifest = manifests[key]
            if report.status != (manifest.get("status") or {}):
                await self._client.set_status(manifest, report.status)
            self._tell(key, report.ready)

    def _tell(self, key: ObjectKey, ready: Statement) -> None:
        """An event whenever a resource becomes ready, or for another reason cannot without help."""
        if ready.transient or ready.status == "Unknown":
            return
        state = (ready.status, ready.reason)
        if self._ready.get(key) != state:
            kind = "Normal" if ready.status == "True" else "Warning"
            self._say(key, kind, ready.reason, ready.message or "ready")
        self._ready[key] = state

    async def _missing_secrets(self, desired: Desired) -> dict[str, list[str]]:
        found = {}
        for name, executor in desired.executors.items():
            references = [secret.secret_key_ref for secret in executor.spec.secrets if secret.secret_key_ref]
            if references and (missing := await self._secrets.missing(references)):
                found[name] = missing
        return found


def _settled(manifest: Manifest | None) -> int | None:
    """The engine's revision that an operator before this one saw ready."""
    found = ((manifest or {}).get("status") or {}).get("engine") or {}
    return found.get("settledRevision")


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()):
        log.error("a part of a system had ended", part=task.get_name(), exc_info=error)
