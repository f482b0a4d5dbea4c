"""Which jobs the PDO remembers to have taken."""

from __future__ import annotations

from prokos.engine.taken import KEPT, REMEMBERED, Taken


def test_knows_a_job_that_was_taken():
    taken = Taken(0)
    taken.add(1, 10)
    assert 1 in taken
    assert 2 not in taken


def test_remembers_a_job_for_its_time_and_forgets_it_later():
    taken = Taken(0)
    taken.add(1, REMEMBERED - 1)
    taken.add(2, 2 * REMEMBERED - 2)
    assert 1 in taken
    taken.add(3, 3 * REMEMBERED)
    assert 1 not in taken
    assert 2 in taken


def test_remembers_a_limited_number_whatever_the_time():
    taken = Taken(0)
    for key in range(2 * KEPT):
        taken.add(key, 1)
    remembered = sum(key in taken for key in range(2 * KEPT))
    assert KEPT // 2 <= remembered <= KEPT
    assert 2 * KEPT - 1 in taken
