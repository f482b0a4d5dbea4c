from __future__ import annotations

import asyncio

import pytest

from prokos.engine import AccessDeniedError, EngineUnavailableError, NotFoundError, RejectedError
from prokos.tde.lease import TDE_LEASE, LeaseLostError, TaskGoneError, keep
from unit.builders import job, task
from unit.fake_engine import FakeEngine
from unit.tde_bench import renewed_often

SHORT = 0.08
"""A lease that ends."""


class SlowEngine(FakeEngine):
    """Answers a renewal only when the lease is over."""

    async def extend_lease(self, key: int, lease: float) -> None:
        await asyncio.sleep(2 * lease)
        await super().extend_lease(key, lease)


__all__ = ["renewed_often"]


async def kept(engine: FakeEngine, tagged: object = None, lease: float = TDE_LEASE) -> None:
    async with asyncio.timeout(60):
        await keep(engine, job(900), tagged, lease)


@pytest.mark.usefixtures("renewed_often")
async def test_renews_until_the_tde_is_gone():
    engine = FakeEngine()
    engine.refusals["extend", 7] = NotFoundError("no such job")
    with pytest.raises(TaskGoneError, match="cancelled"):
        await kept(engine, task(7))
    assert engine.commands == [("extend", 900, TDE_LEASE)]


@pytest.mark.usefixtures("renewed_often")
async def test_a_tde_that_ended_is_a_task_that_is_gone():
    engine = FakeEngine()
    engine.gone.add(900)
    with pytest.raises(TaskGoneError):
        await kept(engine)


async def test_a_job_that_the_engine_took_back_is_another_workers():
    engine = FakeEngine()
    engine.refusals["extend"] = RejectedError("it is not active")
    with pytest.raises(LeaseLostError):
        await kept(engine, lease=SHORT)


@pytest.mark.usefixtures("renewed_often")
@pytest.mark.parametrize("error", [EngineUnavailableError("away"), AccessDeniedError("token expired")])
async def test_a_renewal_that_fails_is_tried_again_while_the_lease_lasts(error):
    engine = FakeEngine()
    engine.hiccups["extend"] = [error, error]
    engine.refusals["extend", 7] = NotFoundError("no such job")
    with pytest.raises(TaskGoneError):
        await kept(engine, task(7))


async def test_a_lease_that_cannot_be_renewed_is_lost():
    engine = FakeEngine()
    engine.refusals["extend"] = EngineUnavailableError("away")
    with pytest.raises(LeaseLostError):
        await kept(engine, lease=SHORT)


async def test_a_renewal_that_came_too_late_is_none():
    with pytest.raises(LeaseLostError, match="held up"):
        await kept(SlowEngine(), lease=SHORT)


@pytest.mark.usefixtures("renewed_often")
async def test_tells_each_time_that_the_task_is_kept():
    engine, told = FakeEngine(), []

    def kept(tagged):
        told.append(tagged.job_key)
        if len(told) == 2:
            engine.refusals["extend", 7] = NotFoundError("no such job")

    with pytest.raises(TaskGoneError):
        async with asyncio.timeout(60):
            await keep(engine, job(900), task(7), TDE_LEASE, kept)
    assert told == [7, 7]
