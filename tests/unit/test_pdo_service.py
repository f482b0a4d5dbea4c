from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import background, wait_until
from prokos.engine import AccessDeniedError, PayloadTooLargeError, RejectedError
from prokos.pdo import service
from prokos.pdo.service import Pdo, poll_interval, shard_of
from prokos.registry import FileRegistry, RegisteredTask
from prokos.resources import ProkOSSpec
from prokos.router import ROUTE_MESSAGE, Decision, Refused
from unit.builders import element, executor, job, process, route
from unit.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RULE = {"jobType": "pay"}
TDE = "prokos.tde.payer"
LLM = {"mode": "llm", "model": "openai/test"}
ROUTED = Decision("payer", "llm", "it charges cards", 0.9)
PAY = element(name="Pay the order")
"""The element of `job()` as `process()` registers it."""


class System:
    """A PDO over an engine in memory and a registry on disk."""

    def __init__(self, directory: Path) -> None:
        self.engine = FakeEngine()
        self.store = FileRegistry(directory)
        self.store.put_process(process())

    def start(self, *executors: Any, **system: Any) -> Pdo:
        for one in executors:
            self.store.put_executor(one)
        self.store.put_system(ProkOSSpec.model_validate(system))
        self.pdo = Pdo(self.engine, self.store, worker="pdo-test")
        self.pdo.beat(0, 1)
        return self.pdo

    def offer(self, *keys: int) -> None:
        self.engine.offer(*(job(key) for key in keys))

    @property
    def started(self) -> list[str]:
        """Correlation keys of the TDEs that were started."""
        return [command[2] for command in self.engine.named("publish") if command[1] == TDE]

    @property
    def asked(self) -> list[str]:
        """Correlation keys of the routes that were requested."""
        return [command[2] for command in self.engine.named("publish") if command[1] == ROUTE_MESSAGE]

    async def all_wait(self, count: int) -> None:
        await wait_until(lambda: self.pdo.journal.counts["routing"] == count)


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
    assert variables["input"] == {"amount": 1}
    assert variables["prokosTask"]["element_name"] == "Pay the order"
    assert system.pdo.flights.by_executor() == {"payer": 1}


async def test_a_task_that_nobody_claims_becomes_an_incident_that_says_why(system):
    system.start(executor("shipper", {"jobType": "ship"}))
    system.offer(7)
    await wait_until(lambda: system.engine.reports)
    ((_, key, message, retries, backoff),) = system.engine.reports
    assert (key, retries, backoff) == (7, 0, 0)
    assert "no executor for Pay (Pay the order) of process orders version 1" in message
    assert system.pdo.journal.latest(1)[0]["state"] == "refused"
    assert 7 not in system.pdo.flights


async def test_dispatches_no_more_than_its_window(system):
    pdo = system.start(executor("payer", RULE), pdo={"window": 2})
    system.offer(1, 2, 3, 4)
    for ended in (1, 2, 3, 4):
        await wait_until(lambda ended=ended: ended in pdo.flights)
        assert len(pdo.flights) <= 2
        pdo.flights.ended(ended, "completed", "")
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


async def test_a_tde_that_cannot_be_started_costs_no_attempt(system):
    system.engine.refusals["publish"] = RejectedError("no such message")
    pdo = system.start(executor("payer", RULE))
    system.offer(7)
    await wait_until(lambda: system.engine.reports)
    assert system.engine.reports == [("fail", 7, "cannot start the TDE of payer: no such message", 3, 2.0)]
    assert 7 not in pdo.flights


async def test_a_task_is_let_go_when_nothing_can_be_done_with_it(system):
    system.engine.refusals |= {"publish": AccessDeniedError("token expired"), "fail": AccessDeniedError("token expired")}
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


# --- routing --------------------------------------------------------------------------------------------------


async def test_a_route_is_requested_once_however_many_tasks_wait_for_it(system):
    system.start(executor("payer"), router=LLM)
    system.offer(1, 2, 3)
    await system.all_wait(3)
    assert system.asked == [PAY.route_name]
    assert system.started == system.engine.reports == []
    assert len(system.pdo.flights) == 3


async def test_waiting_tasks_go_on_when_their_route_is_decided(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1, 2)
    await system.all_wait(2)
    pdo.settled(PAY, ROUTED)
    await wait_until(lambda: system.started == ["1", "2"])
    assert pdo.flights.by_executor() == {"payer": 2}
    assert pdo.journal.latest(1)[0]["reason"] == "it charges cards"


async def test_a_task_that_waited_for_its_route_takes_one_slot(system):
    pdo = system.start(executor("payer"), router=LLM, pdo={"window": 1})
    system.offer(1, 2, 3)
    await system.all_wait(1)
    pdo.settled(PAY, ROUTED)
    for ended in (1, 2, 3):
        await wait_until(lambda ended=ended: system.started[-1:] == [str(ended)])
        assert len(pdo.flights) == 1
        pdo.flights.ended(ended, "completed", "")


