"""What each resource's status says. Pure: from what is wanted, registered and observed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prokos.k8s.conditions import Statement, merge_conditions, summary
from prokos.k8s.diagnose import deployment_statement, is_ready
from prokos.k8s.names import PDO, ROUTER, WORKER, label_selector, part_name, selector_labels, worker_name
from prokos.k8s.single_use import single_use_statement
from prokos.kernel.plan import is_changed, late_shards
from prokos.resources.status import (
    EngineStatus,
    ProcessDefinitionStatus,
    ProcessStatus,
    ProkOSStatus,
    Status,
    TaskExecutorStatus,
    TaskStatus,
)
from prokos.router import Decision, Undecided, decide, newest_elements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prokos.k8s.desired import ObjectKey, Wanted
    from prokos.k8s.engine import EngineState
    from prokos.k8s.home import PdoState, Pods
    from prokos.kernel.home import Kind
    from prokos.kube import Manifest
    from prokos.registry import RegisteredProcess, Registry

ACCEPTED = "Accepted"
REGISTERED = "Registered"
DEPLOYED = "Deployed"
WORKERS_READY = "WorkersReady"

BEAT_PATIENCE = 60.0
"""Seconds for which shards that beat may be silent before the condition says so: an engine that moves takes half of it,
and the beats come again after that."""


@dataclass(frozen=True)
class Facts:
    """Everything that is known of a system at one moment.

    Attributes:
        kernel: The condition `KernelLoaded`.
        refusals: Why resources are not registered.
        missing_secrets: What Secrets lack, by executor.
    """

    system: str
    wanted: Wanted
    registry: Registry
    engine: EngineState
    kernel: Statement
    pods: Pods
    pdo: PdoState
    refusals: Mapping[tuple[Kind, str], str] = field(default_factory=dict)
    missing_secrets: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def registered(self, kind: Kind, name: str, *, current: bool) -> Statement:
        """Whether the engine and the PDO know a resource as it is now."""
        condition = REGISTERED if kind == "TaskExecutor" else DEPLOYED
        if refusal := self.refusals.get((kind, name)):
            return Statement(condition, "False", "Refused", refusal)
        if current:
            return Statement(condition, "True", condition)
        if self.kernel.status != "True":
            message = f"waiting for the engine: {self.kernel.message}"
            return Statement(condition, "False", "EngineNotReady", message, transient=True)
        return Statement(condition, "False", "Pending", "the registration process has not ended", transient=True)


@dataclass(frozen=True)
class Report:
    """The status of one resource, and its condition Ready as it is, whatever the status still says for a while."""

    status: Manifest
    ready: Statement


def reports(facts: Facts, manifests: Mapping[ObjectKey, Manifest], time: str) -> dict[ObjectKey, Report]:
    """What to report of every resource; `time` is RFC 3339."""
    found: dict[ObjectKey, Report] = {}
    ready: dict[str, Statement] = {}
    for key, manifest in manifests.items():
        kind, name = key
        status: Status
        if kind == "TaskExecutor":
            status, conditions = executor_status(facts, name)
            ready[name] = conditions[-1]
        elif kind == "ProcessDefinition":
            status, conditions = process_status(facts, name)
        elif kind == "TaskRoute":
            status, conditions = Status(), route_conditions(facts, name)
        else:
            continue
        found[key] = _report(status, conditions, manifest, time)
    if system := manifests.get(("ProkOS", facts.system)):
        status, conditions = system_status(facts, ready)
        found["ProkOS", facts.system] = _report(status, conditions, system, time)
    return found


def _report(status: Status, conditions: Sequence[Statement], manifest: Manifest, time: str) -> Report:
    before = (manifest.get("status") or {}).get("conditions")
    generation = manifest["metadata"].get("generation")
    document: dict[str, Any] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["observedGeneration"] = generation
    document["conditions"] = merge_conditions(before, conditions, generation, time)
    return Report(document, conditions[-1])


def accepted(facts: Facts, key: ObjectKey) -> Statement:
    """Whether a resource says something that can be done."""
    if problems := facts.wanted.problems.get(key):
        return Statement(ACCEPTED, "False", "Invalid", "; ".join(problems))
    return Statement(ACCEPTED, "True", "Valid", "; ".join(facts.wanted.warnings.get(key, [])))


def executor_status(facts: Facts, name: str) -> tuple[TaskExecutorStatus, list[Statement]]:
    """Status and conditions of a TaskExecutor."""
    desired = facts.wanted.desired.executors.get(name)
    current = facts.registry.executors.get(name) is not None and facts.registry.executors.get(name) == desired
    single_use = desired is not None and desired.spec.scaling.pod_per_task
    counts, workers = _single_use(facts, name) if single_use else _deployment(facts, name)
    parts = [
        accepted(facts, ("TaskExecutor", name)),
        facts.registered("TaskExecutor", name, current=current),
        workers,
    ]
    status = counts.model_copy(
        update={
            "selector": label_selector(selector_labels(facts.system, WORKER, name)),
            "backlog": None if facts.pdo.backlog is None else facts.pdo.backlog.get(name, 0),
        }
    )
    return status, [*parts, summary(parts, message=workers.message)]


def _deployment(facts: Facts, name: str) -> tuple[TaskExecutorStatus, Statement]:
    """Counts and condition of workers that a Deployment runs."""
    deployment = facts.pods.deployments.get(worker_name(name))
    statement = deployment_statement(
        WORKERS_READY,
        deployment,
        facts.pods.pods.get(worker_name(name), []),
        missing_secrets=facts.missing_secrets.get(name, ()),
    )
    observed = (deployment or {}).get("status", {})
    ready = observed.get("readyReplicas", 0)
    counts = TaskExecutorStatus(
        replicas=observed.get("replicas", 0),
        ready_replicas=ready,
        workers=f"{ready}/{deployment['spec']['replicas']}" if deployment else None,
    )
    return counts, statement


def _single_use(facts: Facts, name: str) -> tuple[TaskExecutorStatus, Statement]:
    """The same of pods that take one task each."""
    uses, pods = facts.pods.jobs.get(worker_name(name), []), facts.pods.pods.get(worker_name(name), [])
    statement = single_use_statement(WORKERS_READY, uses, pods, missing_secrets=facts.missing_secrets.get(name, ()))
    active, ready = sum(use.active for use in uses), sum(is_ready(pod) for pod in pods)
    counts = TaskExecutorStatus(replicas=active, ready_replicas=ready, workers=f"{ready}/{active}")
    return counts, statement


def process_status(facts: Facts, name: str) -> tuple[ProcessDefinitionStatus, list[Statement]]:
    """Status and conditions of a ProcessDefinition."""
    desired = facts.wanted.desired.processes.get(name)
    records = [record for record in facts.registry.processes.values() if record.resource == name and not record.retired]
    current = desired is not None and not is_changed(desired, facts.registry.processes)
    parts = [
        accepted(facts, ("ProcessDefinition", name)),
        facts.registered("ProcessDefinition", name, current=current),
    ]
    processes = [_process(record, facts.registry) for record in records if record.latest is not None]
    tasks = [task for process in processes for task in process.tasks]
    unrouted = [task for task in tasks if task.executor is None]
    status = ProcessDefinitionStatus(
        process_id=processes[0].process_id if processes else None,
        version=processes[0].version if processes else None,
        routed=f"{len(tasks) - len(unrouted)}/{len(tasks)}",
        processes=processes,
    )
    message = f"no route yet: {', '.join(task.element for task in unrouted)}" if unrouted else ""
    return status, [*parts, summary(parts, message=message)]


def _process(record: RegisteredProcess, registry: Registry) -> ProcessStatus:
    latest = record.latest
    assert latest is not None  # noqa: S101 - the caller asked
    tasks = []
    for element in newest_elements(record):
        outcome = decide(element, registry)
        task = TaskStatus(element=element.element, job_type=element.job_type or None)
        if isinstance(outcome, Decision):
            task = task.model_copy(update={"executor": outcome.executor, "source": outcome.source})
        elif isinstance(outcome, Undecided):
            task = task.model_copy(update={"message": "the router's model is asked when the first task comes"})
        else:
            task = task.model_copy(update={"message": outcome.message})
        tasks.append(task)
    return ProcessStatus(process_id=record.process_id, version=latest.version, key=str(latest.key), tasks=tasks)


def route_conditions(facts: Facts, name: str) -> list[Statement]:
    """Conditions of a TaskRoute."""
    parts = [accepted(facts, ("TaskRoute", name))]
    return [*parts, summary(parts)]


def system_status(facts: Facts, executors: Mapping[str, Statement]) -> tuple[ProkOSStatus, list[Statement]]:
    """Status and conditions of the ProkOS."""
    shards = facts.wanted.desired.system.pdo.shards
    beating = shards - len(late_shards(shards, facts.pdo.beats))
    well = [name for name, statement in executors.items() if statement.status == "True"]
    parts = [
        accepted(facts, ("ProkOS", facts.system)),
        facts.engine.ready,
        facts.kernel,
        _beating(facts, beating, shards),
        _executors(executors),
    ]
    status = ProkOSStatus(
        engine=facts.engine.status or EngineStatus(),
        executors=f"{len(well)}/{len(executors)}",
        processes=sum(not record.retired for record in facts.registry.processes.values()),
        shards=f"{beating}/{shards}",
    )
    return status, [*parts, summary(parts, message="engine, heartbeat and executors are well")]


def _beating(facts: Facts, beating: int, shards: int) -> Statement:
    """PDO, and router if there is one. A heart that pauses is started again by the health process."""
    kind = "PDOBeating"
    name = part_name(facts.system, PDO)
    pods = deployment_statement(kind, facts.pods.deployments.get(name), facts.pods.pods.get(name, []))
    if pods.status != "True" and not pods.transient:
        return pods
    if facts.wanted.desired.system.router.mode == "llm":
        name = part_name(facts.system, ROUTER)
        router = deployment_statement(kind, facts.pods.deployments.get(name), facts.pods.pods.get(name, []))
        if router.status != "True" and not router.transient:
            return router
    if beating < shards:
        passes = facts.pdo.silent_for < BEAT_PATIENCE
        return Statement(kind, "False", "NoBeat", f"{beating} of {shards} shards beat", transient=passes)
    return Statement(kind, "True", "Beating", f"{beating} of {shards} shards beat")


def _executors(executors: Mapping[str, Statement]) -> Statement:
    kind = "ExecutorsReady"
    unwell = {name: statement for name, statement in sorted(executors.items()) if statement.status != "True"}
    if not unwell:
        return Statement(kind, "True", "AllReady", f"{len(executors)} executors are ready")
    lasting = {name: statement for name, statement in unwell.items() if not statement.transient}
    name, first = next(iter((lasting or unwell).items()))
    more = f" (and {len(unwell) - 1} more)" if len(unwell) > 1 else ""
    return Statement(kind, "False", first.reason, f"{name}: {first.message}{more}", transient=not lasting)
