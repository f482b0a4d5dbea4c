"""Work on the engine's Helm release that is broken off, or that somebody else does: nothing is left half done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.helm_release import ONE_BROKER, Release, chart, release
from helpers import wait_until

__all__ = ["chart", "release"]

pytestmark = [pytest.mark.anyio, pytest.mark.cluster, pytest.mark.timeout(900)]

OPERATOR = """
import asyncio, json, sys
from pathlib import Path
from prokos.k8s.engine_release import EngineRelease
from prokos.k8s.helm import Helm
from prokos.kube import open_client
from prokos.registry.cluster import SystemRef
from prokos.resources.helm_settings import HelmEngine

async def main(namespace, directory, settings):
    async with open_client("prokos-test") as client:
        keeper = EngineRelease(client, SystemRef(namespace, "demo", "u"), Helm(directory=Path(directory)))
        await keeper.reconcile(HelmEngine.model_validate_json(settings))

asyncio.run(main(*sys.argv[1:]))
"""


def started(release: Release, command: list[str]) -> subprocess.Popen[bytes]:
    """A program that goes on while the test looks; `release` has set the variables that lead it to the cluster."""
    return subprocess.Popen(command, env={**os.environ, "HOME": str(release.chart.parent)})


async def kill_operator_at_work(release: Release, directory: Path, status: str) -> None:
    """Run an operator whose Helm blocks, and kill it when the release has a status."""
    settings = release.settings(values={"block": True}).model_dump_json(by_alias=True)
    command = [sys.executable, "-c", OPERATOR, release.namespace, str(directory), settings]
    with started(release, command) as operator:
        try:
            await wait_until(lambda: _last(release, status), 180)
            children = psutil.Process(operator.pid).children(recursive=True)
            assert [child for child in children if "helm" in child.name()]
        finally:
            operator.send_signal(signal.SIGKILL)
    await wait_until(lambda: not any(child.is_running() for child in children), 10)


async def _last(release: Release, status: str) -> bool:
    statuses = await release.statuses()
    return statuses[-1:] == [status]


async def test_repairs_an_install_that_a_killed_operator_left(release: Release, tmp_path: Path) -> None:
    await kill_operator_at_work(release, tmp_path / "killed", "pending-install")
    state = await release.reconcile()
    assert [event.reason for event in state.events] == ["Uninstalled", "Installed"]
    assert (await release.ready()).revision == 1


async def test_repairs_an_upgrade_that_a_killed_operator_left(release: Release, tmp_path: Path) -> None:
    await release.ready()
    await kill_operator_at_work(release, tmp_path / "killed", "pending-upgrade")
    state = await release.reconcile(values={"note": "after"})
    assert [event.reason for event in state.events] == ["Interrupted", "Upgraded"]
    assert (await release.ready(values={"note": "after"})).revision == 4


async def test_a_cancelled_reconcile_leaves_no_helm_and_is_repeated(release: Release) -> None:
    await release.ready()
    work = asyncio.create_task(release.reconcile(values={"block": True}))
    await wait_until(lambda: _last(release, "pending-upgrade"), 180)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    assert [child for child in psutil.Process().children(recursive=True) if "helm" in child.name()] == []
    assert await _last(release, "failed")
    assert [event.reason for event in (await release.reconcile()).events] == ["Upgraded"]


async def test_waits_while_somebody_else_works_on_the_release(release: Release) -> None:
    release.by_hand("install", orchestration=ONE_BROKER)
    command = ["helm", "upgrade", "demo-engine", str(release.chart), "--set", "block=true", "-n", release.namespace]
    with started(release, command) as person:
        try:
            await wait_until(lambda: _last(release, "pending-upgrade"), 180)
            state = await release.reconcile()
            assert (state.reason, state.events) == ("Busy", [])
        finally:
            person.terminate()
