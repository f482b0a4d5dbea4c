from __future__ import annotations

from prokos.pdo.journal import Journal
from prokos.router import Decision
from unit.builders import task

RULE = Decision("payer", "rule", "spec.accepts[0]: jobType=pay")


def test_shows_the_newest_tasks_first():
    journal = Journal()
    for key in (1, 2, 3):
        journal.seen(task(key), 0)
    assert [entry["job"] for entry in journal.latest(2)] == ["3", "2"]


def test_shows_nothing_when_nothing_is_asked_for():
    journal = Journal()
    journal.seen(task(1), 0)
    assert journal.latest(0) == []


def test_forgets_the_oldest_tasks():
    journal = Journal(kept=2)
    for key in (1, 2, 3):
        journal.seen(task(key), 0)
    assert [entry["job"] for entry in journal.latest(10)] == ["3", "2"]


def test_a_task_that_is_seen_again_is_the_newest_and_starts_anew():
    journal = Journal(kept=2)
    journal.seen(task(1), 0)
    journal.update(1, "failed", message="card declined")
    journal.seen(task(2), 0)
    journal.seen(task(1, retries=2), 1)
    journal.seen(task(3), 1)
    latest = journal.latest(10)
    assert [(entry["job"], entry["state"]) for entry in latest] == [("3", "tagged"), ("1", "tagged")]
    assert latest[1]["retries"] == 2


def test_keys_are_text_because_they_exceed_what_numbers_of_json_readers_hold():
    journal = Journal()
    journal.seen(task(9007199254740993, process_instance_key=9007199254740995), 0)
    (entry,) = journal.latest(1)
    assert (entry["job"], entry["instance"]) == ("9007199254740993", "9007199254740995")


def test_says_where_a_task_went_and_why():
    journal = Journal()
    journal.seen(task(1), 0)
    journal.update(1, "dispatched", decision=RULE)
    (entry,) = journal.latest(1)
    assert (entry["executor"], entry["source"], entry["reason"]) == ("payer", "rule", RULE.reason)
    assert entry["ended"] is None


def test_says_when_a_task_ended():
    journal = Journal()
    journal.seen(task(1), 0)
    journal.update(1, "dispatched", decision=RULE)
    journal.update(1, "completed")
    (entry,) = journal.latest(1)
    assert entry["ended"] >= entry["seen"]
    assert entry["executor"] == "payer"


def test_counts_go_on_for_tasks_that_are_forgotten():
    journal = Journal(kept=1)
    for key in (1, 2):
        journal.seen(task(key), 0)
    journal.update(1, "completed")
    assert journal.counts == {"scanned": 2, "completed": 1}


def test_finds_the_tasks_of_a_beat():
    journal = Journal()
    for key, beat in ((1, 6), (2, 7), (3, 7), (4, 7)):
        journal.seen(task(key), beat)
    assert [entry["job"] for entry in journal.of_beat(7, 2)] == ["2", "3"]
