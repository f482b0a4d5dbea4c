"""A running system follows its manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.devsystem import PATIENCE, DevSystem, wait_until
from engine.samples import one_task, python_executor, replace, write


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    executor = python_executor("chg-first", "def main(input):\n    return {'by': 'first'}\n", job_type="chg-a")
    return write(tmp_path / "manifests", processes={"chg-a": one_task("chg-a", "chg-a")}, resources=[executor])


def test_manifests_may_change_while_it_runs(tmp_path: Path, manifests: Path, engine_address: str) -> None:
    with DevSystem(tmp_path, [manifests], engine=engine_address) as dev:
        assert dev.run_process("chg-a")["by"] == "first"
        changed_executor_takes_effect(dev, manifests)
        broken_manifest_changes_nothing(dev, manifests)
        new_process_and_executor_are_picked_up(dev, manifests)
        unchanged_content_makes_no_version(dev, manifests)
        applied_manifests_stay(dev, tmp_path)
        refused_by_the_engine_is_shown(dev, manifests)
        removed_executor_leaves_its_tasks_without_a_route(dev, manifests)


def changed_executor_takes_effect(dev: DevSystem, manifests: Path) -> None:
    source = "def main(input):\n    return {'by': 'second'}\n"
    write(manifests, resources=[python_executor("chg-first", source, job_type="chg-a")])
    wait_until(lambda: dev.run_process("chg-a")["by"] == "second", timeout=PATIENCE, describe=dev.logs)


def broken_manifest_changes_nothing(dev: DevSystem, manifests: Path) -> None:
    (manifests / "broken.yaml").write_text("apiVersion: prokos.io/v1alpha1\nkind: TaskExecutor\nspec: {typo: 1}\n")
    dev.wait_for("broken.yaml")
    dev.wait_for("what runs stays as it is")
    assert dev.run_process("chg-a")["by"] == "second"
    assert "broken.yaml" in dev.run("status").stdout
    (manifests / "broken.yaml").unlink()


def new_process_and_executor_are_picked_up(dev: DevSystem, manifests: Path) -> None:
    executor = python_executor("chg-new", "def main(input):\n    return {'by': 'new'}\n", job_type="chg-b")
    write(manifests, processes={"chg-b": one_task("chg-b", "chg-b")}, resources=[executor])
    wait_until(lambda: {"chg-b", "chg-new"} <= at_work(dev), timeout=PATIENCE, describe=dev.logs)
    assert dev.run_process("chg-b")["by"] == "new"


def unchanged_content_makes_no_version(dev: DevSystem, manifests: Path) -> None:
    file = manifests / "chg-b.bpmn"
    replace(file, file.read_text())
    assert registered(dev)["chg-b"] == 1
    replace(file, one_task("chg-b", "chg-b", name="changed"))
    wait_until(lambda: registered(dev)["chg-b"] == 2, timeout=PATIENCE, describe=dev.logs)


def applied_manifests_stay(dev: DevSystem, tmp_path: Path) -> None:
    executor = python_executor("chg-applied", "def main(input):\n    return {'by': 'applied'}\n", job_type="chg-c")
    extra = write(tmp_path / "extra", processes={"chg-c": one_task("chg-c", "chg-c")}, resources=[executor])
    done = dev.run("apply", "-f", str(extra))
    assert "TaskExecutor chg-applied created" in done.stderr
    wait_until(lambda: {"chg-c", "chg-applied"} <= at_work(dev), timeout=PATIENCE, describe=dev.logs)
    assert dev.run_process("chg-c")["by"] == "applied"
    assert "configured" in dev.run("apply", "-f", str(extra)).stderr
    twin = write(tmp_path / "twin", resources=[python_executor("chg-twin", "output = {}", job_type="chg-c")])
    refused = dev.run("apply", "-f", str(twin), check=False)
    assert refused.returncode == 2
    assert "chg-applied" in refused.stderr
    dev.run("delete", "TaskExecutor", "chg-applied")
    wait_until(lambda: "chg-applied" not in executors(dev), timeout=PATIENCE, describe=dev.logs)


def refused_by_the_engine_is_shown(dev: DevSystem, manifests: Path) -> None:
    bad = one_task("chg-bad", "chg-b").replace('retries="3"', 'retries="=not valid ("')
    (manifests / "chg-bad.bpmn").write_text(bad)
    wait_until(lambda: "chg-bad" in dev.run("status").stdout, timeout=PATIENCE, describe=dev.logs)
    assert "REFUSED ProcessDefinition chg-bad" in dev.run("status").stdout
    (manifests / "chg-bad.bpmn").unlink()


def removed_executor_leaves_its_tasks_without_a_route(dev: DevSystem, manifests: Path) -> None:
    (manifests / "taskexecutor-chg-new.yaml").unlink()
    wait_until(lambda: "chg-new" not in executors(dev), timeout=PATIENCE, describe=dev.logs)
    failed = dev.run("run", "chg-b", check=False)
    assert failed.returncode == 1
    assert "no executor for" in failed.stderr


def registered(dev: DevSystem) -> dict[str, int]:
    return {process["process"]: process["version"] for process in dev.json("status")["processes"]}


def at_work(dev: DevSystem) -> set[str]:
    """Processes and executors that are registered: each is by itself, and a task needs both."""
    status = dev.json("status")
    return {one["process"] for one in status["processes"]} | {
        one["name"] for one in status["executors"] if one["registered"]
    }


def executors(dev: DevSystem) -> set[str]:
    return {executor["name"] for executor in dev.json("status")["executors"]}
