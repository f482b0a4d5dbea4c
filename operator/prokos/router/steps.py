"""The steps of the routing process: one instance decides one element of a process version, once."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from prokos.engine import AccessDeniedError
from prokos.engine.connection import read_secret
from prokos.router.decision import Decision, Element, Refused, decide, fallback, to_route
from prokos.router.llm import NONE, LlmUnavailableError, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prokos.engine import Job
    from prokos.engine.steps import Step
    from prokos.registry import Registry, Store

ROUTE_MESSAGE = "prokos.route.requested"
"""Message that starts the routing process; its correlation key is the element's route name."""

log = structlog.get_logger(__name__)


class DecideStep:
    """The step that decides. With a model it is worked by the router's own process, which alone has the model's key."""

    def __init__(self, registry: Callable[[], Registry]) -> None:
        self._registry = registry

    def handlers(self) -> Mapping[str, Step]:
        """Job type to handler."""
        return {"prokos.route.decide": self.decide}

    async def decide(self, job: Job) -> dict[str, Any]:
        """Decide by rule if one says something by now, else by the model, else by the fallback."""
        element = read_element(job.variables["element"])
        registry = self._registry()
        outcome = decide(element, registry)
        if not isinstance(outcome, Decision | Refused):
            outcome = await self._ask(element, registry)
        log.info("element routed", element=str(element), outcome=str(outcome))
        if isinstance(outcome, Refused):
            return {"decided": False, "refusal": asdict(outcome)}
        return {"decided": True, "decision": asdict(outcome)}

    async def _ask(self, element: Element, registry: Registry) -> Decision | Refused:
        settings = registry.system.router
        try:
            api_key = read_secret(settings.api_key) if settings.api_key else None
            answer = await ask(element, registry.executors, settings, api_key)
        except (LlmUnavailableError, AccessDeniedError) as error:
            return fallback(element, registry, f"the router's model gave no answer ({error})", transient=True)
        if answer.executor == NONE:
            return fallback(element, registry, f"the router's model finds no executor fit: {answer.reason[:300]}")
        if answer.confidence < settings.min_confidence:
            return fallback(
                element,
                registry,
                f"the router's model proposes {answer.executor} with confidence {answer.confidence:g}, below "
                f"spec.router.minConfidence ({settings.min_confidence:g}): {answer.reason[:300]}",
            )
        return Decision(answer.executor, "llm", answer.reason[:500], answer.confidence)


class SettleSteps:
    """The steps that follow a decision. The PDO works them, where the tasks wait."""

    def __init__(self, store: Store, settled: Callable[[Element, Decision | Refused], None]) -> None:
        self._store = store
        self._settled = settled
        """Told of every outcome, so that waiting tasks go on at once."""

    def handlers(self) -> Mapping[str, Step]:
        """Job type to handler."""
        return {"prokos.route.record": self.record, "prokos.route.refuse": self.refuse}

    async def record(self, job: Job) -> None:
        """Keep the decision as a TaskRoute and let the waiting tasks go on."""
        variables = job.variables
        element, decision = read_element(variables["element"]), Decision(**variables["decision"])
        if decision.source in {"llm", "fallback"} and not decision.transient:
            await self._store.put_route(to_route(element, decision))
        self._settled(element, decision)

    async def refuse(self, job: Job) -> None:
        """Tell the waiting tasks that there is no route."""
        variables = job.variables
        self._settled(read_element(variables["element"]), Refused(**variables["refusal"]))


def element_variable(element: Element) -> dict[str, Any]:
    """An element as a process variable."""
    return asdict(element)


def read_element(value: Mapping[str, Any]) -> Element:
    """Read what `element_variable` wrote."""
    headers = tuple((name, text) for name, text in value["headers"])
    return Element(**{**value, "headers": headers})
