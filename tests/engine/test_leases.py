"""The engine that ProkOS runs notices the end of every lease, as what is guaranteed when workers die rests on it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from engine.samples import one_task
from prokos.engine import Connection, EngineClient
from prokos.engine.embedded import EmbeddedEngine, EmbeddedSettings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine

JOBS = 60
ENDS = 5_000
"""Ends of leases. An engine that looks for them beside its commands has lost all jobs after 2,300 (decision 0021)."""
LEASE = 0.05
OFTEN = {
    "ZEEBE_BROKER_EXPERIMENTAL_ENGINE_JOBS_TIMEOUTCHECKERPOLLINGINTERVAL": "5ms",
    "ZEEBE_BROKER_PROCESSING_SCHEDULEDTASKCHECKINTERVAL": "5ms",
}
"""How often it looks; by default once a second, which would take the test an hour."""
PATIENCE = 20.0
"""Seconds after which a job that is not offered again is lost."""


async def test_the_end_of_no_lease_is_missed(tmp_path: Path) -> None:
    settings = EmbeddedSettings(tmp_path / "data", tmp_path / "engine.log", keep_state=False, environment=OFTEN)
    async with EmbeddedEngine(settings) as engine, EngineClient(Connection(engine.address)) as client:
        await client.deploy({"leased.bpmn": one_task("leased", "leased").encode()})
        for _ in range(JOBS):
            await client.create_instance("leased")
        offers = 0
        offered: dict[int, float] = {}
        while offers < ENDS:
            jobs = await client.activate_jobs("leased", worker="test", limit=JOBS, lease=LEASE)
            now = time.monotonic()
            offers += len(jobs)
            offered |= {job.key: now for job in jobs}
            lost = [key for key, at in offered.items() if now - at > PATIENCE]
            assert not lost, f"after {offers} offers {len(lost)} of {JOBS} jobs are not offered any more"
            await asyncio.sleep(LEASE / 10)
        assert len(offered) == JOBS
