"""The steps of the kernel's processes: boot, registration, health. Each handler works one job."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from prokos.engine import (
    DeployedProcess,
    EngineUnavailableError,
    NotFoundError,
    RejectedError,
    StepRefusedError,
)
from prokos.kernel.plan import dropped, late_shards, plan_boot, register_version, unwell
from prokos.kernel.routes import keep_routes
from prokos.pdo.beat import BEAT_MESSAGE
from prokos.processes import tde_resources
from prokos.resources.names import tde_job_type
from prokos.router import Decision, decide, newest_elements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.engine import EngineClient, Job
    from prokos.engine.steps import Step
    from prokos.kernel.home import Desired, DesiredProcess, Home, Kind
    from prokos.registry import RegisteredProcess, Store
    from prokos.resources import TaskExecutor

REFUSED = "REGISTRATION_REFUSED"
"""BPMN error of the registration processes: the resource is wrong, and trying again cannot help."""

HEALTH_MESSAGE = "prokos.kernel.health"
HEALTH_KEY = "health"
HEALTH_INTERVAL = "PT5S"
"""ISO 8601 time between health checks."""

KEPT = 60.0
"""Seconds the engine keeps the call of the next health check; it is taken at once."""

log = structlog.get_logger("prokos.kernel")


class KernelSteps:
    """Handlers of all kernel jobs."""

    def __init__(self, client: EngineClient, home: Home, store: Store) -> None:
        self.client = client
        self.home = home
        self.store = store
        self.refusals: dict[tuple[Kind, str], str] = {}
        """Why resources are not registered, until they are."""
        self.booted = asyncio.Event()

    def handlers(self) -> Mapping[str, Step]:
        """Job type to handler."""
        prefix = "prokos.kernel."
        return {
            prefix + "check-engine": self.check_engine,
            prefix + "plan-registrations": self.plan_registrations,
            prefix + "inspect-executor": self.inspect_executor,
            prefix + "deploy-tde": self.deploy_tde,
            prefix + "start-workers": self.start_workers,
            prefix + "record-executor": self.record_executor,
            prefix + "stop-workers": self.stop_workers,
            prefix + "forget-executor": self.forget_executor,
            prefix + "inspect-process": self.inspect_process,
            prefix + "deploy-process": self.deploy_process,
            prefix + "plan-routes": self.plan_routes,
            prefix + "record-process": self.record_process,
            prefix + "forget-process": self.forget_process,
            prefix + "record-refusal": self.record_refusal,
            prefix + "start-pdo": self.start_pdo,
            prefix + "start-health": self.start_health,
            prefix + "check-workers": self.check_workers,
            prefix + "check-heartbeat": self.check_heartbeat,
            prefix + "health-again": self.health_again,
        }

    def forget_refusals(self, desired: Desired) -> None:
        """Drop the refusals of resources that are no longer there."""
        present = {"TaskExecutor": desired.executors, "ProcessDefinition": desired.processes}
        for kind, name in list(self.refusals):
            if name not in present[kind]:
                del self.refusals[kind, name]

    # --- boot -------------------------------------------------------------------------------------------------

    async def check_engine(self, _: Job) -> dict[str, Any]:
        """The engine has a leader for every partition; until then the process waits here."""
        topology = await self.client.topology()
        if not topology.ready:
            raise EngineUnavailableError(f"{topology.leaders} of {topology.partitions} partitions have a leader")
        return {"engine": asdict(topology)}

    async def plan_registrations(self, _: Job) -> dict[str, Any]:
        """Everything that is desired or was registered before."""
        desired = self.home.desired()
        await self.store.put_system(desired.system)
        await keep_routes(self.store, desired.routes)
        plan = plan_boot(desired, self.store.load())
        return {"executors": plan.executors, "processes": plan.processes}

    async def start_pdo(self, _: Job) -> dict[str, Any]:
        """The PDO runs, and every shard's heart beats. A heart that beats already is not disturbed."""
        await self.home.ensure_pdo()
        shards = self.home.desired().system.pdo.shards
        for shard in range(shards):
            await self._start_beat(shard)
        return {"shards": shards}

    async def _start_beat(self, shard: int) -> None:
        await self.client.publish_message(BEAT_MESSAGE, str(shard), {"shard": shard, "beat": 0})

    async def start_health(self, _: Job) -> None:
        """The health check begins; one that runs already is not disturbed."""
        await self.client.publish_message(HEALTH_MESSAGE, HEALTH_KEY, {"interval": HEALTH_INTERVAL})
        self.booted.set()
        log.info("system booted")

    # --- executors --------------------------------------------------------------------------------------------

    async def inspect_executor(self, job: Job) -> dict[str, Any]:
        """Whether the executor is wanted."""
        return {"desired": job.variables["executor"] in self.home.desired().executors}

    def _executor(self, job: Job) -> TaskExecutor:
        name = job.variables["executor"]
        executor = self.home.desired().executors.get(name)
        if executor is None:
            raise StepRefusedError(REFUSED, f"TaskExecutor {name} was removed while it was being registered")
        return executor

    async def deploy_tde(self, job: Job) -> dict[str, Any]:
        """The executor's TDE process is deployed."""
        executor = self._executor(job)
        deployed = await self._deploy(tde_resources(executor))
        return {"tde": asdict(deployed[0])}

    async def _deploy(self, resources: Mapping[str, bytes]) -> list[DeployedProcess]:
        try:
            return await self.client.deploy(resources)
        except RejectedError as error:
            names = " and ".join(resources)
            raise StepRefusedError(REFUSED, f"the engine refuses {names}: {error}") from error

    async def start_workers(self, job: Job) -> None:
        """The executor's workers run as it says."""
        # One that was removed meanwhile has a registration of its own coming, which undoes this one.
        if executor := self.home.desired().executors.get(job.variables["executor"]):
            await self.home.ensure_workers(executor)

    async def record_executor(self, job: Job) -> None:
        """The PDO may dispatch to it."""
        executor = self.home.desired().executors.get(job.variables["executor"])
        if executor is None:
            return
        await self.store.put_executor(executor)
        self.refusals.pop(("TaskExecutor", executor.metadata.name), None)
        log.info("executor registered", executor=executor.metadata.name)

    async def stop_workers(self, job: Job) -> None:
        """Workers end what they do and are gone; TDEs that wait for one are cancelled, their tasks offered again."""
        name = job.variables["executor"]
        await self.home.remove_workers(name)
        while waiting := await self.client.activate_jobs(tde_job_type(name), worker="kernel", limit=100, lease=30):
            for tde in waiting:
                # One that a process calls itself is that process's to cancel.
                with contextlib.suppress(NotFoundError, RejectedError):
                    await self.client.cancel_instance(tde.process_instance_key)

    async def forget_executor(self, job: Job) -> None:
        """The PDO no longer dispatches to it."""
        name = job.variables["executor"]
        await self.store.remove_executor(name)
        self.refusals.pop(("TaskExecutor", name), None)
        log.info("executor removed", executor=name)

    # --- processes --------------------------------------------------------------------------------------------

    async def inspect_process(self, job: Job) -> dict[str, Any]:
        """Whether the process is wanted."""
        return {"desired": job.variables["process"] in self.home.desired().processes}

    def _process(self, job: Job) -> DesiredProcess:
        name = job.variables["process"]
        process = self.home.desired().processes.get(name)
        if process is None:
            raise StepRefusedError(REFUSED, f"ProcessDefinition {name} was removed while it was being registered")
        return process

    async def deploy_process(self, job: Job) -> dict[str, Any]:
        """The BPMN is deployed; the engine keeps the version of content it has already."""
        process = self._process(job)
        deployed = await self._deploy({process.file.resource_name: process.file.xml})
        return {"deployed": [asdict(item) for item in deployed]}

    async def plan_routes(self, job: Job) -> dict[str, Any]:
        """What the rules say of each task, for people to see; the rest is decided when the first task comes."""
        process = self.home.desired().processes.get(job.variables["process"])
        if process is None:
            return {"routes": {}}
        registry = self.store.load()
        plan: dict[str, str] = {}
        for record in self._records(process, job):
            for element in newest_elements(record):
                outcome = decide(element, registry)
                plan[element.element] = outcome.executor if isinstance(outcome, Decision) else type(outcome).__name__
        return {"routes": plan}

    async def record_process(self, job: Job) -> None:
        """The PDO serves its job types from the next beat on."""
        process = self.home.desired().processes.get(job.variables["process"])
        if process is None:
            return
        records = self._records(process, job)
        for record in records:
            await self.store.put_process(record)
        for gone in dropped(process, self.store.load().processes):
            await self.store.put_process(gone.model_copy(update={"retired": True}))
            log.info("process retired; its running instances are still served", process=gone.process_id)
        self.refusals.pop(("ProcessDefinition", process.name), None)
        log.info(
            "process registered",
            process=process.name,
            versions={record.process_id: max(record.versions) for record in records},
        )

    def _records(self, process: DesiredProcess, job: Job) -> list[RegisteredProcess]:
        """What is to be registered of a process that was deployed by an earlier step of its registration."""
        known = self.store.load().processes
        deployed = {item["process_id"]: DeployedProcess(**item) for item in job.variables["deployed"]}
        return [
            register_version(definition, process, deployed[definition.process_id], known.get(definition.process_id))
            for definition in process.file.processes
            if definition.process_id in deployed  # one that was changed since has a registration of its own coming
        ]

    async def forget_process(self, job: Job) -> None:
        """The process is retired: instances that still run are served to their end."""
        name = job.variables["process"]
        for process in self.store.load().processes.values():
            if process.resource == name:
                await self.store.put_process(process.model_copy(update={"retired": True}))
        self.refusals.pop(("ProcessDefinition", name), None)
        log.info("process retired; its running instances are still served", process=name)

    async def record_refusal(self, job: Job) -> None:
        """Keep why a resource is not registered, for its status."""
        variables = job.variables
        message = str(variables.get("refusal") or "the engine gave no reason")
        if "executor" in variables:
            self.refusals["TaskExecutor", variables["executor"]] = message
        else:
            self.refusals["ProcessDefinition", variables["process"]] = message
        log.error("registration refused", reason=message)

    # --- health -----------------------------------------------------------------------------------------------

    async def check_workers(self, _: Job) -> dict[str, Any]:
        """Say which executors lack workers; bringing them back is their home's work."""
        observed = await self.home.observe()
        return {"unwell": unwell(observed.workers)}

    async def check_heartbeat(self, _: Job) -> dict[str, Any]:
        """The watchdog: start the heartbeat of a shard that is late. If it does beat, nothing happens."""
        # A PDO reads its settings when it starts: not before they are registered, which applies it as well.
        if self.store.load().system == self.home.desired().system:
            await self.home.ensure_pdo()
        observed = await self.home.observe()
        late = late_shards(self.home.desired().system.pdo.shards, observed.beats)
        for shard in late:
            await self._start_beat(shard)
        return {"lateShards": late}

    async def health_again(self, job: Job) -> None:
        """Call the next check, as the heartbeat calls its next beat."""
        await self.client.publish_message(
            HEALTH_MESSAGE,
            HEALTH_KEY,
            {"interval": HEALTH_INTERVAL},
            ttl=KEPT,
            message_id=f"health-{job.process_instance_key}",
        )
