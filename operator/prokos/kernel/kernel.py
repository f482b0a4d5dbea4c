"""L0, the microkernel: loads the kernel BPMN into the engine, boots the system and follows its desired state.

It does no more than that. What a system does is done by processes; the kernel only works their jobs.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import structlog

from prokos.engine import StepRunner
from prokos.kernel.plan import plan_changes
from prokos.kernel.routes import keep_routes
from prokos.kernel.steps import KernelSteps
from prokos.processes import kernel_processes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.engine import DeployedProcess, EngineClient
    from prokos.kernel.home import Home, Kind
    from prokos.registry import Store

BOOT_MESSAGE = "prokos.kernel.boot"
BOOT_KEY = "boot"
EXECUTOR_CHANGED = "prokos.kernel.executor-changed"
PROCESS_CHANGED = "prokos.kernel.process-changed"

CHANGE_KEPT = 120.0
"""Seconds a change waits for a registration of the same resource that is under way."""

ASK_AGAIN = 60.0
"""Seconds before the registration of a resource is asked for again that is as it was: the first one may be under way,
or it was refused, and what stood in its way may be gone."""

log = structlog.get_logger("prokos.kernel")


class Kernel:
    """The microkernel of one system."""

    def __init__(self, client: EngineClient, home: Home, store: Store, *, worker: str = "kernel") -> None:
        self.client = client
        self.home = home
        self.store = store
        self.steps = KernelSteps(client, home, store)
        self._runner = StepRunner(client, self.steps.handlers(), worker=worker)
        self._asked: dict[tuple[Kind, str], tuple[object, float]] = {}
        """What each resource said when its registration was last asked for, and when, on the monotonic clock."""

    async def load(self) -> list[DeployedProcess]:
        """Deploy the kernel's processes, all or none; the engine keeps versions whose content it has."""
        return await self.client.deploy(kernel_processes())

    async def boot(self) -> None:
        """Start the boot process. One that an earlier kernel left unfinished goes on instead."""
        await self.client.publish_message(BOOT_MESSAGE, BOOT_KEY)

    async def run(self) -> None:
        """Work the kernel's jobs until cancelled."""
        await self._runner.run()

    async def follow(self) -> None:
        """The desired state may have changed: start the registration process of each resource that differs."""
        desired, registry = self.home.desired(), self.store.load()
        if desired.system != registry.system:
            await self.store.put_system(desired.system)
            await self.home.ensure_pdo()
        await keep_routes(self.store, desired.routes)
        self.steps.forget_refusals(desired)
        plan = plan_changes(desired, registry)
        executors = [name for name in plan.executors if self._is_due("TaskExecutor", name, desired.executors)]
        processes = [name for name in plan.processes if self._is_due("ProcessDefinition", name, desired.processes)]
        for name in executors:
            await self.client.publish_message(EXECUTOR_CHANGED, name, {"executor": name}, ttl=CHANGE_KEPT)
            self._asked["TaskExecutor", name] = (desired.executors.get(name), time.monotonic())
        for name in processes:
            await self.client.publish_message(PROCESS_CHANGED, name, {"process": name}, ttl=CHANGE_KEPT)
            self._asked["ProcessDefinition", name] = (desired.processes.get(name), time.monotonic())
        if executors or processes:
            log.info("desired state changed", executors=executors, processes=processes)

    def _is_due(self, kind: Kind, name: str, desired: Mapping[str, object]) -> bool:
        """Whether a registration is to be asked for: not at each look while the resource is as it was."""
        before, at = self._asked.get((kind, name), (None, -math.inf))
        return before != desired.get(name) or time.monotonic() - at >= ASK_AGAIN
