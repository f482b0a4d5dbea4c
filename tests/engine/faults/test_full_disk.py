"""A disk that is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.devsystem import wait_until
from engine.faults.extent import FEWER, new_seed, settle
from engine.faults.fleet import BEAT_WITHIN, ELEMENTS, Fleet
from prokos.engine.embedded_settings import FREE_DISK_MB

STANDSTILL = 3.0
"""Seconds without a new execution that count as a standstill."""

SMALL_DISK_MB = 900
"""Size of the disk that gets full: what an empty system writes, what the engine keeps free, and some more."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that a test can fill: in memory, and its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "prokos-test", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk; the file that takes it."""
    ballast = disk / "ballast"
    # Unbuffered: what does not fit must not come up again when the file is closed.
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            block = bytes(size)
            try:
                while True:
                    file.write(block)
            except OSError:
                continue
    return ballast


def test_a_full_disk_pauses_the_system_which_goes_on_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    # Everything of the system is on that disk, logs and registry too; only the ledger is not.
    with Fleet(small_disk, new_seed(), ledger=tmp_path / "ledger.jsonl") as fleet:
        fleet.load(FEWER)
        ballast = fill(small_disk)
        try:
            wait_until(
                lambda: "does nothing below" in fleet.dev.json("status")["engine"]["message"],
                timeout=60,
                describe=lambda: f"{shutil.disk_usage(small_disk).free} bytes free\n{fleet.dev.logs()}",
            )
            shown, checked = fleet.dev.run("status").stdout, fleet.dev.run("doctor", check=False)
            for kind in ("prokos.tde", "prokos.pdo"):
                fleet.kill(fleet.processes(kind)[0])
            standing = wait_for_standstill(fleet)
        finally:
            ballast.unlink()
        took = fleet.wait_for_beat(time.time())
        print(f"{standing} executions before; the heartbeat was back {took:.1f} s after there was room")
        settle(fleet)
        assert standing < FEWER * len(ELEMENTS)
        assert took < BEAT_WITHIN
    assert "NOT READY" in shown
    assert f"the engine does nothing below {FREE_DISK_MB} MB" in shown
    assert f"the engine does nothing below {FREE_DISK_MB} MB" in checked.stdout
    assert checked.returncode != 0


def wait_for_standstill(fleet: Fleet) -> int:
    """Wait until no execution has begun for a while; how many there were."""
    seen = [(time.monotonic(), len(fleet.executions()))]

    def stands() -> bool:
        now, count = time.monotonic(), len(fleet.executions())
        if count > seen[-1][1]:
            seen.append((now, count))
        return now - seen[-1][0] > STANDSTILL

    wait_until(stands, timeout=60, describe=lambda: f"executions go on: {seen}")
    return seen[-1][1]
