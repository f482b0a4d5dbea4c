"""The registry as a value: immutable, and all that routing depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from prokos.resources.base import Model
from prokos.resources.names import is_foreign_job_type, is_reserved_job_type
from prokos.resources.system import ProkOSSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources import TaskExecutor, TaskRoute

DEFAULT_RETRIES = 3
"""Attempts of a task that does not say; the engine's default."""


class RegisteredTask(Model):
    """One element that makes jobs, as its process version defines it."""

    element_id: str
    element_name: str = ""
    element_type: str = "serviceTask"
    documentation: str = ""
    job_type: str | None = Field(None, description="None when it is an expression the engine evaluates.")
    headers: dict[str, str] = Field(default_factory=dict)
    retries: int = DEFAULT_RETRIES


class RegisteredVersion(Model):
    """One deployed version of a process."""

    version: int
    key: int
    sha256: str
    tasks: list[RegisteredTask]


class RegisteredProcess(Model):
    """A process with every version deployed so far: instances of older ones may still run."""

    process_id: str
    name: str = ""
    resource: str = Field(description="Name of the ProcessDefinition it comes from.")
    job_types: list[str] = Field(default_factory=list, description="Further types, from spec.jobTypes.")
    versions: dict[int, RegisteredVersion] = Field(default_factory=dict)
    retired: bool = Field(False, description="No longer wanted; instances that still run are served to their end.")

    @property
    def latest(self) -> RegisteredVersion | None:
        """The newest version."""
        return self.versions[max(self.versions)] if self.versions else None


@dataclass(frozen=True)
class Registry:
    """Everything that is registered at one moment."""

    executors: Mapping[str, TaskExecutor] = field(default_factory=dict)
    processes: Mapping[str, RegisteredProcess] = field(default_factory=dict)
    routes: tuple[TaskRoute, ...] = ()
    system: ProkOSSpec = field(default_factory=ProkOSSpec)

    @cached_property
    def tasks(self) -> Mapping[tuple[str, int, str], RegisteredTask]:
        """Tasks by process id, version and element id. A listener stands for its element only if nothing else does."""
        found: dict[tuple[str, int, str], RegisteredTask] = {}
        for process in self.processes.values():
            for version in process.versions.values():
                for task in version.tasks:
                    key = (process.process_id, version.version, task.element_id)
                    if key not in found or not task.element_type.endswith("Listener"):
                        found[key] = task
        return found

    @cached_property
    def job_types(self) -> frozenset[str]:
        """The job types the PDO serves."""
        known: set[str] = set(self.system.pdo.include)
        for process in self.processes.values():
            known |= set(process.job_types)
            for version in process.versions.values():
                known |= {task.job_type for task in version.tasks if task.job_type}
        ours = {job_type for job_type in known if is_reserved_job_type(job_type)}
        foreign = {job_type for job_type in known if is_foreign_job_type(job_type)}
        foreign -= set(self.system.pdo.include)
        return frozenset(known - ours - foreign - set(self.system.pdo.exclude))
