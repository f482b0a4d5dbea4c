"""`inputs` and `outputs` of an executor: FEEL that the engine evaluates, as decisions deployed with the TDE.

The worker asks for the values before it executes a task, and before it reports a result. So what cannot be computed is
a failure of the task, like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from prokos.engine import (
    AccessDeniedError,
    BackpressureError,
    EngineUnavailableError,
    EvaluationError,
    NotFoundError,
    RejectedError,
)
from prokos.engine.feel_numbers import BEYOND_FEEL, changed_number
from prokos.resources.names import mapping_decision
from prokos.tde.contract import FatalFailure, RetryableFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prokos.engine import EngineClient
    from prokos.resources.executor import FeelMapping

Side = Literal["inputs", "outputs"]

_COMPUTED = object()
"""In place of a value that only FEEL can tell."""

_PATH = re.compile(r"=\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*", re.ASCII)


def _look_up(source: str, variables: Mapping[str, Any]) -> Any:
    """The value that a source names (`=order`, `=order.id`), each digit as it came."""
    path = _PATH.fullmatch(source)
    value: Any = variables
    for name in path[1].split(".") if path else ():
        if not isinstance(value, Mapping) or name not in value:
            return _COMPUTED
        value = value[name]
    return value if path else _COMPUTED


class UnmappedError(Exception):
    """The engine does not answer; nothing is wrong with the task."""


class Mapper:
    """Evaluates one side of an executor's mappings.

    Args:
        executor: The executor's name.
        side: Which of its fields they are.
        mappings: Expressions and targets; without any, variables stay as they are.
    """

    def __init__(self, executor: str, side: Side, mappings: Sequence[FeelMapping]) -> None:
        self._side = side
        self._mappings = mappings
        self._sources = [mapping.source for mapping in mappings]
        self._decision = mapping_decision(executor, side, mappings)

    def __bool__(self) -> bool:
        return bool(self._mappings)

    async def values(self, client: EngineClient, variables: Mapping[str, Any]) -> dict[str, Any]:
        """What the mappings build of variables.

        Raises:
            FatalFailure: An expression cannot be computed, or would change a number; the message says which.
            RetryableFailure: The worker's user may not have decisions evaluated.
            UnmappedError: The engine cannot be asked now.
        """
        found = [_look_up(source, variables) for source in self._sources]
        left = [source for source, value in zip(self._sources, found, strict=True) if value is _COMPUTED]
        if left:
            computed = await self._compute(client, variables, left)
            found = [new if value is _COMPUTED else value for value, new in zip(found, computed, strict=True)]
        return self._build(found)

    async def _compute(self, client: EngineClient, variables: Mapping[str, Any], left: Sequence[str]) -> list[Any]:
        """The engine's values of all expressions, right for those that are left."""
        where = f"spec.{self._side}"
        # What no expression can name need not be sent.
        named = {name: value for name, value in variables.items() if any(name in source for source in left)}
        if path := changed_number(named, left):
            raise FatalFailure(f"{where}: the engine's FEEL would change the number {path}: {BEYOND_FEEL}")
        try:
            values = await client.evaluate_decision(self._decision, named)
        except (EngineUnavailableError, BackpressureError) as error:
            raise UnmappedError(f"{where}: the engine does not answer: {error}") from error
        except AccessDeniedError as error:
            message = (
                f"{where}: give the worker's user of the engine the right to evaluate the decisions tde-*: {error}"
            )
            raise RetryableFailure(message) from error
        except EvaluationError as error:
            raise FatalFailure(f"{where} cannot be computed: {' '.join(str(error).split())}") from error
        except (NotFoundError, RejectedError, ValueError) as error:
            raise FatalFailure(
                f"{where}: the engine does not take what they are to be computed from: {error}"
            ) from error
        if not isinstance(values, list) or len(values) != len(self._sources):
            raise FatalFailure(
                f"{where}: one of the expressions is not a single one: it has a comma or bracket too many"
            )
        return values

    def _build(self, values: Sequence[Any]) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for mapping, value in zip(self._mappings, values, strict=True):
            *path, name = mapping.target.split(".")
            place = built
            for step in path:
                inner = place.get(step)
                place[step] = place = inner if isinstance(inner, dict) else {}
            place[name] = value
        return built
