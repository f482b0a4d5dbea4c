from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from helpers import background, wait_until
from prokos.engine import Job, RejectedError, StepRefusedError, StepRunner, steps
from unit.builders import job
from unit.fake_engine import FakeEngine

if TYPE_CHECKING:
    from prokos.engine.steps import Step

STEP = "prokos.kernel.step"


def runner(engine: FakeEngine, step: Step, *, lease: float = 30.0, concurrency: int = 8) -> StepRunner:
    return StepRunner(engine, {STEP: step}, worker="kernel", lease=lease, concurrency=concurrency)


async def only_report(engine: FakeEngine, step: Step, **changes: Any) -> tuple[Any, ...]:
    """What is reported of one job of a step."""
    engine.offer(job(5, STEP, **changes))
    async with background(runner(engine, step).run()):
        await wait_until(lambda: engine.reports)
    (report,) = engine.reports
    return report


async def test_a_steps_result_completes_its_job():
    async def step(taken: Job) -> dict[str, Any]:
        return {"executors": (taken.variables["name"],)}

    assert await only_report(FakeEngine(), step, variables={"name": "payer"}) == (
        "complete", 5, {"executors": ["payer"]}
    )  # fmt: skip


async def test_a_step_without_a_result_completes_its_job_too():
    async def step(_: Job) -> None:
        return None

    assert await only_report(FakeEngine(), step) == ("complete", 5, {})


async def test_a_refusal_is_the_bpmn_error_its_process_is_modelled_for():
    async def step(_: Job) -> None:
        raise StepRefusedError("REGISTRATION_REFUSED", "the name is taken")

    expected = ("error", 5, "REGISTRATION_REFUSED", "the name is taken", {"refusal": "the name is taken"})
    assert await only_report(FakeEngine(), step) == expected


async def test_a_failure_is_tried_again_after_a_while_and_uses_up_no_attempt(monkeypatch):
    monkeypatch.setattr(steps, "RETRY_DELAY", 0.05)

    async def step(_: Job) -> None:
        raise OSError("disk full")

    before = time.monotonic()
    assert await only_report(FakeEngine(), step, retries=2) == ("fail", 5, "OSError: disk full", 2, 0)
    assert time.monotonic() - before >= 0.05


async def test_a_result_that_is_no_json_does_not_end_the_other_steps():
    async def step(taken: Job) -> dict[str, Any]:
        return {"x": float("nan") if taken.key == 5 else 1}

    engine = FakeEngine()
    engine.offer(job(5, STEP), job(6, STEP))
    async with background(runner(engine, step).run()):
        await wait_until(lambda: engine.reports == [("complete", 6, {"x": 1})])


async def test_a_refused_report_does_not_end_the_other_steps():
    async def step(_: Job) -> None:
        return None

    engine = FakeEngine()
    engine.refusals["complete", 5] = RejectedError("too large")
    engine.gone.add(6)
    engine.offer(job(5, STEP), job(6, STEP), job(7, STEP))
    async with background(runner(engine, step).run()):
        await wait_until(lambda: engine.reports == [("complete", 7, {})])


async def test_keeps_the_lease_while_a_step_runs():
    end = asyncio.Event()

    async def step(_: Job) -> None:
        await end.wait()

    engine = FakeEngine()
    engine.offer(job(5, STEP))
    async with background(runner(engine, step, lease=1.5).run()):
        await wait_until(lambda: len(engine.named("extend")) >= 3)
        end.set()
        await wait_until(lambda: engine.reports)
    assert set(engine.named("extend")) == {("extend", 5, 1.5)}


async def test_works_no_more_steps_at_a_time_than_it_should():
    running = most = 0
    end = asyncio.Event()

    async def step(_: Job) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await end.wait()
        running -= 1

    engine = FakeEngine()
    engine.offer(*(job(key, STEP) for key in range(1, 7)))
    async with background(runner(engine, step, concurrency=2).run()):
        await wait_until(lambda: running == 2)
        end.set()
        await wait_until(lambda: len(engine.reports) == 6)
    assert most == 2


async def test_cancellation_ends_running_steps():
    engine = FakeEngine()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def step(_: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    engine.offer(job(5, STEP))
    async with background(runner(engine, step).run()):
        await started.wait()
    assert cancelled.is_set()
    assert engine.reports == []
