"""Starting, stopping and starting again, on an engine of its own."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from engine.devsystem import DevSystem, wait_until
from engine.samples import one_task, python_executor, write


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    gate = """\
        import pathlib
        def main(input):
            if not pathlib.Path(input["gate"]).exists():
                raise RetryableFailure("the gate is shut")
            pathlib.Path(input["gate"] + ".passed").touch()
            return {"passed": True}
        """
    executor = python_executor("gate", gate, job_type="gate", backoff={"initial": "300ms", "multiplier": 1})
    return write(
        tmp_path / "manifests", processes={"gated": one_task("gated", "gate", retries=1000)}, resources=[executor]
    )


def test_interrupt_leaves_nothing_and_the_next_start_continues(tmp_path: Path, manifests: Path) -> None:
    dev = DevSystem(tmp_path, [manifests]).start()
    started = dev.json("run", "gated", "--no-wait", "--var", f"gate={tmp_path}/gate")
    dev.wait_for_task(instance=started["instance"], state="waiting")
    assert_is_small(dev)
    beat = dev.pdo("/status")["shards"][0]["beat"]
    assert_stops_cleanly(dev)

    (tmp_path / "gate").touch()
    dev.start()
    # Its TDE may have been dispatched before the stop, so the new PDO need not have seen the task.
    wait_until((tmp_path / "gate.passed").exists, timeout=60, describe=dev.logs)
    wait_until(lambda: dev.pdo("/status")["shards"], timeout=20, describe=dev.logs)
    assert dev.pdo("/status")["shards"][0]["beat"] >= beat, "the heartbeat goes on where it was"
    assert_stops_cleanly(dev)

    dev.arguments = ["--fresh"]
    dev.start()
    assert dev.json("run", "gated", "--var", f"gate={tmp_path}/gate")["version"] == 1
    assert_dies_with_its_parent(dev)


def assert_is_small(dev: DevSystem) -> None:
    """An idle PDO stays below 250 MB, a worker below 90 MB resident."""
    limits = {"prokos.pdo": 250e6, "prokos.tde": 90e6}
    found = set()
    for process in dev.family():
        # A script of the task that is tried again may have ended since.
        with suppress(psutil.NoSuchProcess):
            command, memory = process.cmdline(), process.memory_info().rss
            for module, limit in limits.items():
                if module in command:
                    found.add(module)
                    assert memory < limit, f"{module} has {memory / 1e6:.0f} MB"
    assert found == set(limits)


def assert_stops_cleanly(dev: DevSystem) -> None:
    family = dev.family()
    ports = listening(family)
    assert ports
    assert dev.stop(signal.SIGINT) == 0
    assert_gone(dev, family)
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} is still open"
    assert not (dev.state / "run" / "runtime.json").exists()


def assert_dies_with_its_parent(dev: DevSystem) -> None:
    family = dev.family()
    dev.stop(signal.SIGKILL)
    assert_gone(dev, family)


def assert_gone(dev: DevSystem, family: list[psutil.Process]) -> None:
    def runs(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
        return False

    def left() -> list[psutil.Process]:
        return [process for process in family if runs(process)]

    wait_until(lambda: not left(), timeout=20, describe=lambda: f"still running: {left()}\n{dev.output}")


def listening(family: list[psutil.Process]) -> set[int]:
    """TCP ports these processes listen on; all of them on loopback."""
    ports = set()
    for process in family:
        connections = []
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("tcp")
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in {"127.0.0.1", "::ffff:127.0.0.1"}, (
                    f"{process} listens on {connection.laddr}"
                )
                ports.add(connection.laddr.port)
    return ports


def test_a_second_system_in_the_same_state_directory_is_refused(
    tmp_path: Path, manifests: Path, engine_address: str
) -> None:
    with DevSystem(tmp_path, [manifests], engine=engine_address) as dev:
        second = dev.run("dev", str(manifests), check=False)
        assert second.returncode == 1
        assert "already" in second.stderr


def test_commands_without_a_system_say_how_to_start_one(tmp_path: Path) -> None:
    dev = DevSystem(tmp_path, [])
    for command in (["status"], ["tasks"], ["executors"], ["run", "x"]):
        done = dev.run(*command, check=False)
        assert done.returncode == 3
        assert "prokos dev" in done.stderr
