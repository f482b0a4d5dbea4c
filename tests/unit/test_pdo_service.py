"""The PDO scans and dispatches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import background, finished, wait_until
from prokos.engine import AccessDeniedError, PayloadTooLargeError, RejectedError
from prokos.pdo import service
from prokos.pdo.service import Pdo, poll_interval, shard_of
from prokos.registry import FileRegistry, RegisteredTask
from unit.builders import executor, job, process
from unit.fake_engine import FakeEngine
from unit.pdo_bench import System

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RULE = {"jobType": "pay"}


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    made = System(tmp_path)
    yield made
    made.pdo.stop()


# --- dispatch -------------------------------------------------------------------------------------------------


async def test_a_task_that_a_rule_claims_starts_its_tde(system):
    system.start(executor("payer", RULE))
    system.engine.offer(job(7, variables={"amount": 1}))
    await wait_until(lambda: system.started == ["7"])
    variables = system.engine.commands[0][3]
    assert variables["prokosTask"]["input"] == {"amount": 1}
    assert variables["prokosTask"]["element_name"] == "Pay the order"
    assert system.pdo.flights.by_executor() == {"payer": 1}


def marked(system: System) -> dict[str, bool]:
    """Correlation key of each TDE that was started, and whether it asks first if its task is still open."""
    return {command[2]: command[3]["prokosTask"]["verify"] for command in system.engine.named("publish")}


def long_alone(system: System) -> None:
    """No other replica has served this shard for so long that none of its TDEs can be left."""
    system.pdo.shards[0].alone_since -= 1000


async def test_a_pdo_that_just_started_has_every_tde_ask_first(system):
    system.start(executor("payer", RULE))
    system.offer(7)
    await wait_until(lambda: marked(system) == {"7": True})


async def test_a_pdo_that_was_alone_for_long_knows_which_tasks_are_new(system):
    system.start(executor("payer", RULE))
    long_alone(system)
    system.offer(7)
    await wait_until(lambda: marked(system) == {"7": False})


async def test_a_task_that_is_offered_again_asks_first(system):
    system.start(executor("payer", RULE))
    long_alone(system)
    system.offer(7)
    await wait_until(lambda: marked(system) == {"7": False})
    system.offer(7)
    await wait_until(lambda: marked(system) == {"7": True})


async def test_a_beat_that_another_replica_served_has_tdes_ask_first_again(system):
    pdo = system.start(executor("payer", RULE))
    long_alone(system)
    pdo.beat(0, 2)
    system.offer(7)
    await wait_until(lambda: marked(system) == {"7": False})
    pdo.beat(0, 4)
    system.offer(8)
    await wait_until(lambda: marked(system) == {"7": False, "8": True})


async def test_a_task_that_nobody_claims_becomes_an_incident_that_says_why(system):
    system.start(executor("shipper", {"jobType": "ship"}))
    system.offer(7)
    await wait_until(lambda: system.engine.reports)
    ((_, key, message, retries, backoff),) = system.engine.reports
    assert (key, retries, backoff) == (7, 0, 0)
    assert "no executor for Pay (Pay the order) of process orders version 1" in message
    assert system.pdo.journal.latest(1)[0]["state"] == "refused"
    assert 7 not in system.pdo.flights


async def test_an_executor_that_came_after_the_last_beat_gets_its_tasks(system):
    system.start()
    finished(system.store.put_executor(executor("payer", RULE)))
    system.offer(7)
    await wait_until(lambda: system.started == ["7"])
    assert system.engine.reports == []


async def test_dispatches_no_more_than_its_window(system):
    pdo = system.start(executor("payer", RULE), pdo={"window": 2})
    system.offer(1, 2, 3, 4)
    for ended in (1, 2, 3, 4):
        await wait_until(lambda ended=ended: ended in pdo.flights)
        assert len(pdo.flights) <= 2
        pdo.flights.ended(ended, 3, "completed", "")
    await wait_until(lambda: system.started == ["1", "2", "3", "4"])


async def test_a_task_that_is_too_large_becomes_an_incident_that_says_what_to_do(system):
    system.engine.refusals["publish"] = PayloadTooLargeError("larger than max")
    pdo = system.start(executor("payer", RULE))
    system.offer(7)
    await wait_until(lambda: system.engine.reports)
    ((_, _, message, retries, _),) = system.engine.reports
    assert retries == 0
    assert "too large to be passed to its executor: larger than max" in message
    assert "zeebe:input" in message
    assert pdo.journal.latest(1)[0]["state"] == "incident"
    assert 7 not in pdo.flights


async def test_a_tde_that_cannot_be_started_costs_no_attempt_and_is_tried_again_at_leisure(system, monkeypatch):
    monkeypatch.setattr(service, "START_AGAIN", 0.02)
    system.engine.refusals["publish"] = RejectedError("no such message")
    pdo = system.start(executor("payer", RULE))
    for times in (1, 2, 3):
        system.offer(7)
        await wait_until(lambda times=times: len(system.engine.reports) == times)
        assert 7 not in pdo.flights
    reported = ("fail", 7, "cannot start the TDE of payer: no such message", 3, 0)
    kept = ("extend", 7, pdo.lease + 0.02)
    assert system.engine.named("extend", "fail") == [kept, reported] * 3


async def test_a_task_that_cannot_be_read_takes_no_place(system, monkeypatch):
    monkeypatch.setattr(service, "DISPATCH_CONCURRENCY", 2)
    pdo = system.start(executor("payer", RULE), pdo={"window": 2})
    tag = service.tag

    def strange(job, *arguments, **named):
        if job.key < 5:
            raise ValueError("nobody has thought of this")
        return tag(job, *arguments, **named)

    monkeypatch.setattr(service, "tag", strange)
    system.offer(1, 2, 3, 4, 5)
    await wait_until(lambda: system.started == ["5"])
    assert 5 in pdo.flights


async def test_a_task_is_let_go_when_nothing_can_be_done_with_it(system):
    system.engine.refusals |= {
        "publish": AccessDeniedError("token expired"),
        "fail": AccessDeniedError("token expired"),
    }
    pdo = system.start(executor("payer", RULE))
    system.offer(7)
    await wait_until(lambda: pdo.journal.counts["failed"] and not len(pdo.flights))
    assert system.engine.reports == []


async def test_a_task_that_is_gone_when_it_is_refused_is_no_error(system):
    system.engine.gone.add(7)
    system.start()
    system.offer(7, 8)
    await wait_until(lambda: system.engine.reports)
    assert [report[1] for report in system.engine.reports] == [8]


# --- scan -----------------------------------------------------------------------------------------------------


def scanned(system: System) -> set[str]:
    return {job_type for job_type, streams in system.engine.streams.items() if streams}


async def test_scans_a_job_type_from_the_beat_after_its_registration(system):
    pdo = system.start()
    finished(system.store.put_process(process("returns", RegisteredTask(element_id="Back", job_type="refund"))))
    pdo.beat(0, 2)
    await wait_until(lambda: scanned(system) == {"pay", "refund"})


async def test_scans_a_job_type_no_longer_that_nothing_has(system):
    pdo = system.start()
    await wait_until(lambda: scanned(system) == {"pay"})
    finished(system.store.remove_process("orders"))
    pdo.beat(0, 2)
    await wait_until(lambda: not scanned(system))


async def test_scans_only_the_job_types_of_its_shards(system):
    other = 1 - shard_of("pay", 2)
    pdo = system.start(pdo={"shards": 2})
    pdo.stop()
    pdo.beat(other, 1)
    assert pdo.shards[other].scans == {}
    pdo.beat(1 - other, 1)
    assert set(pdo.shards[1 - other].scans) == {"pay"}


async def test_a_scan_that_broke_off_starts_again_with_the_next_beat(system):
    system.engine.hiccups["activate"] = [ValueError("a bug")]
    pdo = system.start(executor("payer", RULE))
    await wait_until(lambda: pdo.shards[0].scans["pay"].done())
    system.offer(1)
    pdo.beat(0, 2)
    await wait_until(lambda: system.started == ["1"])


async def test_a_shard_whose_beats_are_served_elsewhere_is_scanned_no_more(system, monkeypatch):
    monkeypatch.setattr(service, "SHARD_KEPT", -10.0)
    pdo = system.start()
    async with background(pdo.stop_idle_shards()):
        await wait_until(lambda: not pdo.shards)
        await wait_until(lambda: not scanned(system))


async def test_stopping_leaves_no_scan(system):
    before = asyncio.all_tasks()
    pdo = system.start()
    await wait_until(lambda: scanned(system))
    pdo.stop()
    await wait_until(lambda: asyncio.all_tasks() <= before)


async def test_what_was_registered_while_it_started_is_seen_with_the_next_beat(tmp_path):
    class Late(FileRegistry):
        """Another process writes just after this one has read."""

        def load(self):
            loaded = super().load()
            if not loaded.executors:
                finished(self.put_executor(executor("payer", RULE)))
            return loaded

    pdo = Pdo(FakeEngine(), Late(tmp_path), worker="pdo-test")
    pdo.reload()
    assert set(pdo.registry.executors) == {"payer"}


@given(st.text(), st.integers(1, 64))
def test_every_job_type_belongs_to_one_shard(job_type, shards):
    assert 0 <= shard_of(job_type, shards) < shards


def test_many_job_types_are_polled_less_often_each():
    assert poll_interval(5, 10) == 5
    assert poll_interval(5, 1000) == 50
