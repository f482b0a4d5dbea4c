"""Reading BPMN: which processes a file holds, what in them makes jobs, and what is wrong with it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import PurePath
from typing import TYPE_CHECKING

from prokos.processes.model import Process, ProcessFile, Task
from prokos.processes.parsing import executable_processes, parse
from prokos.processes.structure import check_structure
from prokos.processes.tasks import read_process
from prokos.resources.names import is_reserved_job_type
from prokos.resources.problems import Problem, bounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def read_bpmn(xml: bytes, file: str, *, job_types: Sequence[str] = (), kernel: bool = False) -> ProcessFile:
    """Read a BPMN file. Bad input gives problems, never an exception.

    Args:
        xml: The XML, in the encoding it declares.
        file: Its name, for problems; their lines are lines of the XML.
        job_types: Values of its FEEL job types, listed beside it; with them such a job type is no problem.
        kernel: Whether it is one of ours, which may use the names that are reserved for us.
    """
    digest = sha256(xml).hexdigest()
    root = parse(xml, file)
    if isinstance(root, Problem):
        return ProcessFile((), (root,), digest, PurePath(file).name, xml)
    processes = tuple(read_process(process) for process in executable_processes(root) if process.get("id"))
    problems = [*bounded(check_structure(root, file, kernel=kernel), file)]
    for process in processes:
        problems += bounded(_job_type_problems(process, file, listed=bool(job_types), kernel=kernel), file)
    name = f"{processes[0].process_id}.bpmn" if processes else PurePath(file).name
    return ProcessFile(processes, tuple(sorted(problems)), digest, name, xml)


def _job_type_problems(process: Process, file: str, *, listed: bool, kernel: bool) -> Iterator[Problem]:
    for task in process.tasks:
        if task.job_type is None:
            if not listed:
                message = f"the job type is FEEL ({task.job_type_expression}): the PDO cannot see it"
                hint = "list its values in spec.jobTypes of the ProcessDefinition or in spec.pdo.include"
                yield _problem(task, file, message, hint, warning=True)
        elif not task.job_type:
            yield _problem(task, file, f"the job type of this {task.element_type} is empty", "set its type")
        elif is_reserved_job_type(task.job_type) and not kernel:
            message = f"job type {task.job_type!r} is reserved for ProkOS"
            yield _problem(task, file, message, "choose one that does not start with prokos.")
        elif task.job_type != task.job_type.strip():
            message = f"job type {task.job_type!r} has spaces around it, which belong to its name"
            yield _problem(task, file, message, "remove them", warning=True)


def _problem(task: Task, file: str, message: str, hint: str, *, warning: bool = False) -> Problem:
    return Problem("warning" if warning else "error", file, task.element_id, message, task.line, hint)
