"""The BPMN of all ProcessDefinitions, read: what registration deploys and what validation checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prokos.processes.reading import read_bpmn
from prokos.resources.problems import Problem, Severity
from prokos.resources.process import ProcessDefinition
from prokos.resources.system import ProkOS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prokos.processes.model import Process, ProcessFile, Task
    from prokos.resources.loaded import BpmnSource, Loaded, Located


@dataclass(frozen=True, slots=True)
class Definition:
    """A ProcessDefinition with its BPMN.

    Attributes:
        at: The resource and its place.
        source: Where its XML is.
        bpmn: The XML, read; the lines in it are lines of the XML.
    """

    at: Located[ProcessDefinition]
    source: BpmnSource
    bpmn: ProcessFile

    def line(self, xml_line: int | None) -> int | None:
        """Line of the file that holds the XML, for a line of the XML."""
        if self.source.line is not None:
            return None if xml_line is None else self.source.line + xml_line - 1
        return self.at.line_of(("spec", "bpmn")) if self.source.file == self.at.file else None

    def problems(self) -> list[Problem]:
        """What is wrong with the BPMN, at the lines of the file that holds it."""
        return [replace(problem, line=self.line(problem.line)) for problem in self.bpmn.problems]

    def problem(self, task: Task, message: str, hint: str = "", severity: Severity = "error") -> Problem:
        """A problem with one of the tasks."""
        return Problem(severity, str(self.source.file), task.element_id, message, self.line(task.line), hint)

    def tasks(self) -> Iterator[tuple[Process, Task]]:
        """All tasks, each with its process."""
        for process in self.bpmn.processes:
            for task in process.tasks:
                yield process, task

    def job_types(self, task: Task) -> list[str]:
        """The job types a task may have: its own, or those listed for the FEEL expressions of its process."""
        return [task.job_type] if task.job_type is not None else self.at.resource.spec.job_types


def read_definitions(loaded: Loaded) -> list[Definition]:
    """Read the BPMN of every ProcessDefinition that has some."""
    included = [job_type for system in loaded.only(ProkOS) for job_type in system.spec.pdo.include]
    found = []
    for at in loaded.of(ProcessDefinition):
        if at.bpmn is not None:
            job_types = [*at.resource.spec.job_types, *included]
            bpmn = read_bpmn(at.bpmn.xml, str(at.bpmn.file), job_types=job_types)
            found.append(Definition(at, at.bpmn, bpmn))
    return found
