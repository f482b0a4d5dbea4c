"""TDEs that a process calls itself, and TDEs of executors with `inputs` and `outputs` mappings."""

from __future__ import annotations

from typing import Any

import pytest

from prokos.engine import PayloadTooLargeError
from prokos.tde import BusinessError, Context, FatalFailure, RetryableFailure
from unit.builders import task
from unit.tde_bench import AGAIN, IN_OPERATE, PARENT, TDE, Bench, called, dispatched, output_job

OUTPUTS = [{"source": "=paid", "target": "total"}]
INPUTS = [{"source": "=amount", "target": "sum"}]


async def succeed(data: dict[str, Any], _: Context) -> dict[str, Any]:
    return {"paid": 42}


def failing(error: Exception):
    async def work(_: dict[str, Any], __: Context) -> None:
        raise error

    return work


def mapped(kind: str, output: dict[str, Any] | None = None) -> dict[str, Any]:
    """Variables of an Output job."""
    return {"prokosTask": task(PARENT).to_variable(), "outcome": {"kind": kind, "message": ""}, "output": output}


# --- called directly ------------------------------------------------------------------------------------------


async def test_a_called_tde_gives_its_result_to_its_own_job():
    bench = Bench(succeed)
    assert await bench.does(called({"amount": 1})) == [("complete", TDE, {"paid": 42})]
    assert bench.hints.sent == []


async def test_a_called_tde_takes_all_variables_of_its_caller():
    bench = Bench(succeed)
    await bench.does(called({"amount": 1, "input": 2, "prokosTask": None}))
    assert bench.executor.inputs == [{"amount": 1, "input": 2}]


async def test_a_called_tde_with_inputs_takes_what_they_map():
    bench = Bench(succeed, inputs=INPUTS)
    await bench.does(called({"amount": 1, "input": {"sum": 1}}))
    assert bench.executor.inputs == [{"sum": 1}]


async def test_a_called_tde_throws_its_business_error_to_its_caller():
    commands = await Bench(failing(BusinessError("DECLINED", "no"))).does(called())
    assert commands == [("error", TDE, "DECLINED", "no", {})]


async def test_a_called_tde_has_the_attempts_of_its_own_job():
    for retries, wait in ((3, 3.0), (2, 6.0)):
        bench = Bench(failing(RetryableFailure("down")), backoff={"initial": "3s", "jitter": 0})
        assert await bench.does(called(retries=retries)) == [("fail", TDE, "down", retries - 1, wait)]


async def test_a_called_tde_with_outputs_gives_its_caller_what_they_map():
    bench = Bench(succeed, outputs=OUTPUTS)
    assert await bench.does(output_job({"paid": 42, "output": {"total": 42}})) == [("complete", TDE + 1, {"total": 42})]


async def test_a_called_tde_whose_mapped_output_is_too_large_becomes_an_incident():
    bench = Bench(succeed, outputs=OUTPUTS)
    bench.engine.refusals["complete", TDE + 1] = PayloadTooLargeError("too large")
    ((name, key, message, retries, _),) = await bench.does(output_job({"output": {"total": 42}}))
    assert (name, key, retries) == ("fail", TDE + 1, 0)
    assert "too large" in message
    assert message.endswith(IN_OPERATE)


async def test_a_called_tde_that_is_cancelled_is_no_error():
    bench = Bench(succeed)
    bench.engine.gone.add(TDE)
    assert await bench.does(called(), until=lambda: bench.executor.inputs) == []


# --- mapped ---------------------------------------------------------------------------------------------------


async def test_a_mapped_input_is_what_the_executor_gets():
    bench = Bench(succeed, inputs=INPUTS)
    await bench.does(dispatched({"sum": 1}))
    assert bench.executor.inputs == [{"sum": 1}]


async def test_a_result_that_is_to_be_mapped_goes_to_the_tde_first():
    bench = Bench(succeed, outputs=OUTPUTS)
    outcome = {"kind": "completed", "message": ""}
    assert await bench.does(dispatched()) == [("complete", TDE, {"paid": 42, "outcome": outcome})]
    assert bench.hints.sent == [], "the task has not ended yet"


