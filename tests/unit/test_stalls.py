from __future__ import annotations

import time

from prokos.engine.stalls import AFTERMATH, STALL, Stalls


def test_what_is_read_while_nothing_stalls_was_just_sent(monkeypatch):
    clock = Clock(monkeypatch)
    stalls = Stalls()
    clock.now += STALL / 2
    assert stalls.sent_after() == clock.now


def test_what_is_read_first_after_a_stall_may_have_been_sent_when_it_began(monkeypatch):
    clock = Clock(monkeypatch)
    stalls = Stalls()
    began = clock.now
    clock.now += 30
    assert stalls.sent_after() == began


def test_what_is_read_soon_after_a_stall_may_be_as_old(monkeypatch):
    clock = Clock(monkeypatch)
    stalls = Stalls()
    began = clock.now
    clock.now += 30
    stalls.look()
    clock.now += AFTERMATH / 2
    assert stalls.sent_after() == began


def test_of_two_stalls_in_a_row_the_first_one_counts(monkeypatch):
    clock = Clock(monkeypatch)
    stalls = Stalls()
    began = clock.now
    clock.now += 30
    stalls.look()
    clock.now += STALL + 0.1
    assert stalls.sent_after() == began


def test_a_stall_is_over_in_the_end(monkeypatch):
    clock = Clock(monkeypatch)
    stalls = Stalls()
    clock.now += 30
    for _ in range(10):
        stalls.look()
        clock.now += AFTERMATH / 4
    assert stalls.sent_after() == clock.now


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
