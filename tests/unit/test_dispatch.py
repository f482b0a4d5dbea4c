from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prokos.engine import EngineUnavailableError, RejectedError
from prokos.pdo.dispatch import build_variables, start_tde
from prokos.resources import TaskExecutor
from prokos.tde import TaggedTask
from unit.builders import executor, task
from unit.fake_engine import FakeEngine

PACKING = executor("payer")
MAPPING_OUTPUT = executor("payer", outputs=[{"source": "=paid", "target": "sum"}])
MAPPING = executor("payer", inputs=[{"source": "=amount", "target": "sum"}])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def built(with_executor: TaskExecutor, raw: str) -> dict[str, object]:
    variables: dict[str, object] = json.loads(build_variables(task(7), with_executor, raw))
    return variables


def tag_with(data: object) -> dict[str, object]:
    return {"prokosTask": {**task(7).to_variable(), "input": data}}


def test_packs_the_tasks_variables_into_the_tag():
    assert built(PACKING, '{"amount":1}') == tag_with({"amount": 1})
    assert TaggedTask.from_variable(built(PACKING, '{"amount":1}')["prokosTask"]) == task(7)


def test_packs_them_into_a_variable_of_their_own_for_an_executor_that_maps_its_output():
    assert built(MAPPING_OUTPUT, '{"amount":1}') == {"prokosTask": task(7).to_variable(), "input": {"amount": 1}}


def test_spreads_them_for_an_executor_that_maps_its_input():
    assert built(MAPPING, '{"amount":1}') == {"prokosTask": task(7).to_variable(), "amount": 1}


@pytest.mark.parametrize("raw", ["{}", "{ }", " {} ", "{\n}"])
def test_spreads_a_task_without_variables(raw):
    assert built(MAPPING, raw) == {"prokosTask": task(7).to_variable()}


VARIABLES = st.dictionaries(st.text().filter(lambda name: name != "prokosTask"), JSON)


@given(VARIABLES)
def test_any_variables_are_packed_whole(variables):
    assert built(PACKING, json.dumps(variables)) == tag_with(variables)


@given(VARIABLES)
def test_any_variables_are_spread_whole(variables):
    assert built(MAPPING, json.dumps(variables)) == {"prokosTask": task(7).to_variable(), **variables}


@pytest.mark.parametrize("with_executor", [PACKING, MAPPING])
@pytest.mark.parametrize(
    "number",
    ["9007199254740993", "-9223372036854775808", "18446744073709551615", "0.10000000000000000000000001", "1E400"],
)
def test_numbers_pass_with_every_digit(with_executor, number):
    assert f'"amount":{number}' in build_variables(task(7), with_executor, f'{{"amount":{number}}}')


@pytest.mark.parametrize("raw", ['{"prokosTask":{"job_key":666},"amount":1}', '{"amount":1,"prokosTask":null}'])
def test_a_variable_of_the_process_cannot_pass_for_the_tag(raw):
    text = build_variables(task(7), MAPPING, raw)
    assert text.count('"prokosTask"') == 1
    assert json.loads(text) == {"prokosTask": task(7).to_variable(), "amount": 1}


async def test_starts_the_tde_by_a_message_that_is_unique_per_task():
    engine = FakeEngine()
    await start_tde(engine, task(7), PACKING, '{"amount":1}')
    expected = tag_with({"amount": 1})
    assert engine.commands == [("publish", "prokos.tde.payer", "7", expected, False)]


async def test_publishes_again_with_the_mark_to_verify_when_the_answer_was_lost():
    engine = FakeEngine()
    engine.hiccups["publish"] = [EngineUnavailableError("connection reset")]
    await start_tde(engine, task(7), PACKING, "{}")
    expected = {"prokosTask": {**replace(task(7), verify=True).to_variable(), "input": {}}}
    assert engine.commands == [("publish", "prokos.tde.payer", "7", expected, True)]


async def test_a_refused_message_is_not_published_again():
    engine = FakeEngine()
    engine.refusals["publish"] = RejectedError("no")
    with pytest.raises(RejectedError):
        await start_tde(engine, task(7), PACKING, "{}")
    assert engine.commands == []
