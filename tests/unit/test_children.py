"""The supervisor's children: real processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from helpers import wait_until
from prokos.dev import children as module
from prokos.dev.children import CONFIG_ERROR, Children, ChildSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LASTING = "echo $$ >> pids; exec sleep 600"
STUBBORN = "trap '' TERM; echo $$ >> pids; while :; do sleep 0.05; done"
ORDERLY = "trap 'ending=1' TERM; echo $$ >> pids; until [ \"$ending\" ] && [ -e release ]; do sleep 0.02; done"
"""Ends on SIGTERM, but only when there is a file `release`."""


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    made = Children()
    yield made
    async with asyncio.timeout(20):
        await made.close()


def spec(directory: Path, script: str, **changes: Any) -> ChildSpec:
    values: dict[str, Any] = {
        "name": "one",
        "argv": ("/bin/sh", "-c", script),
        "environment": {"PATH": os.environ["PATH"]},
        "directory": directory,
        "log_file": directory / "logs" / "one.log",
        "revision": "1",
        "grace": 10.0,
    }
    return ChildSpec(**{**values, **changes})


def pids(directory: Path) -> list[int]:
    """Processes that have written themselves down."""
    path = directory / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def started(directory: Path, count: int = 1) -> int:
    """Wait until so many processes have written themselves down; the last one's pid."""
    return (await wait_until(lambda: (found := pids(directory)) and len(found) >= count and found))[count - 1]


async def test_runs_what_is_declared_as_it_is_declared(children, tmp_path):
    script = "echo $GREETING; pwd; env | wc -l; " + LASTING
    children.ensure(spec(tmp_path, script, environment={"PATH": os.environ["PATH"], "GREETING": "hello"}))
    await started(tmp_path)
    greeting, directory, variables = (tmp_path / "logs" / "one.log").read_text().split()
    assert greeting == "hello"
    assert directory == str(tmp_path)
    assert int(variables) <= 6, "PATH, GREETING and what the shell adds"
    child = children.get("one")
    assert child is not None
    assert child.running
    assert children.names() == ["one"]


async def test_a_child_that_crashes_is_started_again_after_longer_and_longer_waits(children, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESTART_DELAYS", (0.05, 0.2, 0.4))
    times = tmp_path / "times"
    children.ensure(spec(tmp_path, "date +%s%N >> times; exit 3"))
    await wait_until(lambda: times.exists() and len(times.read_text().split()) == 5)
    at = [int(nanoseconds) / 1e9 for nanoseconds in times.read_text().split()]
    waits = [after - before for before, after in pairwise(at)]
    for waited, least in zip(waits, (0.05, 0.2, 0.4, 0.4), strict=True):
        assert waited >= least
    child = children.get("one")
    assert child is not None
    assert child.restarts >= 4
    assert child.message == f"ended with exit code 3; see {tmp_path}/logs/one.log"


async def test_a_child_that_ran_well_for_a_while_starts_from_the_shortest_wait_again(children, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESTART_DELAYS", (0.01, 600.0))
    monkeypatch.setattr(module, "STEADY", 0.0)
    children.ensure(spec(tmp_path, "echo $$ >> pids; exit 3"))
    await started(tmp_path, 4)


async def test_a_child_that_is_configured_wrong_is_tried_again_seldom(children, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESTART_DELAYS", (0.0, 600.0))
    children.ensure(spec(tmp_path, f"exit {CONFIG_ERROR}", name="wrong"))
    children.ensure(spec(tmp_path, "exit 1", name="unlucky"))
    wrong, unlucky = children.get("wrong"), children.get("unlucky")
    assert wrong is not None
    assert unlucky is not None
    await wait_until(lambda: wrong.restarts and unlucky.restarts == 2)
    assert wrong.restarts == 1


async def test_a_child_that_cannot_be_started_is_tried_again(children, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESTART_DELAYS", (0.02,))
    home = tmp_path / "home"
    children.ensure(spec(home, LASTING, log_file=tmp_path / "one.log"))
    child = await wait_until(lambda: (child := children.get("one")) and child.restarts and child)
    assert "cannot be started" in child.message
    home.mkdir()
    await started(home)


async def test_a_child_of_the_same_revision_is_left_alone(children, tmp_path):
    children.ensure(spec(tmp_path, LASTING))
    await started(tmp_path)
    before = children.get("one")
    children.ensure(spec(tmp_path, LASTING))
    assert children.get("one") is before


async def test_a_child_of_another_revision_takes_over_while_the_old_one_ends_what_it_does(children, tmp_path):
    children.ensure(spec(tmp_path, ORDERLY))
    old = await started(tmp_path)
    children.ensure(spec(tmp_path, LASTING, revision="2"))
    new = await started(tmp_path, 2)
    assert alive(old)
    (tmp_path / "release").touch()
    await wait_until(lambda: not alive(old))
    assert alive(new)
    assert children.names() == ["one"]


async def test_a_child_that_is_removed_ends_and_is_not_started_again(children, tmp_path):
    children.ensure(spec(tmp_path, LASTING))
    pid = await started(tmp_path)
    children.remove("one")
    await wait_until(lambda: not alive(pid))
    await children.close()
    assert children.names() == []
    assert pids(tmp_path) == [pid]


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(children, tmp_path):
    children.ensure(spec(tmp_path, STUBBORN, grace=0.3))
    pid = await started(tmp_path)
    asked = time.monotonic()
    await children.close()
    assert time.monotonic() - asked >= 0.3
    assert not alive(pid)


async def test_closing_ends_all_children_also_those_that_are_being_replaced(children, tmp_path):
    (tmp_path / "release").touch()
    children.ensure(spec(tmp_path, ORDERLY))
    await started(tmp_path)
    children.ensure(spec(tmp_path, LASTING, revision="2"))
    children.ensure(spec(tmp_path, LASTING, name="two"))
    await started(tmp_path, 3)
    await children.close()
    assert not any(alive(pid) for pid in pids(tmp_path))


async def test_closing_does_not_wait_for_a_child_that_waits_for_its_restart(children, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESTART_DELAYS", (600.0,))
    children.ensure(spec(tmp_path, "exit 1"))
    await wait_until(lambda: (child := children.get("one")) and child.restarts)
    async with asyncio.timeout(5):
        await children.close()


async def test_what_a_child_leaves_behind_goes_with_it(children, tmp_path):
    children.ensure(spec(tmp_path, "sleep 600 & echo $! >> pids; echo $$ >> pids; wait"))
    await started(tmp_path, 2)
    await children.close()
    await wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from prokos.dev.children import Children, ChildSpec

async def main():
    here = Path.cwd()
    script = "echo $$ >> pids; exec sleep 600"
    Children().ensure(ChildSpec("one", ("/bin/sh", "-c", script), dict(os.environ), here, here / "one.log", "1"))
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a child with its parent")
async def test_children_die_with_a_supervisor_that_is_killed(tmp_path):
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", SUPERVISOR, cwd=tmp_path)
    try:
        child = await started(tmp_path)
        assert alive(child)
    finally:
        supervisor.kill()
        await supervisor.wait()
    await wait_until(lambda: not alive(child))
