from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prokos.engine import EngineUnavailableError, RejectedError
from prokos.pdo.dispatch import build_variables, start_tde
from prokos.tde import TaggedTask
from unit.builders import task
from unit.fake_engine import FakeEngine

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def built(raw: str) -> dict[str, object]:
    variables: dict[str, object] = json.loads(build_variables(task(7), raw))
    return variables


def tag_with(data: object) -> dict[str, object]:
    return {"prokosTask": {**task(7).to_variable(), "input": data}}


@pytest.mark.parametrize("raw", ["{}", "{ }", " {} ", "{\n}"])
def test_packs_a_task_without_variables(raw):
    assert built(raw) == tag_with({})


@given(st.dictionaries(st.text(), JSON))
def test_any_variables_are_packed_whole_into_the_tag(variables):
    found = built(json.dumps(variables))
    assert found == tag_with(variables)
    assert TaggedTask.from_variable(found["prokosTask"]) == task(7)


@pytest.mark.parametrize(
    "number",
    ["9007199254740993", "-9223372036854775808", "18446744073709551615", "0.10000000000000000000000001", "1E400"],
)
def test_numbers_pass_with_every_digit(number):
    assert f'"amount":{number}' in build_variables(task(7), f'{{"amount":{number}}}')


@pytest.mark.parametrize("raw", ['{"prokosTask":{"job_key":666},"amount":1}', '{"amount":1,"prokosTask":null}'])
def test_a_variable_of_the_process_cannot_pass_for_the_tag(raw):
    assert built(raw) == tag_with(json.loads(raw))


async def test_starts_the_tde_by_a_message_that_is_unique_per_task():
    engine = FakeEngine()
    await start_tde(engine, task(7), "payer", '{"amount":1}')
    expected = tag_with({"amount": 1})
    assert engine.commands == [("publish", "prokos.tde.payer", "7", expected, False)]


async def test_publishes_again_with_the_mark_to_verify_when_the_answer_was_lost():
    engine = FakeEngine()
    engine.hiccups["publish"] = [EngineUnavailableError("connection reset")]
    await start_tde(engine, task(7), "payer", "{}")
    expected = {"prokosTask": {**replace(task(7), verify=True).to_variable(), "input": {}}}
    assert engine.commands == [("publish", "prokos.tde.payer", "7", expected, True)]


async def test_a_refused_message_is_not_published_again():
    engine = FakeEngine()
    engine.refusals["publish"] = RejectedError("no")
    with pytest.raises(RejectedError):
        await start_tde(engine, task(7), "payer", "{}")
    assert engine.commands == []
