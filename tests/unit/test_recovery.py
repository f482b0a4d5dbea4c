"""What faults on the real broker have taught: leases that end unnoticed, jobs that come twice, late results."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from helpers import background, wait_until
from prokos.engine import JobSource, Slots, WrongStateError
from prokos.engine.losses import DOUBT
from prokos.resources.names import TDE_ATTEMPTS
from prokos.tde import RetryableFailure
from prokos.tde.lease import TDE_LEASE, LeaseLostError, keep, must_verify
from unit.builders import job, task
from unit.fake_engine import FakeEngine
from unit.tde_bench import PARENT, TDE, Bench, called, dispatched

LEASE = 2.0


class HangingEngine(FakeEngine):
    """Answers no renewal, as when commands are repeated until a broker is back."""

    async def extend_lease(self, key: int, lease: float) -> None:
        await asyncio.Event().wait()


async def test_a_renewal_that_hangs_ends_the_attempt_with_its_lease():
    given = job(900)
    async with asyncio.timeout(60):
        with pytest.raises(LeaseLostError):
            await keep(HangingEngine(), given, None, LEASE)
    assert time.monotonic() - given.leased_at >= LEASE


async def test_a_job_that_has_waited_for_long_is_renewed_before_its_lease_ends():
    engine = FakeEngine()
    given = job(900)
    waited = replace(given, leased_at=given.leased_at - 58)
    async with background(keep(engine, waited, None, 60)):
        await wait_until(lambda: engine.commands)
    assert engine.commands == [("extend", 900, 60)]


async def test_a_job_whose_lease_is_over_is_not_renewed():
    engine = FakeEngine()
    given = job(900)
    with pytest.raises(LeaseLostError):
        await keep(engine, replace(given, leased_at=given.leased_at - TDE_LEASE), None)
    assert engine.commands == []


def test_a_task_with_a_short_lease_is_asked_for_once_that_is_over():
    short = task(PARENT)
    short = replace(short, deadline=short.deadline - short.lease + 4_000, lease=4_000)
    assert not must_verify(short, dispatched(late_ms=4_000))
    assert must_verify(short, dispatched(late_ms=4_001))


async def succeed(_: dict[str, Any], __: Any) -> dict[str, Any]:
    return {"paid": True}


async def test_a_result_that_comes_late_is_no_incident_of_the_next_attempt():
    bench = Bench(succeed)
    bench.engine.refusals["complete", PARENT] = WrongStateError("it waits for its next attempt")
    await bench.does(dispatched())
    assert [command for command in bench.engine.commands if command[:2] == ("fail", PARENT)] == []


async def test_a_job_that_comes_again_while_it_is_worked_on_is_not_executed_twice():
    release = asyncio.Event()

    async def work(_: dict[str, Any], __: Any) -> dict[str, Any]:
        await release.wait()
        return {}

    bench = Bench(work)
    bench.engine.offer(dispatched())
    async with bench.running():
        await wait_until(lambda: len(bench.executor.inputs) == 1)
        bench.engine.offer(dispatched(), dispatched(), dispatched(), dispatched(), dispatched())
        await wait_until(lambda: not any(not stream.empty() for stream in bench.engine.streams["prokos.tde.payer"]))
        release.set()
        await wait_until(bench.done)
    assert len(bench.executor.inputs) == 1


async def test_the_next_attempt_may_come_before_the_answer_to_the_report_of_the_one_before():
    """The engine offers a failed job at once: the worker that waits for its answer takes it, and not a lease later."""

    class Prompt(FakeEngine):
        async def fail_job(self, key: int, message: str, **report: Any) -> None:
            await super().fail_job(key, message, **report)
            self.offer(called(retries=report["retries"]))
            await wait_until(lambda: all(stream.empty() for stream in self.streams["prokos.tde.payer"]))

    async def work(_: dict[str, Any], context: Any) -> dict[str, Any]:
        if context.attempt < 2:
            raise RetryableFailure("not yet")
        return {}

    bench = Bench(work, backoff={"initial": "0s"})
    bench.engine = bench.worker.client = Prompt()
    bench.engine.offer(called(retries=TDE_ATTEMPTS))
    async with bench.running():
        await wait_until(lambda: bench.engine.named("complete"))
    assert [context.attempt for context in bench.executor.contexts] == [0, 1, 2]


async def test_jobs_that_wait_when_the_connection_is_lost_are_forgotten():
    engine, slots, seen = FakeEngine(), Slots(1), []
    source = JobSource(engine, "pay", worker="test", lease=30, slots=slots, poll_interval=30)

    async def take(taken: Any) -> None:
        seen.append(taken.key)

    async with background(source.run(take)):
        await wait_until(lambda: engine.streams["pay"])
        engine.offer(job(1), job(2))
        await wait_until(lambda: seen == [1] and all(stream.empty() for stream in engine.streams["pay"]))
        engine.losses.note()
        await asyncio.sleep(0)
        engine.offer(job(3))
        slots.release()
        await wait_until(lambda: len(seen) > 1)
    assert seen == [1, 3]


async def hang(_: dict[str, Any], __: Any) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def test_work_that_began_just_before_a_lost_connection_is_stopped_and_nothing_is_said_of_its_keys():
    bench = Bench(hang)
    bench.engine.offer(dispatched())
    async with bench.running():
        await wait_until(lambda: bench.executor.inputs)
        bench.engine.losses.note()
        await wait_until(lambda: "cancelled" in bench.executor.life)
    assert bench.engine.commands == []


async def test_work_that_began_long_before_a_lost_connection_goes_on():
    release = asyncio.Event()

    async def work(_: dict[str, Any], __: Any) -> dict[str, Any]:
        await release.wait()
        return {}

    bench = Bench(work)
    given = dispatched()
    bench.engine.offer(replace(given, received_at=given.received_at - DOUBT))
    async with bench.running():
        await wait_until(lambda: bench.executor.inputs)
        bench.engine.losses.note()
        release.set()
        await wait_until(bench.done)
    assert [command[:2] for command in bench.engine.reports] == [("complete", PARENT), ("complete", TDE)]


async def test_a_result_that_cannot_be_reported_is_dropped_with_the_connection():
    class Away(FakeEngine):
        async def complete_job(self, key: int, variables: Any = None) -> None:
            self.commands.append(("tried", key))
            await asyncio.Event().wait()

    bench = Bench(succeed)
    bench.worker.client = bench.engine = Away()
    bench.engine.offer(dispatched())
    async with bench.running():
        await wait_until(lambda: bench.engine.commands)
        bench.engine.losses.note()
        await wait_until(lambda: not bench.worker._attempts)  # nothing outside shows it
    assert bench.engine.commands == [("tried", PARENT)]


async def test_an_attempt_does_not_begin_when_the_engine_was_silent_for_longer_than_the_lease():
    """Another worker may have the TDE's job by then."""

    class Silent(FakeEngine):
        async def extend_lease(self, key: int, lease: float) -> None:
            self.commands.append(("asked", key))
            given = self.given
            await wait_until(lambda: time.monotonic() > given.leased_at + LEASE)

    bench = Bench(succeed, lease=LEASE)
    bench.worker.client = bench.engine = engine = Silent()
    engine.given = dispatched(lease=LEASE, tagged=task(PARENT, verify=True))
    engine.offer(engine.given)
    async with bench.running():
        await wait_until(lambda: engine.commands and not bench.worker._working)
    assert engine.commands == [("asked", PARENT)]
    assert bench.executor.inputs == []
