"""Routing by rule: pure, and the same wherever a route is shown, planned or taken.

Explicit header > `accepts` rules > stored TaskRoute > (LLM) > fallback. What no rule decides is `Undecided`; what
cannot be decided without guessing is `Refused`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prokos.resources import Metadata, TaskRoute, TaskRouteSpec
from prokos.resources.matching import EXECUTOR_HEADER, claimants

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prokos.registry import Registry

Source = Literal["header", "rule", "llm", "human", "fallback"]


@dataclass(frozen=True, slots=True)
class Element:
    """What is routed: an element of a process version. Every task of it takes the same route."""

    process: str
    version: int
    element: str
    job_type: str
    name: str = ""
    documentation: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def route_name(self) -> str:
        """Name of the TaskRoute of this element; unique, and a valid resource name."""
        slug = re.sub(r"[^a-z0-9]+", "-", f"{self.process}-{self.element}".lower()).strip("-")[:26].strip("-")
        digest = hashlib.sha256(f"{self.process}\0{self.version}\0{self.element}".encode()).hexdigest()[:8]
        return f"{slug or 'route'}-v{self.version}-{digest}"

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        return f"{self.element}{name} of process {self.process} version {self.version}"


@dataclass(frozen=True, slots=True)
class Decision:
    """The route of an element, and why."""

    executor: str
    source: Source
    reason: str
    confidence: float | None = None
    transient: bool = False
    """Made because the model gave no answer: good for now, not for keeping."""


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no route, and no guess is made. The message says what to do."""

    message: str
    transient: bool = False
    """The model gave no answer: the task may find a route later."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """No rule says anything: it is for the LLM to decide."""


def decide(element: Element, registry: Registry) -> Decision | Refused | Undecided:
    """Route an element by everything that needs no model."""
    headers = dict(element.headers)
    return (
        _by_header(headers, registry)
        or _by_rules(element, headers, registry)
        or _by_stored_route(element, registry)
        or (Undecided() if registry.system.router.mode == "llm" else fallback(element, registry))
    )


def _by_header(headers: Mapping[str, str], registry: Registry) -> Decision | Refused | None:
    name = headers.get(EXECUTOR_HEADER)
    if name is None:
        return None
    if name not in registry.executors:
        return Refused(
            f"task header {EXECUTOR_HEADER} names the executor {name!r}, which does not exist; "
            f"there are: {_listed(registry.executors)}. Add it, or correct the header"
        )
    return Decision(name, "header", f"task header {EXECUTOR_HEADER}")


def _by_rules(element: Element, headers: Mapping[str, str], registry: Registry) -> Decision | Refused | None:
    found = claimants(
        registry.executors.values(),
        job_type=element.job_type,
        process=element.process,
        element=element.element,
        headers=headers,
    )
    names = sorted({executor.metadata.name for executor, _ in found})
    if len(names) > 1:
        return Refused(
            f"the executors {_listed(names)} all accept this task; narrow their spec.accepts, or set the task "
            f"header {EXECUTOR_HEADER}"
        )
    if not found:
        return None
    executor, index = found[0]
    rule = executor.spec.accepts[index].model_dump(by_alias=True, exclude_defaults=True)
    terms = ", ".join(f"{key}={value}" for key, value in rule.items())
    return Decision(executor.metadata.name, "rule", f"spec.accepts[{index}]: {terms}")


def _by_stored_route(element: Element, registry: Registry) -> Decision | Refused | None:
    stored = [
        route
        for route in registry.routes
        if route.spec.process == element.process
        and route.spec.element == element.element
        and route.spec.version in {None, element.version}
        and route.spec.source != "rule"
        # What the router decided is decided anew when its executor is gone; what a person decided is not.
        and (route.spec.source == "human" or route.spec.executor in registry.executors)
    ]
    if not stored:
        return None
    # A person's word counts more than the model's, and a route for this very version more than one for all.
    route = max(stored, key=lambda route: (route.spec.source == "human", route.spec.version is not None))
    spec = route.spec
    if spec.executor not in registry.executors:
        return Refused(
            f"TaskRoute {route.metadata.name} names the executor {spec.executor!r}, which does not exist; "
            f"there are: {_listed(registry.executors)}"
        )
    return Decision(spec.executor, spec.source, spec.reason or f"TaskRoute {route.metadata.name}", spec.confidence)


def fallback(element: Element, registry: Registry, why: str = "", *, transient: bool = False) -> Decision | Refused:
    """The last resort: the fallback executor, or a refusal that says how to make a route."""
    name = registry.system.router.fallback
    why = why or "no rule and no route claims this task"
    if name in registry.executors and name is not None:
        return Decision(name, "fallback", f"{why}; spec.router.fallback is {name}", transient=transient)
    missing = f"; the fallback executor {name!r} does not exist" if name else ""
    return Refused(
        f"no executor for {element}: {why}{missing}. Give an executor the rule spec.accepts: "
        f"[{{jobType: {element.job_type}}}], or set the task header {EXECUTOR_HEADER}, or write a TaskRoute; "
        "then retry the task",
        transient,
    )


def to_route(element: Element, decision: Decision) -> TaskRoute:
    """The document that keeps a decision."""
    source = "rule" if decision.source == "header" else decision.source
    return TaskRoute(
        metadata=Metadata(name=element.route_name),
        spec=TaskRouteSpec(
            process=element.process,
            version=element.version,
            element=element.element,
            executor=decision.executor,
            source=source,
            confidence=decision.confidence,
            reason=decision.reason,
        ),
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
