"""How many workers run."""

from __future__ import annotations

import pytest

from prokos.k8s.scaling import CALM, Scale, decide_scale
from unit.builders import executor


def elastic(**more):
    return executor(scaling={"min": 0, "max": 5}, concurrency=4, **more)


@pytest.mark.parametrize(("backlog", "replicas"), [(0, 0), (1, 1), (4, 1), (5, 2), (20, 5), (1000, 5)])
def test_as_many_as_run_the_backlog_at_once(backlog, replicas):
    assert decide_scale(elastic(), backlog, None, 0.0) == Scale(replicas)


def test_more_come_at_once_and_fewer_after_a_calm():
    busy = decide_scale(elastic(), 20, Scale(1), 0.0)
    assert busy == Scale(5)
    calm = decide_scale(elastic(), 0, busy, 10.0)
    assert calm == Scale(5, 10.0)
    assert decide_scale(elastic(), 0, calm, 9.0 + CALM) == Scale(5, 10.0)
    assert decide_scale(elastic(), 0, calm, 10.0 + CALM) == Scale(0)


def test_a_burst_ends_the_calm():
    calm = Scale(2, 10.0)
    assert decide_scale(elastic(), 8, calm, 20.0) == Scale(2)


def test_a_person_or_an_autoscaler_overrules_the_backlog():
    assert decide_scale(elastic(replicas=7), 0, Scale(1), 0.0) == Scale(7)


def test_a_smaller_maximum_holds_at_once():
    assert decide_scale(elastic(), 99, Scale(9), 0.0).replicas == 5
