"""A backlog that is longer than the leases of the tasks in it."""

from __future__ import annotations

import time
from pathlib import Path

from engine.devsystem import wait_until
from engine.faults.extent import FEWER, new_seed, settle
from engine.faults.fleet import ELEMENTS, Fleet

PDO_LEASE, WINDOW, AT_A_TIME, WORK = 5.0, 64, 2, 0.5
"""The executor's queue, as long as the window, takes it 8 s: every TDE starts when its task's lease was over."""


def test_a_backlog_beyond_all_leases_drains_oldest_first_and_starts_nothing_anew(tmp_path: Path) -> None:
    first = ELEMENTS[0]
    with Fleet(tmp_path, new_seed(), lease=f"{PDO_LEASE:g}s", window=WINDOW, concurrency=AT_A_TIME) as fleet:
        # Only the first task takes long, and only that one has a backlog.
        instances = fleet.start(2 * FEWER, work={first: WORK})
        begun = time.monotonic()
        wait_until(
            lambda: len({one.job for one in fleet.executions() if one.element == first}) == len(instances),
            timeout=600,
            describe=fleet.dev.logs,
        )
        took = time.monotonic() - begun
        logs = "".join(file.read_text() for file in (fleet.dev.state / "logs").glob("ledger-*.log"))
        # The other nine tasks are not what this is about.
        fleet.cancel(instances)
        findings = settle(fleet)
    started = [one.job for one in fleet.executions() if one.element == first]
    late = max(position - sorted(started).index(job) for position, job in enumerate(started))
    print(f"{len(started)} tasks in {took:.0f} s, at most {late} places late")
    assert findings.repeated == 0
    # A TDE that ended because its task's lease was over; a new one would be the last of the backlog.
    assert "it is not leased" not in logs
    # What a stream that is closed under a burst loses comes when its lease is over.
    rate = len(started) / took
    assert late <= WINDOW + rate * 2 * PDO_LEASE
