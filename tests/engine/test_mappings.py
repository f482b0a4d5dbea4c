"""`inputs` and `outputs` of executors, evaluated by the real engine."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from prokos.engine import EngineClient, RejectedError
from prokos.processes import tde_resources
from prokos.tde import FatalFailure
from prokos.tde.mappings import Mapper, Side
from unit.builders import executor

pytestmark = pytest.mark.engine


async def mapper(engine: EngineClient, side: Side, **targets: str) -> Mapper:
    """The mappings of an executor of its own, deployed; target to source."""
    mappings = [{"source": source, "target": target.replace("__", ".")} for target, source in targets.items()]
    one = executor(f"maps-{uuid.uuid4().hex[:8]}", **{side: mappings})
    await engine.deploy(tde_resources(one))
    return Mapper(one.metadata.name, side, getattr(one.spec, side))


async def computed(engine: EngineClient, variables: dict[str, Any], **targets: str) -> dict[str, Any]:
    return await (await mapper(engine, "inputs", **targets)).values(engine, variables)


async def test_feel_is_computed_and_targets_descend(engine: EngineClient) -> None:
    found = await computed(
        engine,
        {
            "amount": 5,
            "name": "x",
            "input": "theirs",
            "order": {"lines": [{"n": 1}, {"n": 2}]},
            "big": {"n": 2**64 - 1},
        },
        order__total="=amount * 2 // twice\n+ 1",
        order__name='="<" + name + "> & \\"é\\""',
        all="=input",
        numbers="=order.lines.n",
        both="={a: amount, b: [name, null]}",
        when='=date("2026-03-01") + duration("P1D")',
        digits="= big.n",
        nothing="=missing",
    )
    assert found == {
        "order": {"total": 11, "name": '<x> & "é"'},
        "all": "theirs",
        "numbers": [1, 2],
        "both": {"a": 5, "b": ["x", None]},
        "when": "2026-03-02",
        "digits": 2**64 - 1,
        "nothing": None,
    }


SENSELESS = [
    "nope.x", 'a + "x"', "1 / 0", 'date("x")', "nope(1)", "upper case(1)", "a.b.c", "[1..5]", "a[0]", 'number("x")',
    'a > "x"', "if a then 1 else 2", "for i in a return i", "some x in a satisfies x", "substring(1, 2)", "sort(a)",
    'a between "x" and 2', 'duration("x")', "not(a)", 'sum(["x"])', "function(x) x", "get value(a, 1)", "sqrt(-1)",
    "string join(a, 1)", 'date and time("x") + a', 'matches("a", "(")',
]  # fmt: skip
"""What FEEL makes null of, or another value that it finds sensible."""


async def test_what_feel_finds_no_sense_in_fails_nothing(engine: EngineClient) -> None:
    targets = {f"v{number}": f"={source}" for number, source in enumerate(SENSELESS)}
    assert (await computed(engine, {"a": 5}, **targets)).keys() == targets.keys()


@pytest.mark.parametrize(
    ("source", "said"),
    [("=modulo(a, 0)", "Division by zero"), ('=assert(a, a > 100, "too small")', "too small")],
)
async def test_what_cannot_be_computed_says_why(engine: EngineClient, source: str, said: str) -> None:
    with pytest.raises(FatalFailure, match=f"spec.inputs cannot be computed: .*{said}"):
        await computed(engine, {"a": 5}, fine="=a + 1", wrong=source)


@pytest.mark.parametrize("source", ["=1, 2", "=1], [2"])
async def test_an_expression_is_one(engine: EngineClient, source: str) -> None:
    with pytest.raises((FatalFailure, RejectedError)):
        await computed(engine, {}, wrong=source)


async def test_an_expression_that_is_none_is_refused_with_its_text(engine: EngineClient) -> None:
    with pytest.raises(RejectedError, match=r"failed to parse expression[^$]*amount \+"):
        await mapper(engine, "outputs", wrong="=amount +")


async def test_variables_of_two_megabytes_are_mapped_and_five_are_refused(engine: EngineClient) -> None:
    maps = await mapper(engine, "outputs", size="=string length(text)")
    assert await maps.values(engine, {"text": "x" * 2_000_000}) == {"size": 2_000_000}
    with pytest.raises(FatalFailure, match=r"spec\.outputs: the engine does not take what they are"):
        await maps.values(engine, {"text": "x" * 5_000_000})


async def test_a_decision_that_is_not_there_says_so(engine: EngineClient) -> None:
    one = executor("never-deployed", outputs=[{"source": "=a + 1", "target": "b"}])
    with pytest.raises(FatalFailure, match="no decision found"):
        await Mapper("never-deployed", "outputs", one.spec.outputs).values(engine, {"a": 1})
