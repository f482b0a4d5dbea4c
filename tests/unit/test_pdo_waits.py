"""The wait between two attempts of a task, which the PDO keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from helpers import wait_until
from prokos.engine import Job, NotFoundError
from prokos.pdo import service
from prokos.tde.next_attempt import Waits, split_wait, wait_before
from unit.builders import executor, job
from unit.fake_engine import FakeEngine
from unit.pdo_bench import System


def failed(key: int, seconds: float, *, retries: int = 2, said: int = 2) -> Job:
    """A job that is offered again after it has failed with so many retries left."""
    variables = {"amount": 12345678901234567890, **wait_before(said, seconds)}
    return replace(job(key, retries=retries), raw_variables=json.dumps(variables))


def test_a_task_is_given_its_own_variables_only():
    given, seconds = split_wait(failed(1, 2.5))
    assert seconds == 2.5
    assert json.loads(given.raw_variables) == {"amount": 12345678901234567890}


def test_what_an_earlier_attempt_was_failed_with_does_not_count():
    given, seconds = split_wait(failed(1, 2.5, retries=3, said=2))
    assert seconds == 0
    assert "prokosWait" not in given.raw_variables


STRANGE = [{"retries": 3, "seconds": wrong} for wrong in ("x", None, [], -1, 1e10, float("inf"), float("nan"))]


@pytest.mark.parametrize("own", [7, "soon", {"seconds": 1}, [1], None, *STRANGE])
def test_a_variable_of_the_processs_own_stays(own):
    mine = replace(job(1), raw_variables=json.dumps({"prokosWait": own}))
    assert split_wait(mine) == (mine, 0.0)


def test_an_incident_and_no_wait_need_no_variable():
    assert wait_before(0, 5.0) == wait_before(2, 0.0) == {}


def test_a_wait_of_a_thousand_years_is_one_of_ours():
    given, seconds = split_wait(failed(1, 3.2e10))
    assert seconds == 1e9
    assert "prokosWait" not in given.raw_variables


class Recording(FakeEngine):
    """Keeps the variables that jobs are failed with."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Any] = []

    async def fail_job(self, key, message, *, retries, variables=None):
        self.left.append(variables)
        await super().fail_job(key, message, retries=retries, variables=variables)


async def test_a_wait_that_is_over_is_over_for_everybody():
    # However long it was: who kept it has forgotten, and it may be another process that is offered the job.
    engine = Recording()
    waiting, seconds = split_wait(failed(1, 0.01))
    Waits(engine, 30.0).keep(waiting, seconds, "over")
    await wait_until(lambda: engine.left)
    # The engine keeps the variables of the failure before, unless they are said anew.
    kept = {"amount": 1, **wait_before(2, 3600.0), **engine.left[0]}
    offered = replace(waiting, raw_variables=json.dumps(kept))
    given, seconds = split_wait(offered)
    assert seconds == 0
    assert Waits(engine, 30.0).is_due(given, seconds)
    assert json.loads(given.raw_variables) == {"amount": 1}


async def test_a_short_wait_is_kept_here(tmp_path):
    system = System(tmp_path)
    pdo = system.start(executor("payer", {"jobType": "pay"}))
    system.engine.offer(failed(1, 2.0), job(2))
    await wait_until(lambda: system.started == ["2"])
    assert pdo.journal.latest(2)[1]["state"] == "waiting"
    assert pdo.journal.latest(2)[1]["message"] == "next attempt in 2 s"
    await wait_until(lambda: system.started == ["2", "1"])
    assert system.engine.named("extend") == []
    assert all("prokosWait" not in str(command) for command in system.engine.commands)
    pdo.stop()


async def test_a_long_wait_takes_no_slot(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "HELD_SHARE", 1000)
    system = System(tmp_path)
    pdo = system.start(executor("payer", {"jobType": "pay"}))
    system.engine.offer(failed(1, 0.3))
    await wait_until(lambda: system.engine.named("extend") == [("extend", 1, 0.3 + pdo.lease)])
    assert len(pdo.flights) == 0
    # Its job is offered again by failing it, because the engine may miss the end of a lease.
    over = ("fail", 1, "the wait before the next attempt is over", 2, 0)
    await wait_until(lambda: system.engine.reports == [over])
    assert system.started == []
    # That is the attempt, and so is an offer after a lease that is lost.
    system.engine.offer(failed(1, 0.3))
    await wait_until(lambda: system.started == ["1"])
    pdo.stop()


async def test_a_pdo_that_stops_hands_back_what_waits_without_a_slot(tmp_path):
    system = System(tmp_path)
    pdo = system.start(executor("payer", {"jobType": "pay"}))
    system.engine.offer(failed(1, 300.0))
    await wait_until(lambda: system.engine.named("extend"))
    pdo.stop()
    await pdo.hand_back()
    ((name, key, _, retries, left),) = system.engine.reports
    assert (name, key, retries) == ("fail", 1, 2)
    assert 290 < left <= 300.0


async def test_a_pdo_that_stops_hands_back_what_it_holds(tmp_path):
    system = System(tmp_path)
    pdo = system.start(executor("payer", {"jobType": "pay"}))
    system.engine.offer(failed(1, 5.0))
    await wait_until(lambda: pdo.journal.counts["waiting"] == 1)
    pdo.stop()
    await pdo.hand_back()
    ((name, key, message, retries, left),) = system.engine.reports
    assert (name, key, message, retries) == ("fail", 1, "the PDO was stopped", 2)
    assert 0 < left <= 5.0
    assert system.started == []


async def test_a_task_that_ends_while_it_waits_is_let_go(tmp_path):
    system = System(tmp_path)
    pdo = system.start(executor("payer", {"jobType": "pay"}))
    system.engine.refusals["extend", 1] = NotFoundError("no such job")
    system.engine.offer(failed(1, 300.0), job(2))
    await wait_until(lambda: system.started == ["2"])
    pdo.stop()


@pytest.mark.parametrize("hint_first", [True, False])
async def test_the_list_says_why_a_task_waits(tmp_path, hint_first):
    system = System(tmp_path)
    pdo = system.start(executor("payer", {"jobType": "pay"}))
    system.engine.offer(job(1))
    await wait_until(lambda: system.started == ["1"])
    if hint_first:
        pdo.flights.ended(1, 3, "failed", "card declined")
    system.engine.offer(failed(1, 5.0))
    await wait_until(lambda: pdo.journal.counts["waiting"] == 1)
    if not hint_first:
        pdo.flights.ended(1, 3, "failed", "card declined")
    assert pdo.journal.latest(1)[0]["message"] == "card declined (next attempt in 5 s)"
    pdo.stop()
