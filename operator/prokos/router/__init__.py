"""The LLM Task Router: which executor serves an element, by rule where there is one, by a model where there is none."""

from prokos.router.decision import Decision, Element, Refused, Undecided, decide, fallback, to_route
from prokos.router.planned import known_routes, newest_elements
from prokos.router.steps import ROUTE_MESSAGE, DecideStep, SettleSteps, element_variable

__all__ = [
    "ROUTE_MESSAGE",
    "DecideStep",
    "Decision",
    "Element",
    "Refused",
    "SettleSteps",
    "Undecided",
    "decide",
    "element_variable",
    "fallback",
    "known_routes",
    "newest_elements",
    "to_route",
]
