"""What ProkOS knows of a BPMN file: its executable processes and the elements that make jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources.problems import Problem


@dataclass(frozen=True, slots=True)
class Task:
    """An element that makes a job each time it is reached.

    Attributes:
        element_id: Id of the element, which the job carries. A listener's is that of the element it listens to.
        element_name: Name of the element, on one line; empty if it has none.
        element_type: BPMN name such as `serviceTask`, or `executionListener` or `taskListener`.
        documentation: The element's documentation; empty if it has none.
        job_type: The job type; None if it is a FEEL expression that only the engine can evaluate.
        job_type_expression: That expression, with its `=`; None if the job type is known.
        headers: Headers that the job carries.
        retries: Number of attempts as the model writes it, a number or FEEL; None if it does not say.
        multi_instance: Whether the element runs once for each item of a collection.
        line: Line of the XML, counted from 1.
    """

    element_id: str
    element_name: str
    element_type: str
    documentation: str
    job_type: str | None
    job_type_expression: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retries: str | None = None
    multi_instance: bool = False
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """An executable process.

    Attributes:
        process_id: BPMN process id.
        name: Its name, on one line; empty if it has none.
        version_tag: `zeebe:versionTag`; None if it has none.
        tasks: Everything in it that makes jobs, in the file's order.
        line: Line of the XML, counted from 1.
    """

    process_id: str
    name: str
    version_tag: str | None
    tasks: tuple[Task, ...]
    line: int | None = None

    def task(self, element_id: str) -> Task | None:
        """The task of an element, not its listeners; None if the element makes no job."""
        found = [task for task in self.tasks if task.element_id == element_id]
        return next((task for task in found if not task.element_type.endswith("Listener")), None)

    @property
    def job_types(self) -> frozenset[str]:
        """The job types of the tasks, as far as they are known."""
        return frozenset(task.job_type for task in self.tasks if task.job_type is not None)


@dataclass(frozen=True, slots=True)
class ProcessFile:
    """A BPMN file as it was read.

    Attributes:
        processes: Its executable processes; empty if it could not be read.
        problems: What is wrong with it.
        sha256: Hexadecimal digest of the XML.
        resource_name: The name under which it is deployed. It depends on the content alone, because the engine
            makes a new version when the name changes.
        xml: The XML as it is deployed.
    """

    processes: tuple[Process, ...]
    problems: tuple[Problem, ...]
    sha256: str
    resource_name: str
    xml: bytes = field(repr=False)
