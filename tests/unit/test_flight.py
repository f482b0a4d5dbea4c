from __future__ import annotations

from helpers import background, wait_until
from prokos.engine import EngineUnavailableError, RejectedError, Slots
from prokos.pdo.flight import InFlight
from prokos.pdo.journal import Journal
from unit.builders import task
from unit.fake_engine import FakeEngine


class Airport:
    """Flights of one window of slots."""

    def __init__(self, lease: float = 30.0) -> None:
        self.engine = FakeEngine()
        self.journal = Journal()
        self.slots = Slots(4)
        self.flights = InFlight(self.engine, self.journal, lease)

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
    airport.flights.ended(1, "completed", "")
    assert airport.slots.used == 0
    assert 1 not in airport.flights


def test_a_hint_is_written_down():
    airport = Airport()
    airport.add(1)
    airport.flights.ended(1, "failed", "card declined")
    (entry,) = airport.journal.latest(1)
    assert (entry["state"], entry["message"]) == ("failed", "card declined")


def test_a_hint_that_comes_twice_counts_once():
    airport = Airport()
    airport.add(1)
    airport.flights.ended(1, "completed", "")
    airport.flights.ended(1, "completed", "")
    assert airport.slots.used == 0
    assert airport.journal.counts["completed"] == 1


def test_a_hint_for_a_task_of_another_pdo_does_not_matter():
    airport = Airport()
    airport.flights.ended(99, "completed", "")
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


async def test_keeps_the_leases_of_tasks_in_flight():
    airport = Airport(lease=0.1)
    airport.add(1)
    async with background(airport.flights.keep_leases(tick=0.01)):
        await wait_until(lambda: airport.engine.named("extend"))
    assert airport.engine.commands[0] == ("extend", 1, 0.1)
    assert airport.slots.used == 1


async def test_does_not_renew_a_lease_that_is_still_long():
    airport = Airport(lease=0.1)
    airport.add(1)
    long = Airport(lease=60)
    long.add(2)
    async with background(airport.flights.keep_leases(tick=0.01)), background(long.flights.keep_leases(tick=0.01)):
        await wait_until(lambda: airport.engine.named("extend"))
    assert long.engine.commands == []


async def test_a_task_that_the_engine_no_longer_has_gives_its_slot_back():
    airport = Airport(lease=0.1)
    airport.add(1)
    airport.engine.gone.add(1)
    async with background(airport.flights.keep_leases(tick=0.01)):
        await wait_until(lambda: airport.slots.used == 0)
    assert airport.journal.latest(1)[0]["state"] == "ended"


async def test_a_task_that_waits_for_its_next_attempt_gives_its_slot_back():
    airport = Airport(lease=0.1)
    airport.add(1)
    airport.engine.refusals["extend"] = RejectedError("it is not active")
    async with background(airport.flights.keep_leases(tick=0.01)):
        await wait_until(lambda: airport.slots.used == 0)


async def test_a_renewal_that_fails_is_tried_again():
    airport = Airport(lease=0.1)
    airport.add(1)
    airport.engine.hiccups["extend"] = [EngineUnavailableError("away")]
    async with background(airport.flights.keep_leases(tick=0.01)):
        await wait_until(lambda: airport.engine.named("extend"))
    assert airport.slots.used == 1
