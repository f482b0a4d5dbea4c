"""TDEs that a process calls itself, and TDEs of executors with `inputs` and `outputs` mappings."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from helpers import wait_until
from prokos.engine import (
    AccessDeniedError,
    BackpressureError,
    EngineUnavailableError,
    EvaluationError,
    NotFoundError,
    PayloadTooLargeError,
    RejectedError,
)
from prokos.tde import BusinessError, Context, FatalFailure, RetryableFailure
from unit.tde_bench import AGAIN, IN_OPERATE, PARENT, TDE, Bench, called, dispatched

OUTPUTS = [{"source": "=paid", "target": "total"}]
INPUTS = [{"source": "=amount", "target": "sum"}]
COMPUTED = [{"source": "=paid * 2", "target": "double"}]


async def succeed(data: dict[str, Any], _: Context) -> dict[str, Any]:
    return {"paid": 42}


def failing(error: Exception):
    async def work(_: dict[str, Any], __: Context) -> None:
        raise error

    return work


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
    await bench.does(called({"amount": 1, "input": {"sum": 2}}))
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
    assert await bench.does(called()) == [("complete", TDE, {"total": 42})]


async def test_a_called_tde_whose_mapping_fails_becomes_an_incident():
    bench = Bench(succeed, outputs=COMPUTED)
    bench.engine.refusals["evaluate"] = EvaluationError("division by zero")
    ((name, key, message, retries, _),) = await bench.does(called())
    assert (name, key, retries) == ("fail", TDE, 0)
    assert message == f"spec.outputs cannot be computed: division by zero{IN_OPERATE}"


async def test_a_called_tde_that_is_cancelled_is_no_error():
    bench = Bench(succeed)
    bench.engine.gone.add(TDE)
    assert await bench.does(called(), until=lambda: bench.executor.inputs) == []


# --- mapped ---------------------------------------------------------------------------------------------------


async def test_a_mapped_input_is_what_the_executor_gets():
    bench = Bench(succeed, inputs=INPUTS)
    await bench.does(dispatched({"amount": 1, "other": 2}))
    assert bench.executor.inputs == [{"sum": 1}]
    assert bench.engine.decisions == [], "what a path names needs no engine"


async def test_what_feel_computes_is_asked_of_the_engine_with_what_it_names():
    bench = Bench(succeed, inputs=[*INPUTS, {"source": "=amount * rate", "target": "order.net"}])
    bench.engine.values = [None, 3]
    await bench.does(dispatched({"amount": 1, "rate": 2, "other": 3}))
    assert bench.executor.inputs == [{"sum": 1, "order": {"net": 3}}]
    ((decision, variables),) = bench.engine.decisions
    assert decision.startswith("tde-payer-inputs-")
    assert variables == {"amount": 1, "rate": 2}


async def test_a_mapped_output_is_what_the_task_gets():
    bench = Bench(succeed, outputs=OUTPUTS)
    assert await bench.does(dispatched()) == [("complete", PARENT, {"total": 42}), ("complete", TDE, {})]
    assert bench.hints.sent == [(PARENT, "completed")]


async def test_outputs_see_the_result_over_the_tasks_variables():
    sources = ["=paid", "=rate", "=input.paid", "=paid + rate + input.rate", "=nothing"]
    mappings = [{"source": source, "target": f"v{number}"} for number, source in enumerate(sources)]
    bench = Bench(succeed, outputs=mappings, inputs=INPUTS)
    bench.engine.values = [0, 0, 0, 48, None]
    (complete, _) = await bench.does(dispatched({"paid": 1, "rate": 3, "amount": 5}))
    assert complete == ("complete", PARENT, {"v0": 42, "v1": 3, "v2": 1, "v3": 48, "v4": None})
    given = {"paid": 1, "rate": 3, "amount": 5}
    assert [variables for _, variables in bench.engine.decisions] == [{"paid": 42, "rate": 3, "input": given}]


@pytest.mark.parametrize(
    ("targets", "values", "built"),
    [
        (["a.b", "a.c", "d"], [1, 2, 3], {"a": {"b": 1, "c": 2}, "d": 3}),
        (["a", "a.b"], [1, 2], {"a": {"b": 2}}),
        (["a", "a.b"], [{"c": 1}, 2], {"a": {"c": 1, "b": 2}}),
        (["a.b", "a"], [1, 2], {"a": 2}),
    ],
)
async def test_targets_descend(targets, values, built):
    bench = Bench(succeed, outputs=[{"source": "=x + 1", "target": target} for target in targets])
    bench.engine.values = values
    assert (await bench.does(dispatched()))[0] == ("complete", PARENT, built)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EvaluationError("failed to evaluate expression '[\nmodulo(a, b)\n]'"), "cannot be computed: failed to eval"),
        (
            RejectedError("no decision found for id"),
            "the engine does not take what they are to be computed from: no de",
        ),
        (NotFoundError("no decision found for id"), "does not take what they are to be computed from: no decision"),
        (PayloadTooLargeError("EXCEEDED_BATCH_RECORD_SIZE"), "EXCEEDED_BATCH_RECORD_SIZE"),
    ],
)
async def test_a_mapping_that_cannot_be_computed_is_an_incident_of_the_task(side, error, said):
    bench = Bench(succeed, **{side: COMPUTED})
    bench.engine.refusals["evaluate"] = error
    tde, (_, key, message, retries, _) = await bench.does(dispatched({"paid": 1}))
    assert (key, retries) == (PARENT, 0)
    assert message.startswith(f"spec.{side}")
    assert said in message
    assert "\n" not in message
    assert tde == ("complete", TDE, {"outcome": {"kind": "failed", "message": message.removesuffix(AGAIN)}})
    assert bench.executor.inputs == ([] if side == "inputs" else [{"paid": 1}])
    assert bench.hints.sent == [(PARENT, "incident")]


async def test_an_expression_that_is_two_is_an_incident():
    bench = Bench(succeed, outputs=[{"source": "=1, 2", "target": "a"}])
    bench.engine.values = [1, 2]
    _, (_, _, message, retries, _) = await bench.does(dispatched())
    assert "not a single one" in message
    assert retries == 0


async def test_a_worker_that_may_not_ask_says_what_it_needs():
    bench = Bench(succeed, inputs=COMPUTED)
    bench.engine.refusals["evaluate"] = AccessDeniedError("PERMISSION_DENIED")
    _, (_, key, message, retries, _) = await bench.does(dispatched({"paid": 1}))
    assert (key, retries) == (PARENT, 2)
    assert "right to evaluate the decisions tde-*: PERMISSION_DENIED" in message


@pytest.mark.parametrize("error", [EngineUnavailableError("no leader"), BackpressureError("busy")])
async def test_an_engine_that_does_not_answer_costs_no_attempt(error):
    bench = Bench(succeed, outputs=COMPUTED)
    bench.engine.refusals["evaluate"] = error
    with capture_logs() as logs:
        bench.engine.offer(dispatched())
        async with bench.running():
            await wait_until(lambda: [line for line in logs if "its lease brings it back" in line["event"]])
    assert bench.engine.reports == []


@pytest.mark.parametrize("error", [EngineUnavailableError("another engine"), RejectedError("no such instance")])
async def test_an_engine_that_an_executor_asks_itself_fails_its_task(error):
    _, (_, key, message, retries, _) = await Bench(failing(error), outputs=COMPUTED).does(dispatched())
    assert (key, retries) == (PARENT, 2)
    assert str(error) in message


async def test_a_failure_has_nothing_to_map():
    bench = Bench(failing(FatalFailure("broken")), outputs=COMPUTED)
    outcome = {"kind": "failed", "message": "broken"}
    assert await bench.does(dispatched()) == [
        ("complete", TDE, {"outcome": outcome}),
        ("fail", PARENT, f"broken{AGAIN}", 0, 0),
    ]
    assert bench.engine.decisions == []


async def test_a_number_that_feel_would_change_is_an_incident():
    async def large(_: dict[str, Any], __: Context) -> dict[str, Any]:
        return {"paid": [1, 1e300], "other": 2**64}

    bench = Bench(large, outputs=COMPUTED)
    _, (_, key, message, retries, _) = await bench.does(dispatched())
    assert (key, retries) == (PARENT, 0)
    assert "spec.outputs: the engine's FEEL would change the number paid[1]:" in message
    assert bench.engine.decisions == []


async def test_a_number_that_is_passed_on_keeps_every_digit():
    async def large(_: dict[str, Any], __: Context) -> dict[str, Any]:
        return {"paid": {"net": 2**64 - 1, "gross": [1e300]}}

    paths = [{"source": "=paid", "target": "a"}, {"source": "= paid.net ", "target": "b"}]
    (complete, _) = await Bench(large, outputs=paths).does(dispatched())
    assert complete[2] == {"a": {"net": 2**64 - 1, "gross": [1e300]}, "b": 2**64 - 1}


async def test_a_mapped_output_that_is_too_large_is_an_incident():
    bench = Bench(succeed, outputs=OUTPUTS)
    bench.engine.refusals["complete", PARENT] = PayloadTooLargeError("too large")
    (name, key, _, retries, _), _ = await bench.does(dispatched())
    assert (name, key, retries) == ("fail", PARENT, 0)
    assert bench.hints.sent == [(PARENT, "incident")]