async def test_what_was_mapped_completes_the_task():
    bench = Bench(succeed, outputs=OUTPUTS)
    commands = await bench.does(output_job(mapped("completed", {"total": 42})))
    assert commands == [("complete", PARENT, {"total": 42}), ("complete", TDE + 1, {})]
    assert bench.hints.sent == [(PARENT, "completed")]


async def test_a_mapping_of_nothing_completes_the_task_with_nothing():
    bench = Bench(succeed, outputs=OUTPUTS)
    assert (await bench.does(output_job(mapped("completed"))))[0] == ("complete", PARENT, {})


async def test_a_failure_is_reported_at_once_although_there_are_outputs():
    bench = Bench(failing(FatalFailure("broken")), outputs=OUTPUTS)
    outcome = {"kind": "failed", "message": "broken"}
    assert await bench.does(dispatched()) == [
        ("complete", TDE, {"outcome": outcome}),
        ("fail", PARENT, f"broken{AGAIN}", 0, 0),
    ]


async def test_a_number_that_the_mapping_would_change_is_an_incident_and_is_not_mapped():
    async def large(_: dict[str, Any], __: Context) -> dict[str, Any]:
        return {"paid": 1e300, "other": 2**64}

    tde, (_, key, message, retries, _) = await Bench(large, outputs=OUTPUTS).does(dispatched())
    assert tde[0] == "complete"
    assert "paid" not in tde[2]
    assert (key, retries) == (PARENT, 0)
    assert "FEEL would change the output's number paid:" in message


async def test_a_number_that_no_mapping_names_is_not_looked_at():
    async def large(_: dict[str, Any], __: Context) -> dict[str, Any]:
        return {"other": 1e300}

    ((_, _, variables),) = await Bench(large, outputs=OUTPUTS).does(dispatched())
    assert variables["other"] == 1e300


@pytest.mark.parametrize("kind", ["failed", "error"])
async def test_the_output_of_an_attempt_that_has_none_is_not_reported(kind):
    bench = Bench(succeed, outputs=OUTPUTS)
    assert await bench.does(output_job(mapped(kind))) == [("complete", TDE + 1, {})]


async def test_a_result_that_is_too_large_to_be_mapped_is_an_incident():
    bench = Bench(succeed, outputs=OUTPUTS)
    bench.engine.hiccups["complete"] = [PayloadTooLargeError("EXCEEDED_BATCH_RECORD_SIZE")]
    tde, (_, key, message, retries, _) = await bench.does(dispatched())
    assert (key, retries) == (PARENT, 0)
    assert "EXCEEDED_BATCH_RECORD_SIZE" in message
    assert tde == ("complete", TDE, {"outcome": {"kind": "failed", "message": message.removesuffix(AGAIN)}})
    assert bench.hints.sent == [(PARENT, "incident")]


async def test_a_mapped_output_that_is_too_large_is_an_incident():
    bench = Bench(succeed, outputs=OUTPUTS)
    bench.engine.refusals["complete", PARENT] = PayloadTooLargeError("too large")
    (name, key, _, retries, _), _ = await bench.does(output_job(mapped("completed", {"total": 42})))
    assert (name, key, retries) == ("fail", PARENT, 0)
    assert bench.hints.sent == [(PARENT, "incident")]


@pytest.mark.parametrize("name", ["prokosTask", "outcome"])
async def test_a_result_that_is_to_be_mapped_must_not_hide_the_tdes_own_variables(name):
    async def work(_: dict[str, Any], __: Context) -> dict[str, Any]:
        return {name: 1}

    _, (_, _, message, retries, _) = await Bench(work, outputs=OUTPUTS).does(dispatched())
    assert f"the output has a variable {name!r}" in message
    assert retries == 0


async def test_a_task_that_is_gone_when_its_output_is_reported_only_ends_the_tde():
    bench = Bench(succeed, outputs=OUTPUTS)
    bench.engine.gone.add(PARENT)
    assert await bench.does(output_job(mapped("completed", {"total": 42}))) == [("complete", TDE + 1, {})]
