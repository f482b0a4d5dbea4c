"""What is told when a process or a route goes that instances may still depend on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prokos.router import Decision, Undecided, decide, newest_elements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prokos.registry import RegisteredProcess, Registry
    from prokos.resources import TaskRoute
    from prokos.router import Element


def notices(before: Registry, now: Registry, running: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Reason and message of each event that the difference between two registries is worth.

    Args:
        before: What was registered when this was asked last.
        now: What is registered.
        running: Tasks in flight by process id. How many instances there are, an engine without a secondary storage
            does not tell.
    """
    for process_id, process in now.processes.items():
        known = before.processes.get(process_id)
        if process.retired and not (known and known.retired):
            yield "ProcessRetired", _retired(process, running.get(process_id, 0))
    kept = {route.metadata.name: route.spec for route in now.routes}
    for route in before.routes:
        if kept.get(route.metadata.name) != route.spec:
            yield from _rerouted(route, before, now, running)


def _retired(process: RegisteredProcess, tasks: int) -> str:
    versions = ", ".join(str(version) for version in sorted(process.versions))
    return (
        f"process {process.process_id} is no longer wanted. Its instances of version {versions} go on, and are served "
        f"to their end ({_tasks(tasks)} now); nothing starts new ones, unless something else calls it. To end them, "
        "cancel them"
    )


def _rerouted(
    route: TaskRoute, before: Registry, now: Registry, running: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    process = now.processes.get(route.spec.process)
    for element in newest_elements(process) if process else []:
        if element.element != route.spec.element:
            continue
        was, becomes = _outcome(element, before), _outcome(element, now)
        if was != becomes:
            message = (
                f"TaskRoute {route.metadata.name} is gone or another: {element} went to {was}, now it is {becomes}. "
                "Tasks that are executed end where they are; those whose TDE waits for a worker are dispatched anew "
                f"within a lease ({_tasks(running.get(element.process, 0))} of the process now)"
            )
            yield "RouteChanged", message


def _outcome(element: Element, registry: Registry) -> str:
    outcome = decide(element, registry)
    if isinstance(outcome, Decision):
        return f"executor {outcome.executor} ({outcome.source})"
    if isinstance(outcome, Undecided):
        return "the router's model, which is asked when the next task comes"
    return f"an incident: {outcome.message}"


def _tasks(count: int) -> str:
    return f"{count or 'no'} task{'s' if count > 1 else ''} in flight"
