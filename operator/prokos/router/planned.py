"""Routes as far as they are known before any task comes: for status, for people, for the registration process. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prokos.router.decision import Decision, Element, decide, to_route

if TYPE_CHECKING:
    from prokos.registry import RegisteredProcess, Registry
    from prokos.resources import TaskRoute


def newest_elements(process: RegisteredProcess) -> list[Element]:
    """What is routed in the newest version of a process."""
    version = process.latest
    if version is None:
        return []
    return [
        Element(
            process=process.process_id,
            version=version.version,
            element=task.element_id,
            job_type=task.job_type or "",
            name=task.element_name,
            documentation=task.documentation,
            headers=tuple(sorted(task.headers.items())),
        )
        for task in version.tasks
    ]


def known_routes(registry: Registry) -> list[TaskRoute]:
    """Every route there is: those that are kept, and what headers and rules say of the newest version of each task."""
    routes = {route.metadata.name: route for route in registry.routes}
    for process in registry.processes.values():
        for element in newest_elements(process):
            outcome = decide(element, registry)
            if isinstance(outcome, Decision) and outcome.source in {"header", "rule"}:
                routes[element.route_name] = to_route(element, outcome)
    return sorted(routes.values(), key=lambda route: (route.spec.process, route.spec.element, route.metadata.name))
