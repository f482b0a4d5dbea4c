"""A machine whose disk is slow, and whose clock is set while everything runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.faults.extent import FEWER, new_seed, settle
from engine.faults.fleet import Fleet
from engine.faults.shim import Shim

SLOWER = 0.02
"""Seconds that each write of the engine takes longer, as on a hard disk: 50 writes a second. A task takes about ten."""

HOUR = 3600.0

BACK = 20.0
"""Seconds by which the clock is set back. What waits for a lease, a back-off or a timer then waits so much longer."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="module")
def shim(directory: Path) -> Shim:
    return Shim(directory)


@pytest.fixture(scope="module")
def fleet(directory: Path, shim: Shim) -> Iterator[Fleet]:
    with Fleet(directory, new_seed(), environment=shim.environment) as system:
        yield system


def test_a_slow_disk_delays_tasks_and_loses_none(fleet: Fleet, shim: Shim) -> None:
    shim.slow_disk(SLOWER)
    fleet.load(FEWER // 3)
    fleet.wait_for_beats(1)
    waited = shim.syncs
    shim.slow_disk(0)
    settle(fleet)
    print(f"the engine waited {waited} times for its disk")
    assert waited > 20


def test_the_clocks_of_pdo_and_workers_do_not_matter(fleet: Fleet, shim: Shim) -> None:
    before = fleet.check().repeated
    for pdo, worker in ((HOUR, -HOUR), (-HOUR, HOUR), (0, 0)):
        fleet.load(FEWER // 2)
        shim.set_clock(pdo, "pdo")
        shim.set_clock(worker, "worker")
        fleet.wait_for_beats(2)
    assert settle(fleet).repeated == before


def test_a_clock_that_is_set_ends_leases_early_or_late_and_makes_no_second_result(fleet: Fleet, shim: Shim) -> None:
    before = fleet.check().repeated
    fleet.load(FEWER, work=0.3)
    fleet.steps.append(time.monotonic())
    shim.set_clock(HOUR)
    fleet.wait_for_beats(3)
    settle(fleet)

    fleet.load(FEWER, work=0.3)
    shim.set_clock(HOUR - BACK)
    fleet.wait_for_beats(3)
    print(f"{settle(fleet).repeated - before} executions were repeated")
