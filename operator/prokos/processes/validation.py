"""Offline validation: everything that can be known to be wrong before anything is deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prokos.processes.claims import Catalogue, contested_tasks, elements_by_process, unclaimed_tasks, unknown_names
from prokos.processes.definitions import Definition, read_definitions
from prokos.processes.executor_checks import check_executor
from prokos.resources.executor import TaskExecutor
from prokos.resources.names import is_reserved_job_type
from prokos.resources.problems import Problem, did_you_mean
from prokos.resources.route import TaskRoute
from prokos.resources.system import PdoSettings, ProkOS, RouterSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prokos.resources.loaded import Loaded, Located
    from prokos.resources.problems import Severity


def validate(loaded: Loaded) -> list[Problem]:
    """Check everything that was loaded: each file, each resource, and what they say of each other.

    Args:
        loaded: What `load_manifests` gave.

    Returns:
        All problems, those of loading included, sorted by file and line.
    """
    definitions = read_definitions(loaded)
    systems = loaded.of(ProkOS)
    catalogue = Catalogue(
        loaded.of(TaskExecutor),
        definitions,
        loaded.of(TaskRoute),
        systems[0].resource.spec.pdo if systems else PdoSettings(),
        systems[0].resource.spec.router if systems else RouterSettings(),
    )
    problems = [*loaded.problems]
    for definition in definitions:
        problems += definition.problems()
    for executor in catalogue.executors:
        problems += check_executor(executor)
    problems += _systems(systems, catalogue.names)
    problems += _same_executor_names(catalogue.executors)
    problems += _same_processes(definitions)
    problems += _listed_job_types(definitions)
    problems += _routes(catalogue)
    problems += contested_tasks(catalogue)
    problems += unclaimed_tasks(catalogue)
    problems += unknown_names(catalogue)
    return sorted(set(problems))


def _systems(systems: Sequence[Located[ProkOS]], executors: set[str]) -> Iterator[Problem]:
    for at in systems[1:]:
        message = f"a second ProkOS; the first is {systems[0].place()}"
        yield at.problem(("metadata", "name"), message, "keep one")
    for at in systems:
        spec = at.resource.spec
        fallback = spec.router.fallback
        if fallback is not None and fallback not in executors:
            hint = did_you_mean(fallback, executors)
            yield at.problem(("spec", "router", "fallback"), f"no executor {fallback!r}", hint)
        for index, job_type in enumerate(spec.pdo.include):
            if is_reserved_job_type(job_type):
                message = f"job type {job_type!r} is reserved for ProkOS"
                yield at.problem(("spec", "pdo", "include", index), message)


def _same_executor_names(executors: Sequence[Located[TaskExecutor]]) -> Iterator[Problem]:
    first: dict[str, Located[TaskExecutor]] = {}
    for at in executors:
        name = at.resource.metadata.name
        if (other := first.setdefault(name, at)) is not at:
            message = f"executor {name!r} is also in another namespace, {other.place()}"
            yield at.problem(("metadata", "name"), message, "rename one: their TDEs have the same name on the engine")


def _same_processes(definitions: Sequence[Definition]) -> Iterator[Problem]:
    first: dict[str, tuple[Definition, str]] = {}
    for definition in definitions:
        for process in definition.bpmn.processes:
            file, line = str(definition.source.file), definition.line(process.line)
            place = f"{file}:{line}" if line is not None else file
            other, elsewhere = first.setdefault(process.process_id, (definition, place))
            if other is not definition:
                message = f"process {process.process_id!r} is also defined in {elsewhere}"
                hint = "keep one; the engine would take them for versions of each other"
                yield Problem("error", file, process.process_id, message, line, hint)


def _listed_job_types(definitions: Sequence[Definition]) -> Iterator[Problem]:
    for definition in definitions:
        for index, job_type in enumerate(definition.at.resource.spec.job_types):
            if is_reserved_job_type(job_type):
                path = ("spec", "jobTypes", index)
                yield definition.at.problem(path, f"job type {job_type!r} is reserved for ProkOS")


def _routes(catalogue: Catalogue) -> Iterator[Problem]:
    elements = elements_by_process(catalogue.definitions)
    first: dict[tuple[str, int | None, str], Located[TaskRoute]] = {}
    for at in catalogue.routes:
        spec = at.resource.spec
        if spec.executor not in catalogue.names:
            hint = did_you_mean(spec.executor, catalogue.names)
            yield at.problem(("spec", "executor"), f"no executor {spec.executor!r}", hint)
        if (known := elements.get(spec.process)) is None:
            hint = did_you_mean(spec.process, elements)
            # With job types to include, ProkOS serves processes that others deployed.
            severity: Severity = "warning" if catalogue.pdo.include else "error"
            message = f"no process {spec.process!r} is in the manifests"
            yield at.problem(("spec", "process"), message, hint, severity=severity)
        elif spec.element not in known:
            message = f"process {spec.process!r} has no task {spec.element!r}"
            yield at.problem(("spec", "element"), message, did_you_mean(spec.element, known))
        other = first.setdefault((spec.process, spec.version, spec.element), at)
        if other is not at:
            message = f"a second route for {spec.element!r} of process {spec.process!r}; the first is {other.place()}"
            yield at.problem(("spec", "element"), message, "keep one")
