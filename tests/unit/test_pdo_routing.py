"""Tasks without a rule wait at the PDO until their route is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers import finished, wait_until
from prokos.engine import AccessDeniedError
from prokos.pdo import service
from prokos.router import Decision, Refused
from unit.builders import element, executor, job, route
from unit.pdo_bench import System

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RULE = {"jobType": "pay"}
LLM = {"mode": "llm", "model": "openai/test"}
ROUTED = Decision("payer", "llm", "it charges cards", 0.9)
PAY = element(name="Pay the order")
"""The element of `job()` as `process()` registers it."""


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    made = System(tmp_path)
    yield made
    made.pdo.stop()


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
        pdo.flights.ended(ended, 3, "completed", "")


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
    pdo.flights.ended(1, 3, "ended", "")
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
    finished(system.store.put_executor(executor("payer", RULE)))
    pdo.beat(0, 2)
    await wait_until(lambda: system.started == ["1"])


async def test_a_route_that_another_replica_recorded_lets_waiting_tasks_go_on(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    finished(system.store.put_route(route("payer", source="llm")))
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


async def test_a_pdo_that_stops_hands_back_tasks_whose_route_is_open(system):
    pdo = system.start(executor("payer"), router=LLM)
    system.offer(1)
    await system.all_wait(1)
    pdo.stop()
    await pdo.hand_back()
    assert system.engine.reports == [("fail", 1, "the PDO was stopped", 3, 0)]


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
    pdo.flights.ended(1, 3, "ended", "")
    pdo.beat(0, 2)
    system.offer(2)
    await system.all_wait(2)
    assert len(system.asked) == 2, "the second request is that of the second task"
