"""Where a system lives: what the kernel asks of a laptop and of a cluster alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from prokos.resources import ProkOSSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.processes import ProcessFile
    from prokos.resources import TaskExecutor, TaskRoute

Kind = Literal["TaskExecutor", "ProcessDefinition"]


@dataclass(frozen=True)
class DesiredProcess:
    """A ProcessDefinition with its BPMN at hand."""

    name: str
    file: ProcessFile
    job_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Desired:
    """The desired state: what the manifests, or the API server, say."""

    system: ProkOSSpec = field(default_factory=ProkOSSpec)
    executors: Mapping[str, TaskExecutor] = field(default_factory=dict)
    processes: Mapping[str, DesiredProcess] = field(default_factory=dict)
    routes: tuple[TaskRoute, ...] = ()
    held_processes: frozenset[str] = frozenset()
    """ProcessDefinitions that are there but wrong: what is registered of them stays."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """The workers of one executor, or the PDO."""

    wanted: int
    running: int
    restarts: int
    message: str = ""


@dataclass(frozen=True)
class Observed:
    """What runs. `beats` maps each shard to the age of its last beat in seconds."""

    workers: Mapping[str, WorkerState]
    pdo: WorkerState
    beats: Mapping[int, float]


class Home(Protocol):
    """What differs between the embedded home and a cluster."""

    def desired(self) -> Desired:
        """The desired state as it is now."""
        ...

    async def ensure_workers(self, executor: TaskExecutor) -> None:
        """Make the executor's workers run as it says. Idempotent."""
        ...

    async def remove_workers(self, name: str) -> None:
        """Let the executor's workers end what they do, and be gone. Idempotent."""
        ...

    async def ensure_pdo(self) -> None:
        """Make the PDO run. Idempotent."""
        ...

    async def observe(self) -> Observed:
        """Look at what runs."""
        ...