async def test_later_tasks_of_a_decided_element_do_not_ask(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    pdo.settled(PAY, ROUTED)
    system.offer(2)
    await wait_until(lambda: system.started == ["1", "2"])
    assert len(system.asked) == 1


async def test_waiting_tasks_become_incidents_when_there_is_no_route(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1, 2)
    await system.all_wait(2)
    pdo.settled(PAY, Refused("nobody fits"))
    await wait_until(lambda: len(system.engine.reports) == 2)
    assert system.engine.reports == [("fail", 1, "nobody fits", 0, 0), ("fail", 2, "nobody fits", 0, 0)]


async def test_a_refusal_for_want_of_an_answer_leaves_further_attempts(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    pdo.settled(PAY, Refused("no answer", transient=True))
    await wait_until(lambda: system.engine.reports)
    assert system.engine.reports == [("fail", 1, "no answer", 2, service.TRANSIENT)]
    assert pdo.journal.latest(1)[0]["state"] == "failed"


async def test_want_of_an_answer_ends_in_an_incident_at_last(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.engine.offer(job(1, retries=1))
    await system.all_wait(1)
    pdo.settled(PAY, Refused("no answer", transient=True))
    await wait_until(lambda: system.engine.reports)
    assert system.engine.reports == [("fail", 1, "no answer", 0, 0)]


async def test_an_outcome_for_want_of_an_answer_is_not_used_for_long(system, monkeypatch):
    monkeypatch.setattr(service, "TRANSIENT", 0.0)
    pdo = system.start(executor("payer"), router=LLM)
    pdo.settled(PAY, Decision("payer", "fallback", "no answer", transient=True))
    system.offer(1)
    await system.all_wait(1)
    assert len(system.asked) == 1


async def test_a_route_to_an_executor_that_was_removed_meanwhile_is_refused(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    pdo.settled(PAY, Decision("gone", "llm", "it fitted"))
    await wait_until(lambda: system.engine.reports)
    ((_, _, message, retries, _),) = system.engine.reports
    assert "the executor 'gone' was removed" in message
    assert retries == 0


async def test_a_task_that_was_cancelled_while_it_waited_is_not_dispatched(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1, 2)
    await system.all_wait(2)
    pdo.flights.ended(1, "ended", "")
    pdo.settled(PAY, ROUTED)
    await wait_until(lambda: system.started)
    assert system.started == ["2"]


async def test_a_task_that_was_offered_again_while_it_waited_is_dispatched_once(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1, 1)
    await system.all_wait(2)
    pdo.settled(PAY, ROUTED)
    await wait_until(lambda: system.started)
    system.offer(2)
    await wait_until(lambda: system.started[-1] == "2")
    assert system.started == ["1", "2"]


async def test_a_rule_that_is_added_lets_waiting_tasks_go_on(system):
    pdo = system.start(executor("shipper"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    system.store.put_executor(executor("payer", RULE))
    pdo.beat(0, 2)
    await wait_until(lambda: system.started == ["1"])


async def test_a_route_that_another_replica_recorded_lets_waiting_tasks_go_on(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    system.store.put_route(route("payer", source="llm"))
    pdo.beat(0, 2)
    await wait_until(lambda: system.started == ["1"])


async def test_a_route_whose_outcome_never_comes_is_requested_again(system, monkeypatch):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    pdo.beat(0, 2)
    monkeypatch.setattr(service, "ASK_AGAIN", 0.0)
    pdo.beat(0, 3)
    await wait_until(lambda: system.asked == [PAY.route_name] * 2)


async def test_a_request_that_failed_is_made_again(system, monkeypatch):
    monkeypatch.setattr(service, "ASK_AGAIN", 0.0)
    system.engine.hiccups["publish"] = [AccessDeniedError("token expired")]
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await wait_until(lambda: not system.engine.hiccups["publish"])
    pdo.beat(0, 2)
    await wait_until(lambda: system.asked == [PAY.route_name])
    assert 1 in pdo.flights


async def test_no_route_is_requested_again_for_tasks_that_are_gone(system, monkeypatch):
    monkeypatch.setattr(service, "ASK_AGAIN", 0.0)
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    pdo.flights.ended(1, "ended", "")
    pdo.beat(0, 2)
    system.offer(2)
    await system.all_wait(2)
    assert len(system.asked) == 2, "the second request is that of the second task"


# --- scan -----------------------------------------------------------------------------------------------------


def scanned(system: System) -> set[str]:
    return {job_type for job_type, streams in system.engine.streams.items() if streams}


async def test_scans_a_job_type_from_the_beat_after_its_registration(system):
    pdo = system.start()
    system.store.put_process(process("returns", RegisteredTask(element_id="Back", job_type="refund")))
    pdo.beat(0, 2)
    await wait_until(lambda: scanned(system) == {"pay", "refund"})


async def test_scans_a_job_type_no_longer_that_nothing_has(system):
    pdo = system.start()
    await wait_until(lambda: scanned(system) == {"pay"})
    system.store.remove_process("orders")
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
    await wait_until(lambda: asyncio.all_tasks() == before)


async def test_what_was_registered_while_it_started_is_seen_with_the_next_beat(tmp_path):
    class Late(FileRegistry):
        """Another process writes just after this one has read."""

        def load(self):
            loaded = super().load()
            if not loaded.executors:
                self.put_executor(executor("payer", RULE))
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


