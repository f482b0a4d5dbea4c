"""How many workers run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from prokos.k8s.scaling import Scale, decide_scale
from unit.builders import executor


def elastic(cooldown="60s", **more):
    return executor(scaling={"min": 0, "max": 5, "cooldown": cooldown}, concurrency=4, **more)


@pytest.mark.parametrize(("backlog", "replicas"), [(0, 0), (1, 1), (4, 1), (5, 2), (20, 5), (1000, 5)])
def test_as_many_as_run_the_backlog_at_once(backlog, replicas):
    assert decide_scale(elastic(), backlog, None, 0.0) == Scale(replicas)


def test_the_cooldown_is_a_minute_by_default():
    assert executor().spec.scaling.cooldown == timedelta(minutes=1)


@pytest.mark.parametrize(("cooldown", "seconds"), [("60s", 60), ("5s", 5), ("1h", 3600)])
def test_more_come_at_once_and_fewer_after_the_cooldown(cooldown, seconds):
    one = elastic(cooldown)
    busy = decide_scale(one, 20, Scale(1), 0.0)
    assert busy == Scale(5)
    fewer = decide_scale(one, 0, busy, 10.0)
    assert fewer == Scale(5, 10.0)
    assert decide_scale(one, 0, fewer, 9.0 + seconds) == Scale(5, 10.0)
    assert decide_scale(one, 0, fewer, 10.0 + seconds) == Scale(0)


def test_without_a_cooldown_fewer_are_left_at_once():
    assert decide_scale(elastic("0s"), 0, Scale(5), 10.0) == Scale(0)


def test_a_burst_ends_the_cooldown():
    fewer = Scale(2, 10.0)
    assert decide_scale(elastic(), 8, fewer, 20.0) == Scale(2)


def test_a_person_or_an_autoscaler_overrules_the_backlog():
    assert decide_scale(elastic(replicas=7), 0, Scale(1), 0.0) == Scale(7)


def test_a_smaller_maximum_holds_at_once():
    assert decide_scale(elastic(), 99, Scale(9), 0.0).replicas == 5
