"""What is promised holds when processes are killed and paused: real broker, real processes, a ledger beside ProkOS.

`PROKOS_FAULT_INSTANCES` says how many instances each fault meets, `PROKOS_FAULT_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.faults.fleet import BEAT_WITHIN, ELEMENTS, Fleet

INSTANCES = int(os.environ.get("PROKOS_FAULT_INSTANCES", "100"))
SETTLE = 60 + INSTANCES
"""Seconds the instances may take to end after a fault; a busy machine takes long."""


def new_seed() -> int:
    return int(os.environ.get("PROKOS_FAULT_SEED", random.SystemRandom().randrange(10**6)))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("faults"), new_seed()) as system:
        yield system


def load(fleet: Fleet) -> None:
    """Start the instances, and wait until a random part of their tasks was executed."""
    fleet.start(INSTANCES)
    fleet.wait_for_executions(int(INSTANCES * fleet.random.uniform(0.5, 3)))


def assert_sound(fleet: Fleet) -> None:
    findings = fleet.settle(SETTLE)
    assert not findings.problems, f"seed {fleet.seed}: {findings}\n{fleet.dev.logs()}"


def test_a_killed_pdo_delays_tasks_and_loses_none(fleet: Fleet) -> None:
    load(fleet)
    (pid,) = fleet.processes("prokos.pdo")
    killed = fleet.kill(pid)
    took = fleet.wait_for_beat(killed)
    print(f"the heartbeat was back {took:.1f} s after the kill of the PDO")
    assert_sound(fleet)
    assert took < BEAT_WITHIN


def test_a_killed_worker_has_its_tasks_executed_again(fleet: Fleet) -> None:
    load(fleet)
    fleet.kill(fleet.random.choice(fleet.processes("prokos.tde")))
    assert_sound(fleet)


def test_a_killed_broker_goes_on_from_its_state(fleet: Fleet) -> None:
    load(fleet)
    (pid,) = fleet.processes("java")
    killed = fleet.kill(pid)
    took = fleet.wait_for_beat(killed + 0.2)
    print(f"the heartbeat was back {took:.1f} s after the kill of the broker")
    assert_sound(fleet)
    assert took < BEAT_WITHIN
