"""A dispatched task: which reports follow from what its executor does, and in which order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from helpers import wait_until
from prokos.engine import NotFoundError, PayloadTooLargeError, RejectedError, WrongStateError
from prokos.tde import BusinessError, Context, FatalFailure, RetryableFailure, worker
from prokos.tde.lease import TDE_LEASE, VERIFY_AFTER_MS
from prokos.tde.next_attempt import wait_before
from prokos.tde.report import ASKS
from unit.builders import LEASE_MS, task
from unit.tde_bench import AGAIN, PARENT, TDE, TDE_INSTANCE, Bench, called, dispatched, renewed_often

__all__ = ["renewed_often"]


async def succeed(data: dict[str, Any], _: Context) -> dict[str, Any]:
    return {"paid": data.get("amount")}


async def hang(_: dict[str, Any], __: Context) -> None:
    await asyncio.Event().wait()


def failing(error: BaseException):
    async def work(_: dict[str, Any], __: Context) -> None:
        raise error

    return work


def returning(value: Any):
    async def work(_: dict[str, Any], __: Context) -> Any:
        return value

    return work


ENDED = ("complete", TDE, {})
"""The end of a TDE with a result that its task has got."""


def ended(kind: str, message: str = "") -> tuple[Any, ...]:
    return ("complete", TDE, {"outcome": {"kind": kind, "message": message}})


async def failure(bench: Bench, **changes: Any) -> tuple[str, int, float]:
    """Message, attempts left and back-off that the task is failed with, after its TDE has ended."""
    commands = await bench.does(dispatched(**changes))
    tde, (name, key, message, retries, backoff) = commands
    assert (name, key) == ("fail", PARENT)
    assert message.endswith(AGAIN) == (retries == 0)
    message = message.removesuffix(AGAIN)
    assert tde == ended("failed", message[:500])
    return message, retries, backoff


# --- outcomes -------------------------------------------------------------------------------------------------


async def test_a_result_completes_the_task_and_then_its_tde():
    bench = Bench(succeed)
    assert await bench.does(dispatched({"amount": 42})) == [("complete", PARENT, {"paid": 42}), ENDED]
    assert bench.hints.sent == [(PARENT, "completed")]


@pytest.mark.parametrize(("output", "variables"), [(None, {"result": None}), ([1, 2], {"result": [1, 2]}), ({}, {})])
async def test_an_output_that_is_no_object_becomes_one_variable(output, variables):
    commands = await Bench(returning(output)).does(dispatched())
    assert commands[0] == ("complete", PARENT, variables)


async def test_a_business_error_is_thrown_at_the_task_and_then_the_tde_ends():
    bench = Bench(failing(BusinessError("CARD_DECLINED", "no money", {"balance": 3})))
    expected = ("error", PARENT, "CARD_DECLINED", "no money", {"balance": 3})
    assert await bench.does(dispatched()) == [expected, ended("error", "no money")]
    assert bench.hints.sent == [(PARENT, "error")]


async def test_a_retryable_failure_uses_up_one_attempt_and_backs_off():
    bench = Bench(failing(RetryableFailure("the service is down")), backoff={"initial": "2s", "jitter": 0})
    assert await failure(bench) == ("the service is down", 2, 2.0)
    assert bench.hints.sent == [(PARENT, "failed")]


async def test_later_attempts_back_off_longer():
    bench = Bench(failing(RetryableFailure("down")), backoff={"initial": "2s", "multiplier": 3, "jitter": 0})
    assert await failure(bench, tagged=task(PARENT, retries=2)) == ("down", 1, 6.0)


async def test_a_failure_may_say_when_to_try_again():
    bench = Bench(failing(RetryableFailure("busy", timedelta(seconds=90))))
    assert await failure(bench) == ("busy", 2, 90.0)


async def test_the_last_attempts_failure_is_an_incident():
    bench = Bench(failing(RetryableFailure("down")))
    assert await failure(bench, tagged=task(PARENT, retries=1)) == ("down", 0, 0)
    assert bench.hints.sent == [(PARENT, "incident")]


async def test_a_fatal_failure_is_an_incident_at_once():
    bench = Bench(failing(FatalFailure("the script does not parse")))
    assert await failure(bench) == ("the script does not parse", 0, 0)
    assert bench.hints.sent == [(PARENT, "incident")]


async def test_any_other_exception_is_named_and_tried_again():
    message, retries, _ = await failure(Bench(failing(ZeroDivisionError("division by zero"))))
    assert (message, retries) == ("ZeroDivisionError: division by zero", 2)


async def test_an_executor_that_exits_does_not_end_the_worker():
    message, retries, _ = await failure(Bench(failing(SystemExit("bye"))))
    assert (message, retries) == ("the executor tried to exit: bye", 2)


async def test_an_executor_that_takes_too_long_is_stopped_and_tried_again():
    bench = Bench(hang, timeout="50ms")
    message, retries, _ = await failure(bench)
    assert (message, retries) == ("the executor did not end within 0.05 s (spec.timeout)", 2)
    assert "cancelled" in bench.executor.life


async def test_a_timeout_inside_an_executor_is_not_taken_for_its_own():
    message, _, _ = await failure(Bench(failing(TimeoutError("no answer from the bank"))))
    assert message == "TimeoutError: no answer from the bank"


# --- input and output -----------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}}


async def test_an_input_that_breaks_its_schema_is_an_incident_and_executes_nothing():
    bench = Bench(succeed, inputSchema=SCHEMA)
    message, retries, _ = await failure(bench, data={"amount": "much"})
    assert "inputSchema is not satisfied: $.amount" in message
    assert retries == 0
    assert bench.executor.inputs == []


async def test_an_input_that_is_no_object_is_an_incident():
    message, retries, _ = await failure(Bench(succeed), data=[1])
    assert message.startswith("the input does not fit the executor")
    assert retries == 0


async def test_an_output_that_breaks_its_schema_is_an_incident():
    bench = Bench(returning({"amount": "much"}), outputSchema=SCHEMA)
    message, retries, _ = await failure(bench)
    assert "outputSchema is not satisfied: $.amount" in message
    assert retries == 0


async def refused(bench: Bench) -> tuple[str, int]:
    """Message and attempts left of a task whose result the engine does not take."""
    (name, key, message, retries, _), tde = await bench.does(dispatched())
    assert (name, key) == ("fail", PARENT)
    assert message.endswith(AGAIN) == (retries == 0)
    message = message.removesuffix(AGAIN)
    assert tde == ended("failed", message)
    return message, retries


async def test_an_output_that_is_too_large_is_an_incident_that_says_so():
    bench = Bench(succeed)
    bench.engine.refusals["complete", PARENT] = PayloadTooLargeError("EXCEEDED_BATCH_RECORD_SIZE")
    expected = "the engine does not accept the task's completed outcome: EXCEEDED_BATCH_RECORD_SIZE"
    assert await refused(bench) == (expected, 0)
    assert bench.hints.sent == [(PARENT, "incident")]


async def test_an_output_that_is_no_json_is_an_incident():
    message, retries = await refused(Bench(returning({"ratio": float("inf")})))
    assert "does not accept the task's completed outcome" in message
    assert retries == 0


async def test_an_executor_learns_what_it_needs_of_its_task():
    bench = Bench(succeed, timeout="7s")
    await bench.does(dispatched({"amount": 1}))
    (context,) = bench.executor.contexts
    assert bench.executor.inputs == [{"amount": 1}]
    assert context.task == task(PARENT)
    assert context.timeout == timedelta(seconds=7)


async def test_all_attempts_of_a_task_share_a_key_and_know_their_number():
    seen = []
    for retries in (3, 3, 2):
        bench = Bench(succeed)
        await bench.does(dispatched(tagged=task(PARENT, retries=retries)))
        seen += [(context.idempotency_key, context.attempt) for context in bench.executor.contexts]
    assert seen == [("7", 0), ("7", 0), ("7", 1)]


async def test_no_secret_leaves_the_worker_in_a_message():
    secrets = {"token": "t0p-s3cr3t", "short": "t0p"}
    for error in (
        RetryableFailure("401 for t0p-s3cr3t"),
        FatalFailure("401 for t0p-s3cr3t"),
        BusinessError("DENIED", "401 for t0p-s3cr3t"),
        ValueError("401 for t0p-s3cr3t"),
        SystemExit("401 for t0p-s3cr3t"),
    ):
        commands = await Bench(failing(error), secrets=secrets).does(dispatched())
        assert "t0p" not in str(commands)
        assert "<secret token>" in str(commands)


@pytest.mark.parametrize("value", [datetime(2026, 1, 1, tzinfo=UTC), {1, 2}, float("nan")])
async def test_a_business_error_whose_variables_are_no_json_is_an_incident(value):
    message, retries = await refused(Bench(failing(BusinessError("LATE", "too late", {"value": value}))))
    assert "does not accept the task's error outcome" in message
    assert retries == 0


async def test_a_secret_in_a_result_or_a_business_error_is_an_incident_and_not_a_variable():
    secrets = {"token": "t0p-s3cr3t"}
    for work in (
        returning({"deep": [{"said": "it is t0p-s3cr3t"}]}),
        returning({"t0p-s3cr3t": 1}),
        failing(BusinessError("DENIED", "", {"said": "t0p-s3cr3t"})),
        failing(BusinessError("t0p-s3cr3t")),
    ):
        message, retries, _ = await failure(Bench(work, secrets=secrets))
        assert "holds the value of secret 'token', which must not become a variable" in message
        assert retries == 0


async def test_a_business_error_whose_variables_cannot_be_searched_for_secrets_ends_its_task():
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    deep: Any = "deep"
    for _ in range(100_000):
        deep = [deep]
    for variables in (circle, {"deep": deep}, {(1, 2): 3}):
        error = BusinessError("DENIED", "", variables)  # type: ignore[arg-type]
        message, retries, _ = await failure(Bench(failing(error), secrets={"token": "t0p-s3cr3t"}))
        assert "the business error cannot be written as JSON" in message
        assert retries == 0


# --- tasks that are gone --------------------------------------------------------------------------------------


async def test_a_task_that_starts_at_once_is_not_asked_for():
    bench = Bench(succeed)
    await bench.does(dispatched(late_ms=VERIFY_AFTER_MS))
    assert bench.engine.named("extend") == []


@pytest.mark.parametrize(
    "given", [{"late_ms": VERIFY_AFTER_MS + 1}, {"late_ms": -1}, {"tagged": task(PARENT, verify=True)}]
)
async def test_a_task_that_may_have_ended_is_asked_for_first(given):
    bench = Bench(succeed)
    commands = await bench.does(dispatched(**given))
    assert commands[0] == ("extend", PARENT, LEASE_MS / 1000)
    assert commands[1] == ("complete", PARENT, {"paid": None})


async def test_a_task_that_ended_before_is_not_executed_and_its_tde_cancelled():
    bench = Bench(succeed)
    bench.engine.refusals["extend", PARENT] = NotFoundError("no such job")
    assert await bench.does(dispatched(tagged=task(PARENT, verify=True))) == [("cancel", TDE_INSTANCE)]
    assert bench.executor.inputs == []
    assert bench.hints.sent == [(PARENT, "gone")]


async def test_a_task_whose_lease_is_over_for_a_moment_is_asked_for_again_by_the_same_tde(monkeypatch):
    monkeypatch.setattr(worker, "ASK_AGAIN", 0.01)
    bench = Bench(succeed)
    bench.engine.refusals["extend", PARENT] = WrongStateError("it is not active")
    given = dispatched(tagged=task(PARENT, verify=True))
    put_back = [
        ("extend", TDE, TDE_LEASE + 0.01),
        ("fail", TDE, "the task's lease was over; it is asked for again", 3, 0),
    ]
    async with bench.running():
        for asked in range(1, ASKS + 1):
            bench.engine.offer(given)
            await wait_until(lambda: bench.engine.commands == put_back * asked)  # noqa: B023
        assert bench.hints.sent == []
        # Offered again after that time, while no PDO has the task: the TDE ends.
        bench.engine.offer(given)
        await wait_until(lambda: bench.engine.named("cancel") == [("cancel", TDE_INSTANCE)])
    assert bench.executor.inputs == []
    assert bench.hints.sent == [(PARENT, "gone")]


async def test_the_wait_before_the_next_attempt_of_a_direct_call_is_kept_once():
    bench = Bench(succeed)
    failed = called({"amount": 1, **wait_before(2, 0.05)}, retries=2)
    async with bench.running():
        bench.engine.offer(failed)
        over = ("fail", TDE, "the wait before the next attempt is over", 2, 0)
        await wait_until(lambda: bench.engine.commands == [("extend", TDE, 0.05 + TDE_LEASE), over])
        bench.engine.offer(failed)
        await wait_until(lambda: bench.engine.named("complete") == [("complete", TDE, {"paid": 1})])
    assert bench.executor.inputs == [{"amount": 1}]


async def test_a_worker_that_stops_hands_back_what_waits_there():
    bench = Bench(succeed)
    async with bench.running():
        bench.engine.offer(called(wait_before(2, 300.0), retries=2))
        await wait_until(lambda: bench.engine.commands == [("extend", TDE, 300.0 + TDE_LEASE)])
    ((name, key, _, retries, rest),) = bench.engine.reports
    assert (name, key, retries) == ("fail", TDE, 2)
    assert 0 < rest <= 300.0


def test_a_second_execution_always_asks_for_its_task():
    # The first one had the lease at least so long before the engine gave the job to another worker.
    assert VERIFY_AFTER_MS < TDE_LEASE * 1000


@pytest.mark.usefixtures("renewed_often")
async def test_leases_of_task_and_tde_are_kept_while_it_is_executed():
    end = asyncio.Event()
    bench = Bench(lambda *_: end.wait())

    def kept_twice() -> bool:
        if len(bench.engine.named("extend")) >= 4:
            end.set()
        return bench.done()

    await bench.does(dispatched(), until=kept_twice)
    assert bench.engine.named("extend")[:4] == [("extend", TDE, TDE_LEASE), ("extend", PARENT, LEASE_MS / 1000)] * 2
    assert bench.hints.sent[:2] == [(PARENT, "executing")] * 2
    assert bench.hints.sent[-1] == (PARENT, "completed")


@pytest.mark.usefixtures("renewed_often")
async def test_a_task_that_is_cancelled_stops_its_execution_and_its_tde():
    bench = Bench(hang)
    bench.engine.gone.add(PARENT)
    assert await bench.does(dispatched()) == [("extend", TDE, TDE_LEASE), ("cancel", TDE_INSTANCE)]
    assert "cancelled" in bench.executor.life
    assert bench.hints.sent == [(PARENT, "gone")]


@pytest.mark.usefixtures("renewed_often")
async def test_a_tde_that_is_cancelled_stops_its_execution_and_reports_nothing():
    bench = Bench(hang)
    bench.engine.gone.add(TDE)
    await bench.does(dispatched())
    assert "cancelled" in bench.executor.life
    assert bench.engine.reports == []


@pytest.mark.usefixtures("renewed_often")
async def test_a_worker_that_lost_its_lease_leaves_everything_to_the_next():
    bench = Bench(hang)
    bench.engine.refusals["extend", TDE] = RejectedError("it is not active")
    await bench.does(dispatched(), until=lambda: "cancelled" in bench.executor.life)
    assert bench.engine.commands == []
    assert bench.hints.sent == []


async def test_a_task_that_ends_before_its_report_only_ends_the_tde():
    bench = Bench(succeed)
    bench.engine.gone.add(PARENT)
    assert await bench.does(dispatched()) == [ENDED]
    assert bench.hints.sent == [(PARENT, "gone")]


async def test_a_tde_that_ended_meanwhile_is_no_error():
    bench = Bench(succeed)
    bench.engine.gone.add(TDE)
    await bench.does(dispatched(), until=lambda: bench.hints.sent)
    assert bench.engine.commands == [("complete", PARENT, {"paid": None})]


# --- the worker -----------------------------------------------------------------------------------------------


async def test_executes_no_more_tasks_at_a_time_than_it_should():
    running = most = 0

    async def work(_: dict[str, Any], __: Context) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    bench = Bench(work, concurrency=2)
    for key in range(1, 7):
        bench.engine.offer(replace(dispatched(tagged=task(key)), key=TDE + key))
    async with bench.running():
        await wait_until(lambda: len([report for report in bench.engine.reports if report[1] < TDE]) == 6)
    assert most == 2
