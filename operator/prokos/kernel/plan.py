"""Pure decisions of the kernel: what to register, what to remove, which heartbeat is late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prokos.registry import RegisteredProcess, RegisteredTask, RegisteredVersion
from prokos.registry.model import DEFAULT_RETRIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prokos.engine import DeployedProcess
    from prokos.kernel.home import Desired, DesiredProcess, WorkerState
    from prokos.processes import Process
    from prokos.registry import Registry

BEAT_LATE = 8.0
"""Seconds after which a shard's heartbeat counts as late. A beat lasts a second; a killed PDO is back within five."""


@dataclass(frozen=True, slots=True)
class Registrations:
    """Names of resources whose registration process has work to do."""

    executors: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()


def plan_boot(desired: Desired, registry: Registry) -> Registrations:
    """At boot everything is registered, so that workers start; what is no longer wanted is removed."""
    executors = set(desired.executors) | set(registry.executors)
    processes = set(desired.processes) | {process.resource for process in registry.processes.values()}
    return Registrations(tuple(sorted(executors)), tuple(sorted(processes - desired.held_processes)))


def plan_changes(desired: Desired, registry: Registry) -> Registrations:
    """While the system runs only what differs is registered."""
    changed = {name for name, executor in desired.executors.items() if registry.executors.get(name) != executor}
    executors = changed | (set(registry.executors) - set(desired.executors))
    active = {process.resource for process in registry.processes.values() if not process.retired}
    redeployed = {name for name, process in desired.processes.items() if is_changed(process, registry.processes)}
    processes = redeployed | (active - set(desired.processes) - desired.held_processes)
    return Registrations(tuple(sorted(executors)), tuple(sorted(processes)))


def is_changed(process: DesiredProcess, registered: Mapping[str, RegisteredProcess]) -> bool:
    """Whether a process's content differs from what is deployed."""
    if dropped(process, registered):
        return True
    for definition in process.file.processes:
        known = registered.get(definition.process_id)
        if known is None or known.retired or known.latest is None:
            return True
        if known.latest.sha256 != process.file.sha256 or known.job_types != list(process.job_types):
            return True
        if known.resource != process.name:
            return True
    return False


def dropped(process: DesiredProcess, registered: Mapping[str, RegisteredProcess]) -> Sequence[RegisteredProcess]:
    """Processes that a resource had and has no more: its BPMN has them under another id, or not at all."""
    ids = {definition.process_id for definition in process.file.processes}
    return [
        known
        for known in registered.values()
        if known.resource == process.name and not known.retired and known.process_id not in ids
    ]


def register_version(
    process: Process, desired: DesiredProcess, deployed: DeployedProcess, known: RegisteredProcess | None
) -> RegisteredProcess:
    """A process with the version that was just deployed; earlier versions are kept."""
    version = RegisteredVersion(
        version=deployed.version,
        key=deployed.key,
        sha256=desired.file.sha256,
        tasks=[
            RegisteredTask(
                element_id=task.element_id,
                element_name=task.element_name,
                element_type=task.element_type,
                documentation=task.documentation,
                job_type=task.job_type,
                headers=dict(task.headers),
                retries=int(task.retries) if task.retries and task.retries.isdecimal() else DEFAULT_RETRIES,
            )
            for task in process.tasks
        ],
    )
    return RegisteredProcess(
        process_id=process.process_id,
        name=process.name,
        resource=desired.name,
        job_types=list(desired.job_types),
        versions={**(known.versions if known else {}), deployed.version: version},
    )


def late_shards(shards: int, beats: Mapping[int, float], late: float = BEAT_LATE) -> list[int]:
    """Shards whose last beat is too old, or was never seen. `beats` holds ages in seconds."""
    return [shard for shard in range(shards) if beats.get(shard, late + 1) > late]


def unwell(workers: Mapping[str, WorkerState]) -> Sequence[str]:
    """Names of executors that have fewer workers than they should."""
    return [name for name, state in sorted(workers.items()) if state.running < state.wanted]
