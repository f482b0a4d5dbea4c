"""Who runs which task: tasks that two executors claim, tasks that none claims, and names that lead nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from prokos.resources.matching import EXECUTOR_HEADER, claimants, includes
from prokos.resources.names import is_foreign_job_type, is_reserved_job_type
from prokos.resources.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prokos.processes.definitions import Definition
    from prokos.processes.model import Process, Task
    from prokos.resources.executor import TaskExecutor
    from prokos.resources.loaded import Located
    from prokos.resources.problems import Problem
    from prokos.resources.route import TaskRoute
    from prokos.resources.system import PdoSettings, RouterSettings

_NAMED_LIMIT = 3
"""Most tasks that one message names."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that decides who runs a task."""

    executors: Sequence[Located[TaskExecutor]]
    definitions: Sequence[Definition]
    routes: Sequence[Located[TaskRoute]]
    pdo: PdoSettings
    router: RouterSettings

    @property
    def names(self) -> set[str]:
        """Names of the executors."""
        return {at.resource.metadata.name for at in self.executors}

    def claims(
        self, definition: Definition, process: Process, task: Task
    ) -> Iterator[tuple[str | None, list[tuple[TaskExecutor, int]]]]:
        """Each job type a task may have, None if that is unknown, and the executors that then claim it."""
        executors = [at.resource for at in self.executors]
        job_types: Sequence[str | None] = definition.job_types(task) or [None]
        for job_type in job_types:
            yield (
                job_type,
                claimants(
                    executors,
                    job_type=job_type,
                    process=process.process_id,
                    element=task.element_id,
                    headers=task.headers,
                ),
            )


def contested_tasks(catalogue: Catalogue) -> Iterator[Problem]:
    """Rules of two executors that accept the same task, or will if it ever comes."""
    contested: dict[tuple[int, int, int, int], dict[str, None]] = {}
    place = {id(at.resource): number for number, at in enumerate(catalogue.executors)}
    for definition in catalogue.definitions:
        for process, task in definition.tasks():
            if EXECUTOR_HEADER in task.headers:
                continue
            for _, claims in catalogue.claims(definition, process, task):
                for (one, rule), (other, other_rule) in combinations(claims, 2):
                    key = (place[id(one)], rule, place[id(other)], other_rule)
                    contested.setdefault(key, {})[f"{_described(task)} of process {process.process_id!r}"] = None
    for key in _overlapping_rules(catalogue.executors):
        contested.setdefault(key, {})
    for (number, rule, other_number, other_rule), tasks in contested.items():
        yield _contradiction(
            catalogue.executors[number], rule, catalogue.executors[other_number], other_rule, list(tasks)
        )


def _overlapping_rules(executors: Sequence[Located[TaskExecutor]]) -> Iterator[tuple[int, int, int, int]]:
    """Pairs of rules of two executors, one of which accepts all that the other accepts."""
    for (number, one), (other_number, other) in combinations(enumerate(executors), 2):
        for index, rule in enumerate(one.resource.spec.accepts):
            for other_index, other_rule in enumerate(other.resource.spec.accepts):
                if includes(rule, other_rule) or includes(other_rule, rule):
                    yield number, index, other_number, other_index


def _contradiction(
    one: Located[TaskExecutor], rule: int, other: Located[TaskExecutor], other_rule: int, tasks: list[str]
) -> Problem:
    more = len(tasks) - _NAMED_LIMIT
    named = ", ".join(tasks[:_NAMED_LIMIT]) + (f" and {more} more" if more > 0 else "")
    what = f"task {named}" if tasks else "the same tasks"
    names = f"{one.resource.metadata.name!r} and {other.resource.metadata.name!r}"
    return other.problem(
        ("spec", "accepts", other_rule),
        f"executors {names} both claim {what}; the other rule is {one.place(('spec', 'accepts', rule))}",
        f"let one rule accept what the other does not, or name the executor in the task's header {EXECUTOR_HEADER}",
    )


def unclaimed_tasks(catalogue: Catalogue) -> Iterator[Problem]:
    """Tasks that ProkOS serves and no header, rule or TaskRoute gives to an executor."""
    routed = {(at.resource.spec.process, at.resource.spec.element) for at in catalogue.routes}
    for definition in catalogue.definitions:
        for process, task in definition.tasks():
            if EXECUTOR_HEADER in task.headers or (process.process_id, task.element_id) in routed:
                continue
            for job_type, claims in catalogue.claims(definition, process, task):
                if job_type is not None and not claims and _is_served(job_type, catalogue.pdo):
                    fate, hint = _fate(catalogue.router, job_type)
                    message = f"no executor claims {_described(task)} of process {process.process_id!r}: {fate}"
                    yield definition.problem(task, message, hint, "warning")
                    break


def _is_served(job_type: str, pdo: PdoSettings) -> bool:
    if not job_type or is_reserved_job_type(job_type) or job_type in pdo.exclude:
        return False
    return job_type in pdo.include or not is_foreign_job_type(job_type)


def _fate(router: RouterSettings, job_type: str) -> tuple[str, str]:
    """What becomes of a task that nobody claims, and what to do about it."""
    if router.mode == "llm":
        last = f"the fallback executor {router.fallback!r} runs it" if router.fallback else "it becomes an incident"
        return f"the LLM router chooses one, and if it finds none, {last}", ""
    if router.fallback:
        return f"the fallback executor {router.fallback!r} runs it", ""
    return "it becomes an incident", f"add the rule jobType: {job_type} to accepts of an executor"


def unknown_names(catalogue: Catalogue) -> Iterator[Problem]:
    """Headers that name no executor, and rules that name no task of a process that is known."""
    names = catalogue.names
    for definition in catalogue.definitions:
        for _, task in definition.tasks():
            name = task.headers.get(EXECUTOR_HEADER)
            if name is not None and name not in names:
                message = f"header {EXECUTOR_HEADER} names executor {name!r}, which is not there"
                yield definition.problem(task, message, did_you_mean(name, names))
    elements = elements_by_process(catalogue.definitions)
    for at in catalogue.executors:
        for index, rule in enumerate(at.resource.spec.accepts):
            known = elements.get(rule.process or "")
            if known is not None and rule.element is not None and rule.element not in known:
                message = f"process {rule.process!r} has no task {rule.element!r}: this rule accepts nothing"
                path = ("spec", "accepts", index, "element")
                yield at.problem(path, message, did_you_mean(rule.element, known), severity="warning")


def elements_by_process(definitions: Sequence[Definition]) -> dict[str, set[str]]:
    """Element ids of the tasks of each process."""
    found: dict[str, set[str]] = {}
    for definition in definitions:
        for process in definition.bpmn.processes:
            found.setdefault(process.process_id, set()).update(task.element_id for task in process.tasks)
    return found


def _described(task: Task) -> str:
    if task.element_type.endswith("Listener"):
        return f"{task.element_id!r} ({task.element_type} {task.job_type or task.job_type_expression})"
    return repr(task.element_id)
