"""Tasks that workers say they execute."""

from __future__ import annotations

import time

from prokos.pdo.executing import Executed, Executing


def executed(process: str = "order", retries: int = 3, seconds: float = 20.0) -> Executed:
    return Executed(retries, "payer", process, time.monotonic() + seconds)


def test_each_task_counts_once_however_often_it_is_heard_of():
    executing = Executing()
    for key in (1, 1, 2):
        executing.heard(key, executed())
    executing.heard(3, executed("parcel"))
    assert executing.counts() == {("payer", "order"): 2, ("payer", "parcel"): 1}
    assert executing.counts(among={1, 3}) == {("payer", "order"): 1, ("payer", "parcel"): 1}


def test_the_end_of_an_earlier_attempt_does_not_end_the_next_one():
    executing = Executing()
    executing.heard(1, executed(retries=2))
    executing.ended(1, 3)
    assert executing.counts() == {("payer", "order"): 1}
    executing.ended(1, 2)
    assert not executing.counts()


def test_a_worker_that_says_nothing_any_more_executes_nothing():
    executing = Executing()
    executing.heard(1, executed(seconds=-1.0))
    executing.heard(2, executed())
    assert executing.counts() == {("payer", "order"): 1}
