"""What is promised holds when processes are killed and paused: real broker, real processes, a ledger beside ProkOS.

`PROKOS_FAULT_INSTANCES` says how many instances a kill meets, `PROKOS_FAULT_SEED` repeats a run's choices.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.devsystem import START_TIMEOUT, wait_until
from engine.faults.extent import FEWER, INSTANCES, new_seed, settle
from engine.faults.fleet import BEAT_WITHIN, Fleet
from engine.faults.replicas import Replica, metric, running_engine
from prokos.tde.lease import KEEP_SHARE, TDE_LEASE, VERIFY_AFTER_MS

PDO_LEASE = 8.0

RESTARTED_WITHIN = 3.0
"""Seconds from a kill until there is a new process; the first restart is to come at once."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("faults"), new_seed(), lease=f"{PDO_LEASE:g}s") as system:
        yield system


def test_a_killed_pdo_delays_tasks_and_loses_none(fleet: Fleet) -> None:
    fleet.load(INSTANCES)
    (pid,) = fleet.processes("prokos.pdo")
    killed = fleet.kill(pid)
    began, answered = fleet.wait_for_new("prokos.pdo", pid)
    took = fleet.wait_for_beat(killed)
    print(f"a new PDO began after {began - killed:.1f} s, and was there after {answered - began:.1f} s more")
    print(f"the heartbeat was back {took:.1f} s after the kill of the PDO")
    settle(fleet)
    assert began - killed < RESTARTED_WITHIN
    # How long Python takes to start is the machine's: half a second, and half a minute on one with a load of 25.
    assert took - (answered - began) < BEAT_WITHIN


def test_a_killed_worker_has_its_tasks_executed_again(fleet: Fleet) -> None:
    fleet.load(INSTANCES)
    victim, killed = fleet.kill_at_work()
    took = fleet.wait_for_beat(killed)
    settle(fleet)
    assert took < BEAT_WITHIN
    cut = {one.job for one in fleet.executions() if one.pid == victim and one.how == "killed"}
    again = {one.job for one in fleet.executions() if one.pid != victim and one.how == "end"}
    print(f"{len(cut)} executions were cut short")
    assert cut
    assert cut <= again


def test_a_killed_broker_goes_on_from_its_state(fleet: Fleet) -> None:
    fleet.load(INSTANCES)
    (pid,) = fleet.processes("java")
    starts = fleet.dev.output.count("the engine is ready again")
    killed = fleet.kill(pid)
    wait_until(
        lambda: fleet.dev.output.count("the engine is ready again") > starts,
        timeout=START_TIMEOUT,
        describe=fleet.dev.logs,
    )
    start = time.time() - killed
    # What the PDO noted just before the kill does not count.
    took = fleet.wait_for_beat(killed + 0.2) + 0.2
    print(f"after the kill of the broker the engine worked again in {start:.1f} s, the heartbeat in {took:.1f} s")
    settle(fleet)
    # Java's start and the replay of the log take as long as the machine is busy; what comes after them is ours.
    assert took - start < BEAT_WITHIN


def test_a_pdo_paused_beyond_its_leases_dispatches_nothing_twice(fleet: Fleet) -> None:
    fleet.load(FEWER)
    (pid,) = fleet.processes("prokos.pdo")
    fleet.pause(pid, PDO_LEASE * 1.5)
    took = fleet.wait_for_beat(time.time())
    before = fleet.check().repeated
    assert settle(fleet).repeated == before
    assert took < BEAT_WITHIN


def test_two_pdos_at_once_execute_nothing_twice(fleet: Fleet) -> None:
    before = fleet.check().repeated
    with Replica(fleet.dev) as replica:
        taken = (fleet.status() or {})["counts"].get("dispatched", 0)
        fleet.load(FEWER)
        (pid,) = fleet.processes("prokos.pdo")
        # One of them sleeps beyond its leases while the other works, then both work on.
        fleet.pause(pid, PDO_LEASE * 1.5)
        fleet.load(FEWER // 2)
        findings = settle(fleet)
        assert replica.status()["counts"]["dispatched"] > 0
        assert (fleet.status() or {})["counts"]["dispatched"] > taken
    assert findings.repeated == before


def test_a_worker_paused_beyond_its_lease_makes_no_second_result(fleet: Fleet) -> None:
    before = fleet.check().repeated
    fleet.load(FEWER, work=0.3)
    pause = fleet.pause_at_work(TDE_LEASE + 6)
    findings = settle(fleet)
    late = [
        one
        for one in fleet.executions()
        if one.pid == pause.pid and one.started < pause.begin and one.ended > pause.begin + TDE_LEASE
    ]
    print(f"{len(late)} executions went on after the pause: {[one.how for one in late]}")
    assert late
    assert findings.repeated > before


def test_a_cancelled_instance_stops_its_executions(fleet: Fleet) -> None:
    executed = len(fleet.executions())
    started = fleet.start(FEWER // 2, work=60)
    fleet.wait_for_executions(executed + FEWER // 4)
    cancelled_at = time.monotonic()
    assert fleet.cancel(started) == started
    wait_until(lambda: not any(one.how == "running" for one in fleet.executions()), timeout=60, describe=fleet.dev.logs)
    settle(fleet)
    of_them = [one for one in fleet.executions() if one.instance in started]
    assert {one.how for one in of_them} == {"stopped"}
    print(f"the last execution stopped {max(one.ended for one in of_them) - cancelled_at:.1f} s after the cancel")
    # A TDE that waited for a worker may still begin, and learns that its task is gone at its first renewal.
    assert max(one.started for one in of_them) - cancelled_at < VERIFY_AFTER_MS / 1000 + 2
    assert max(one.ended - max(one.started, cancelled_at) for one in of_them) < TDE_LEASE / KEEP_SHARE + 3


def test_an_engine_that_refuses_most_commands_delays_them(tmp_path: Path) -> None:
    limit = {"ZEEBE_BROKER_BACKPRESSURE_ALGORITHM": "fixed", "ZEEBE_BROKER_BACKPRESSURE_FIXED_LIMIT": "1"}
    with running_engine(tmp_path, limit) as engine, Fleet(tmp_path, new_seed(), engine=engine.address) as fleet:
        fleet.load(FEWER // 2)
        settle(fleet)
        refused = metric(engine, "zeebe_dropped_request_count_total")
        print(f"the engine refused {refused:.0f} commands")
        assert refused > FEWER
