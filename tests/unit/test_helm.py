"""Running Helm: how it is called, what its failures say, and that nothing is left of it. Helm itself is a script here.

What the real one does is tested on a cluster, in tests/cluster/test_helm_*.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers import wait_until
from prokos.k8s import helm as driver
from prokos.k8s.chart import Chart
from prokos.k8s.helm import Helm, HelmError
from prokos.k8s.helm_errors import explain, without_secrets

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
CHART = Chart("engine", "/charts/engine", version="1")


class Script:
    """A `helm` that writes down how it was called, and then does what a shell script says."""

    def __init__(self, directory: Path, body: str) -> None:
        self.directory = directory
        program = directory / "helm"
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {directory}/arguments\nenv > {directory}/environment\n'
            f"echo $$ > {directory}/pid\n{body}\n"
        )
        program.chmod(0o755)
        self.helm = Helm(
            environ={"PATH": f"{directory}:{os.environ['PATH']}", "KUBECONFIG": "/k", "PROKOS_ENGINE_PASSWORD": "x"},
            directory=directory / "home",
        )

    def arguments(self) -> list[str]:
        return (self.directory / "arguments").read_text().splitlines()

    def environment(self) -> dict[str, str]:
        lines = (self.directory / "environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def is_running(self) -> bool:
        pid = int((self.directory / "pid").read_text())
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    async def upgrade(self, values: dict[str, Any] | None = None, timeout: timedelta = MINUTE) -> None:
        await self.helm.upgrade("flow", "demo-engine", CHART, values or {}, labels={"a": "b"}, timeout=timeout)


# --- calling -------------------------------------------------------------------------------------------------


async def test_values_go_through_a_pipe_and_nowhere_else(tmp_path: Path) -> None:
    script = Script(tmp_path, f"cat > {tmp_path}/values")
    await script.upgrade({"password": "s3cret-value"})
    assert json.loads((tmp_path / "values").read_text()) == {"password": "s3cret-value"}
    assert "s3cret-value" not in " ".join([*script.arguments(), *script.environment().values()])
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert files == []


async def test_upgrade_says_everything_that_matters(tmp_path: Path) -> None:
    script = Script(tmp_path, "cat > /dev/null")
    chart = Chart("camunda-platform", "camunda-platform", "https://charts.example.com", "14")
    await script.helm.upgrade(
        "flow", "demo-engine", chart, {}, labels={"prokos.io/system": "demo", "x": "y"}, timeout=MINUTE
    )
    words = " ".join(script.arguments())
    assert words.startswith("upgrade demo-engine camunda-platform --install --reset-values --hide-notes --values -")
    for part in (
        "--labels prokos.io/system=demo,x=y",
        "--repo https://charts.example.com",
        "--version 14",
        "--timeout 60s",
        "--namespace flow",
    ):
        assert part in words


async def test_helm_gets_the_way_to_the_cluster_and_no_secret(tmp_path: Path) -> None:
    script = Script(tmp_path, "echo '[]'")
    assert await script.helm.history("flow", "demo-engine") == []
    environment = script.environment()
    assert (environment["KUBECONFIG"], environment["HOME"]) == ("/k", f"{tmp_path}/home")
    assert "PROKOS_ENGINE_PASSWORD" not in environment
    assert {environment[f"HELM_{kind}_HOME"] for kind in ("CACHE", "CONFIG", "DATA")} == {
        f"{tmp_path}/home/{kind}" for kind in ("cache", "config", "data")
    }
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


async def test_reads_the_history(tmp_path: Path) -> None:
    entry = {
        "revision": 3,
        "updated": "2026-11-24T13:04:10.163001349Z",
        "status": "deployed",
        "chart": "engine-1.0.0",
        "app_version": "8",
        "description": "Upgrade complete",
    }
    script = Script(tmp_path, f"echo '{json.dumps([entry])}'")
    (revision,) = await script.helm.history("flow", "demo-engine")
    assert (revision.number, revision.status, revision.chart) == (3, "deployed", "engine-1.0.0")
    assert revision.updated.utcoffset() == timedelta()


async def test_no_release_is_no_history_and_nothing_to_uninstall(tmp_path: Path) -> None:
    script = Script(tmp_path, "echo 'Error: release: not found' >&2; exit 1")
    assert await script.helm.history("flow", "demo-engine") == []
    await script.helm.uninstall("flow", "demo-engine", MINUTE)


async def test_no_helm_is_said(tmp_path: Path) -> None:
    helm = Helm(environ={"PATH": str(tmp_path)}, directory=tmp_path)
    with pytest.raises(HelmError, match="'helm' is not there") as failed:
        await helm.history("flow", "demo-engine")
    assert failed.value.reason == "HelmMissing"


# --- ending --------------------------------------------------------------------------------------------------


async def test_a_cancelled_upgrade_leaves_no_child(tmp_path: Path) -> None:
    script = Script(tmp_path, "exec sleep 60")
    upgrade = asyncio.create_task(script.upgrade())
    await wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    assert script.is_running()
    upgrade.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upgrade
    assert not script.is_running()


async def test_helm_may_say_that_it_was_ended(tmp_path: Path) -> None:
    script = Script(
        tmp_path, f"trap 'echo > {tmp_path}/said; exit 1' TERM; echo > {tmp_path}/trapped; while :; do sleep 0.1; done"
    )
    upgrade = asyncio.create_task(script.upgrade())
    await wait_until((tmp_path / "trapped").exists)
    upgrade.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upgrade
    assert (tmp_path / "said").exists()


async def test_one_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "GRACE", 0.2)
    # Time for the script to begin.
    monkeypatch.setattr(driver, "MARGIN", 3.0)
    script = Script(tmp_path, "trap '' TERM; while :; do sleep 0.1; done")
    with pytest.raises(HelmError, match="took longer than") as failed:
        await script.upgrade(timeout=timedelta(milliseconds=100))
    assert failed.value.reason == "TimedOut"
    await wait_until(lambda: not script.is_running())


# --- failures ------------------------------------------------------------------------------------------------


def test_a_value_that_a_schema_refuses_is_shown_without_secrets_and_shortened():
    line = "- at '/global/password': 'hunter2hunter2' does not match pattern '^[A-Z]+$'"
    output = f"Error: values don't meet the specifications of the schema(s) in the following chart(s):\nc:\n{line}\n"
    error = explain("upgrade", output + "- at '/x': " + "y" * 5000, {"global": {"password": "hunter2hunter2"}})
    assert error.reason == "ValuesRefused"
    assert "global.password: '***' does not match" in str(error)
    assert len(str(error)) < 1000


SCHEMA_OUTPUT = """\
Error: UPGRADE FAILED: values don't meet the specifications of the schema(s) in the following chart(s):
camunda-platform:
- at '/orchestration/clusterSize': got number, want string
- at '/global': got null, want object
"""


@pytest.mark.parametrize(
    ("output", "reason", "message"),
    [
        (SCHEMA_OUTPUT, "ValuesRefused", "orchestration.clusterSize: got number, want string; global: got null"),
        ("Error: execution error at (c/templates/x.tpl:1:3): set foo", "ValuesRefused", "set foo; correct spec.engine"),
        (
            'Error: looks like "http://r/" is not a valid chart repository or cannot be reached: Get "http://r/index"',
            "ChartNotFound",
            "check chart, repository and version",
        ),
        ('Error: chart "x" version "9" not found in http://r repository', "ChartNotFound", "check chart, repository"),
        ("Error: non-absolute URLs should be in form of repo_name/path_to_chart, got: x", "ChartNotFound", "check"),
        (
            'Error: Unable to continue with install: ConfigMap "a" in namespace "n" exists and cannot be imported into '
            "the current release: invalid ownership metadata",
            "Conflict",
            "delete that object",
        ),
        ("Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress", "Busy", "in progress"),
        ('Error: Kubernetes cluster unreachable: Get "https://k/version": refused', "Unreachable", "unreachable"),
        ('Error: secrets is forbidden: User "u" cannot list resource "secrets"', "Forbidden", "Role must allow it"),
        ("Error: UPGRADE FAILED: pre-upgrade hooks failed: timed out waiting for the condition", "TimedOut", "hooks"),
        ('Error: UPGRADE FAILED: cannot patch "e" with kind StatefulSet: spec: Forbidden', "Failed", "cannot patch"),
        ("", "Failed", "it said nothing"),
    ],
)
def test_failures_say_what_is_wrong_and_what_to_do(output: str, reason: str, message: str) -> None:
    error = explain("upgrade", f"WARNING: something else\n{output}", {})
    assert error.reason == reason
    assert message in str(error)
    assert "something else" not in str(error)


def test_long_output_is_cut_to_its_end() -> None:
    error = explain("upgrade", "\n".join(f"line {number}" for number in range(1000)), {})
    assert "line 999" in str(error)
    assert "line 990" not in str(error)


def test_secret_values_are_removed_from_messages() -> None:
    values = {
        "database": {"password": "hunter2hunter2", "host": "db.example.com"},
        "auth": {"secret": {"inlineSecret": "inline-1", "existingSecret": "engine-db"}},
        "tokens": ["abcd1234"],
        "pin": {"secretValue": "123"},
    }
    text = "cannot parse hunter2hunter2 inline-1 abcd1234 for db.example.com of engine-db 123"
    assert without_secrets(text, values) == "cannot parse *** *** *** for db.example.com of engine-db 123"
    assert "hunter2" not in str(explain("upgrade", f"Error: {text}", values))
