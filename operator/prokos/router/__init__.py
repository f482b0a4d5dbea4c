"""The LLM Task Router: which executor serves an element, by rule where there is one, by a model where there is none."""

from prokos.router.decision import Decision, Element, Refused, Undecided, decide, fallback, to_route
from prokos.router.steps import ROUTE_MESSAGE, RoutingSteps, element_variable

__all__ = [
    "ROUTE_MESSAGE",
    "Decision",
    "Element",
    "Refused",
    "RoutingSteps",
    "Undecided",
    "decide",
    "element_variable",
    "fallback",
    "to_route",
]
