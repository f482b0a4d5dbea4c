"""What the API server checks, said beside the validators that mean the same.

The rules are CEL, the language of `x-kubernetes-validations`. Nothing here runs in ProkOS itself: `prokos.resources.
structural` reads it when the CRDs are made. Every validator of a resource model says either its rule (`cel`) or that
there is none (`beyond_cel`), so that no check is left out of the CRDs unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

Check = TypeVar("Check", bound=Callable[..., Any])

VALIDATIONS = "x-kubernetes-validations"

_RULES = "__cel_rules__"
_BEYOND = "__beyond_cel__"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the API server.

    Attributes:
        rule: CEL that must be true; `self` is the value the rule stands at, `oldSelf` what it was before a change.
        message: What is wrong and what to do; names the field.
        field: JSON path below `self` of the field that is to blame, such as `.file`; empty for `self`.
    """

    rule: str
    message: str
    field: str = ""

    def document(self) -> dict[str, str]:
        """The rule as an item of `x-kubernetes-validations`."""
        document = {"rule": self.rule, "message": self.message}
        return {**document, "fieldPath": self.field} if self.field else document


def one_of(*fields: str) -> str:
    """CEL that is true when exactly one of the fields is set."""
    return f"[{', '.join(f'has(self.{field})' for field in fields)}].exists_one(is_set, is_set)"


def cel(*rules: Rule) -> Callable[[Check], Check]:
    """Say what a validator checks as rules, of which each must be true. Goes below the decorator of pydantic.

    At a model validator `self` is the object with the names of its YAML; at a field validator it is the field.
    """

    def say(check: Check) -> Check:
        setattr(check, _RULES, rules)
        return check

    return say


def beyond_cel(*what: str) -> Callable[[Check], Check]:
    """Say what of a validator the API server cannot check: the operator refuses it with the condition `Accepted`.

    Args:
        what: What is refused, each in the words in which the documentation of the resources lists it.
    """

    def say(check: Check) -> Check:
        setattr(check, _BEYOND, what)
        return check

    return say


def rules_of(check: Callable[..., Any]) -> tuple[Rule, ...]:
    """The rules of a validator."""
    found: tuple[Rule, ...] = getattr(check, _RULES, ())
    return found


def beyond_cel_of(check: Callable[..., Any]) -> tuple[str, ...]:
    """What of a validator has no rule."""
    found: tuple[str, ...] = getattr(check, _BEYOND, ())
    return found


def model_rules(model: type[BaseModel]) -> list[Rule]:
    """All rules that stand at a model: those of its validators, then `cluster_rules`, which only a cluster has."""
    validators = model.__pydantic_decorators__.model_validators.values()
    found = [rule for validator in validators for rule in rules_of(validator.func)]
    return found + list(getattr(model, "cluster_rules", ()))


def field_rules(model: type[BaseModel], field: str) -> list[Rule]:
    """The rules of the validators of one field."""
    validators = model.__pydantic_decorators__.field_validators.values()
    return [rule for one in validators if field in one.info.fields for rule in rules_of(one.func)]


def in_cluster(*rules: Rule) -> dict[str, Any]:
    """`json_schema_extra` of a field with rules that only a cluster has."""
    return {VALIDATIONS: [rule.document() for rule in rules]}


def refused_in_cluster(message: str) -> dict[str, Any]:
    """`json_schema_extra` of a field that only the embedded home knows."""
    return in_cluster(Rule("false", message))


def immutable(message: str) -> dict[str, Any]:
    """`json_schema_extra` of a required field that never changes."""
    return in_cluster(Rule("self == oldSelf", message))


def keyed(*keys: str) -> dict[str, Any]:
    """`json_schema_extra` of a list whose items are told apart by these fields, so that several may keep it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


AS_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""`json_schema_extra` of a list without order, in which every value is once."""
