"""Messages that get lost, and reports that come late, between real processes and a real engine."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator

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
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with (
        running_engine(tmp_path_factory.mktemp("engine"), {}) as engine,
        running_proxy(engine.address) as between,
    ):
        yield between


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Iterator[Fleet]:
    """A system that reaches its engine through the proxy."""
    directory = tmp_path_factory.mktemp("messages")
    with Fleet(directory, new_seed(), engine=proxy.address, lease=f"{PDO_LEASE:g}s") as system:
        yield system


class LostStarts:
    """Loses starts of TDEs: some never reach the engine, of others the answer does not come back."""

    def __init__(self, proxy: Proxy, chance: random.Random) -> None:
        self.lost: dict[int, float] = {}
        """When the start of a job was lost, on the monotonic clock."""
        self.unanswered: set[int] = set()
        self._chance = chance
        proxy.rules["PublishMessage"] = self._publish

    async def _publish(self, request: bytes, forward: Forward) -> bytes:
        message = pb.PublishMessageRequest.FromString(request)
        chance = self._chance.random()
        if not message.name.startswith(tde_message("")) or chance > 2 * LOST:
            return await forward()
        job = int(message.correlationKey)
        if job in self.lost or job in self.unanswered:
            return await forward()
        if chance < LOST:
            self.lost[job] = time.monotonic()
            # A start that the engine drops is answered just so.
            answer: bytes = pb.PublishMessageResponse(key=1).SerializeToString()
            return answer
        self.unanswered.add(job)
        await forward()
        raise LostError


def test_a_start_that_is_lost_costs_one_lease(fleet: Fleet, proxy: Proxy) -> None:
    starts = LostStarts(proxy, fleet.random)
    fleet.start(FEWER // 2)
    findings = settle(fleet)
    began = {one.job: one.started for one in reversed(fleet.executions())}
    waited = sorted(began[job] - at for job, at in starts.lost.items())
    late = f"{len(waited)} starts, which came {waited[0]:.1f} to {waited[-1]:.1f} s later"
    print(f"lost: {len(starts.unanswered)} answers; {late}")
    assert starts.unanswered
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

        async def complete() -> bytes:
            answer = await forward()
            self.taken[job.jobKey] = token
            return answer

        # Also when the worker just gives up waiting: what the engine takes is noted.
        return await asyncio.shield(complete())


def test_a_result_that_comes_after_the_lease_was_taken_over_makes_no_second_one(fleet: Fleet, proxy: Proxy) -> None:
    proxy.rules.clear()
    reports = LateReports(proxy)
    fleet.start(REPORTERS, work={FIRST: LATER})
    during: set[int] = set()
    after: set[int] = set()

    def taken_over() -> bool:
        """Release results while another worker executes their task, and some only when that one has reported."""
        for position, (job, first) in enumerate(list(reports.first.items())):
            second = [one.how for one in fleet.executions() if one.job == job and one.token != first]
            if position % 2 == 0 and "running" in second:
                during.add(job)
            elif job in reports.taken and job not in during:
                after.add(job)
        reports.released |= during | after
        return bool(during and after)

    # A worker that is offered what it works on leaves it alone for another lease; so it may take some leases until
    # other workers have some of them.
    wait_until(taken_over, timeout=8 * TDE_LEASE, describe=lambda: f"{during} {after}\n{fleet.dev.logs()}")
    reports.released |= set(reports.first)
    settle(fleet)
    went_on = {one.instance: one.tokens[0] for one in fleet.executions() if one.tokens}
    for one in fleet.executions():
        if one.job in reports.first:
            assert went_on[one.instance] == reports.taken[one.job]
    first = {job for job, token in reports.taken.items() if token == reports.first[job]}
    print(f"{len(during)} results came while another worker executed, {len(after)} after that one's")
    assert during <= first
    assert not after & first
