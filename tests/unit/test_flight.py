from __future__ import annotations

import time

from helpers import background, wait_until
from prokos.engine import Slots
from prokos.pdo.flight import NOTICED, InFlight
from prokos.pdo.journal import Journal
from unit.builders import task


class Airport:
    """Flights of one window of slots."""

    def __init__(self, lease: float = 30.0) -> None:
        self.journal = Journal()
        self.slots = Slots(4)
        self.flights = InFlight(self.journal, lease)

    def add(self, key: int = 1, **changes):
        """Take a slot and a task, as a scan does."""
        taken = task(key, **changes)
        self.slots.take()
        self.journal.seen(taken, 0)
        self.flights.add(taken, self.slots)
        return taken


def test_a_hint_gives_the_slot_back():
    airport = Airport()
    airport.add(1)
    airport.flights.ended(1, 3, "completed", "")
    assert airport.slots.used == 0
    assert 1 not in airport.flights


def test_a_hint_is_written_down():
    airport = Airport()
    airport.add(1)
    airport.flights.ended(1, 3, "failed", "card declined")
    (entry,) = airport.journal.latest(1)
    assert (entry["state"], entry["message"]) == ("failed", "card declined")


def test_a_hint_that_comes_twice_gives_one_slot_back():
    airport = Airport()
    airport.add(1)
    airport.flights.ended(1, 3, "completed", "")
    airport.flights.ended(1, 3, "completed", "")
    assert airport.slots.used == 0


def test_a_hint_for_a_task_of_another_pdo_does_not_matter():
    airport = Airport()
    airport.flights.ended(99, 3, "completed", "")
    assert airport.slots.used == 0


def test_a_task_that_is_offered_again_keeps_one_slot():
    airport = Airport()
    airport.add(1)
    airport.add(1)
    assert (airport.slots.used, len(airport.flights)) == (1, 1)
    airport.flights.remove(1)
    assert airport.slots.used == 0


def test_only_the_latest_offer_of_a_task_is_held():
    airport = Airport()
    first, second = airport.add(1, deadline=1), airport.add(1, deadline=2)
    assert not airport.flights.holds(first)
    assert airport.flights.holds(second)


def test_assigning_an_executor_changes_no_slot():
    airport = Airport()
    taken = airport.add(1)
    airport.flights.assign(taken, "payer")
    assert airport.slots.used == 1
    assert airport.flights.by_executor() == {"payer": 1}


def test_an_earlier_offer_is_assigned_to_nobody():
    airport = Airport()
    first, second = airport.add(1), airport.add(1)
    airport.flights.assign(second, "payer")
    airport.flights.assign(first, "other")
    assert airport.flights.by_executor() == {"payer": 1}


def test_counts_tasks_by_executor():
    airport = Airport()
    for key, name in enumerate(["payer", "shipper", "payer"]):
        airport.flights.assign(airport.add(key), name)
    airport.add(9)
    assert airport.flights.by_executor() == {"payer": 2, "shipper": 1, "": 1}


def test_a_hint_of_an_earlier_attempt_does_not_end_the_next_one():
    airport = Airport()
    airport.add(1, retries=3)
    airport.add(1, retries=2)
    airport.flights.ended(1, 3, "failed", "card declined")
    assert airport.slots.used == 1
    assert airport.journal.latest(1)[0]["state"] == "tagged"
    assert airport.journal.counts["failed"] == 1


def test_a_task_gives_its_slot_back_when_the_engine_offers_it_again():
    airport = Airport(lease=30)
    airport.add(1)
    now = time.monotonic()
    airport.flights.drop_expired(now + 30 + NOTICED - 1)
    assert airport.slots.used == 1
    airport.flights.drop_expired(now + 30 + NOTICED + 1)
    assert airport.slots.used == 0
    assert 1 not in airport.flights


async def test_leases_are_watched_all_the_time():
    airport = Airport(lease=0.02 - NOTICED)
    async with background(airport.flights.expire(tick=0.01)):
        for key in (1, 2):
            airport.add(key)
            await wait_until(lambda: airport.slots.used == 0)
