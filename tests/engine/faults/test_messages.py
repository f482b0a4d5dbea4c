"""Messages that get lost, and reports that come late, between real processes and a real engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyzeebe.proto import gateway_pb2 as pb

from engine.devsystem import wait_until
from engine.faults.extent import FEWER, new_seed, settle
from engine.faults.fleet import Fleet
from engine.faults.gateway_proxy import Forward, LostError, Proxy, running_proxy
from engine.faults.replicas import running_engine
from prokos.resources.names import tde_message
from prokos.tde.lease import TDE_LEASE

PDO_LEASE = 4.0

LOST = 0.1
"""Share of the starts that are lost, and again of the starts whose answer is lost."""

REPORTERS = 8
"""Instances whose first result comes late."""

FIRST, LATER = "task01", 5.0
"""The task whose result comes late, and the seconds that each execution of it takes."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_engine(tmp_path_factory.mktemp("engine"), {}) as running:
        yield running.address


def test_a_start_that_is_lost_costs_one_lease(tmp_path: Path, engine: str) -> None:
    lost: dict[int, float] = {}
    unanswered: set[int] = set()

    with running_proxy(engine) as proxy:
        fleet = Fleet(tmp_path, new_seed(), engine=proxy.address, lease=f"{PDO_LEASE:g}s")
        starts = tde_message("")

        async def publish(request: bytes, forward: Forward) -> bytes:
            message = pb.PublishMessageRequest.FromString(request)
            if not message.name.startswith(starts):
                return await forward()
            job, chance = int(message.correlationKey), fleet.random.random()
            if job in lost or job in unanswered or chance > 2 * LOST:
                return await forward()
            if chance < LOST:
                # As the engine answers one that it drops.
                lost[job] = time.monotonic()
                return bytes(pb.PublishMessageResponse(key=1).SerializeToString())
            unanswered.add(job)
            await forward()
            raise LostError

        proxy.rules["PublishMessage"] = publish
        with fleet:
            fleet.start(FEWER // 3)
            findings = settle(fleet)
            began = {one.job: one.started for one in reversed(fleet.executions())}
    waited = sorted(began[job] - at for job, at in lost.items())
    print(f"{len(unanswered)} answers lost; {len(lost)} starts, which came {waited[0]:.1f} to {waited[-1]:.1f} s later")
    assert lost
    assert unanswered
    assert findings.repeated == 0
    # The lease, and the second or two in which the engine and the PDO notice its end; twice that on a busy machine.
    assert waited[-1] < 2 * (PDO_LEASE + 3)


class LateReports:
    """Holds back the first result of each task `FIRST` until it is released."""

    def __init__(self, proxy: Proxy) -> None:
        self.first: dict[int, str] = {}
        """Token of the result that is held back, by job."""
        self.taken: dict[int, str] = {}
        """Token of the result that the engine took."""
        self.released: set[int] = set()
        proxy.rules["CompleteJob"] = self._complete

    async def _complete(self, request: bytes, forward: Forward) -> bytes:
        job = pb.CompleteJobRequest.FromString(request)
        tokens = json.loads(job.variables).get("tokens", [])
        if len(tokens) != 1:
            return await forward()
        (token,) = tokens
        # The worker asks again when it gets no answer; that is held back just so.
        if self.first.setdefault(job.jobKey, token) == token:
            while job.jobKey not in self.released:
                await asyncio.sleep(0.05)
        answer = await forward()
        self.taken[job.jobKey] = token
        return answer


def test_a_result_that_comes_after_the_lease_was_taken_over_makes_no_second_one(tmp_path: Path, engine: str) -> None:
    with running_proxy(engine) as proxy, Fleet(tmp_path, new_seed(), engine=proxy.address) as fleet:
        reports = LateReports(proxy)
        fleet.start(REPORTERS, work={FIRST: LATER})
        during: set[int] = set()

        def taken_over() -> bool:
            """Release half of the results while another worker executes their task, half after it has reported."""
            for position, (job, first) in enumerate(list(reports.first.items())):
                second = [one.how for one in fleet.executions() if one.job == job and one.token != first]
                if position % 2 == 0 and "running" in second:
                    during.add(job)
                if job in during or job in reports.taken:
                    reports.released.add(job)
            return len(reports.released) == REPORTERS

        # A worker that is offered what it works on leaves it alone for another lease, until another worker gets it.
        wait_until(taken_over, timeout=8 * TDE_LEASE, describe=lambda: f"{reports.released}\n{fleet.dev.logs()}")
        findings = settle(fleet)
        went_on = {one.instance: one.tokens[0] for one in fleet.executions() if one.tokens}
        for one in fleet.executions():
            if one.element == FIRST:
                assert went_on[one.instance] == reports.taken[one.job]
        late = {job for job, token in reports.taken.items() if token == reports.first[job]}
    print(f"{len(late)} late results counted, {REPORTERS - len(late)} came too late")
    assert findings.repeated >= REPORTERS
    assert during <= late
