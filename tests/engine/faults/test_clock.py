"""Clocks that are set while everything runs."""

from __future__ import annotations

import time
from pathlib import Path

from engine.faults.extent import FEWER, new_seed, settle
from engine.faults.fleet import Fleet
from engine.faults.shim import Shim

HOUR = 3600.0

BACK = 20.0
"""Seconds by which the clock is set back. What waits for a lease, a back-off or a timer then waits so much longer."""


def test_a_clock_that_is_set_ends_leases_early_or_late_and_makes_no_second_result(tmp_path: Path) -> None:
    shim = Shim(tmp_path)
    with Fleet(tmp_path, new_seed(), environment=shim.environment) as fleet:
        fleet.load(FEWER, work=0.3)
        fleet.steps.append(time.monotonic())
        shim.set_clock(HOUR)
        fleet.wait_for_beats(3)
        settle(fleet)

        fleet.load(FEWER, work=0.3)
        shim.set_clock(HOUR - BACK)
        fleet.wait_for_beats(3)
        findings = settle(fleet)
    print(f"{findings.repeated} executions were repeated")


def test_the_clocks_of_pdo_and_workers_do_not_matter(tmp_path: Path) -> None:
    shim = Shim(tmp_path)
    with Fleet(tmp_path, new_seed(), environment=shim.environment) as fleet:
        for pdo, worker in ((HOUR, -HOUR), (-HOUR, HOUR)):
            fleet.load(FEWER // 2)
            shim.set_clock(pdo, "pdo")
            shim.set_clock(worker, "worker")
            fleet.wait_for_beats(3)
        findings = settle(fleet)
    assert findings.repeated == 0
