"""The embedded engine on the real broker: it serves, keeps its state, comes back, and goes without a trace."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import httpx
import psutil
import pytest

from engine.devsystem import START_TIMEOUT
from prokos.engine import Connection, EngineClient, RetryPolicy, embedded_partitions
from prokos.engine.distribution import ensure_distribution
from prokos.engine.embedded import DataInUseError, EmbeddedEngine, EmbeddedSettings, EngineSetupError
from prokos.engine.java import find_java
from prokos.engine.startup_cache import ensure_startup_cache, startup_cache_path

pytestmark = pytest.mark.engine

PROCESS = b"""<?xml version="1.0" encoding="UTF-8"?>
<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
                  xmlns:zeebe="http://camunda.org/schema/zeebe/1.0" targetNamespace="http://prokos.io/test">
  <bpmn:process id="kept" isExecutable="true">
    <bpmn:startEvent id="start"/>
    <bpmn:sequenceFlow id="in" sourceRef="start" targetRef="task"/>
    <bpmn:serviceTask id="task">
      <bpmn:extensionElements><zeebe:taskDefinition type="keep"/></bpmn:extensionElements>
    </bpmn:serviceTask>
    <bpmn:sequenceFlow id="out" sourceRef="task" targetRef="end"/>
    <bpmn:endEvent id="end"/>
  </bpmn:process>
</bpmn:definitions>
"""

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from prokos.engine.embedded import EmbeddedEngine, EmbeddedSettings
directory = Path(sys.argv[1])

async def main():
    engine = EmbeddedEngine(EmbeddedSettings(data=directory / "data", log_file=directory / "engine.log"))
    starting = asyncio.create_task(engine.start())
    while engine.pid is None:
        await asyncio.sleep(0.01)
    print(engine.pid, flush=True)
    await starting

asyncio.run(main())
"""


async def wait_until(predicate: Callable[[], Awaitable[bool] | bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while True:
        outcome = predicate()
        if await outcome if isinstance(outcome, Awaitable) else outcome:
            return
        assert time.monotonic() < deadline, f"after {timeout} s still not: {what}"
        await asyncio.sleep(0.05)


class Running(EmbeddedEngine):
    """An engine that remembers what it told."""

    def __init__(self, directory: Path, *, keep_state: bool = True) -> None:
        self.events: list[str] = []
        settings = EmbeddedSettings(directory / "data", directory / "logs" / "engine.log", keep_state=keep_state)
        super().__init__(settings, on_event=self.events.append)

    @property
    def client(self) -> EngineClient:
        return EngineClient(Connection(self.address), RetryPolicy(patience=10))


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with Running(tmp_path_factory.mktemp("embedded")) as engine:
        yield engine


async def leave_a_task(engine: Running) -> int:
    """Start an instance that waits for its job; its key."""
    async with engine.client as client:
        await client.deploy({"kept.bpmn": PROCESS})
        return (await client.create_instance("kept", {"number": 42})).key


async def finish_the_task(engine: Running) -> tuple[int, object]:
    """Complete the one job that waits; key of its instance, and its variable."""
    async with engine.client as client:
        [job] = await client.activate_jobs("keep", worker="test", limit=10, lease=60, wait=10)
        await client.complete_job(job.key)
        return job.process_instance_key, job.variables["number"]


async def test_serves_grpc_rest_and_metrics(engine: Running) -> None:
    async with engine.client as client, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        topology = await client.topology()
        assert topology.ready
        assert topology.gateway_version == engine.settings.version
        assert (await http.get(f"{engine.rest_url}/v2/topology")).json()["partitionsCount"] == 1
        assert (await http.get(f"{engine.management_url}/actuator/health/status")).json()["status"] == "UP"
        assert "zeebe_health" in (await http.get(f"{engine.management_url}/actuator/prometheus")).text


async def test_listens_on_loopback_only(engine: Running) -> None:
    sockets = psutil.Process(engine.pid).net_connections()
    listening = {tuple(s.laddr) for s in sockets if s.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", port) for port in astuple(engine.ports)}
    # The broker binds this one to all interfaces whatever it is told; the secret name of the cluster protects it.
    bound = {tuple(s.laddr) for s in sockets if s.type == socket.SOCK_DGRAM and s.laddr.port in astuple(engine.ports)}
    assert bound <= {("0.0.0.0", engine.ports.internal)}


async def test_drops_datagrams_from_outside_the_cluster_unread(engine: Running) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"not the hash of its name", ("127.0.0.1", engine.ports.internal))
    await wait_until(lambda: "outside of the cluster" in engine.settings.log_file.read_text(), "it is dropped")


async def test_runs_java_itself_and_not_a_shell(engine: Running) -> None:
    process = psutil.Process(engine.pid)
    assert process.name() == "java"
    assert process.ppid() == os.getpid()
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)


async def test_uses_the_startup_cache_when_there_is_one(engine: Running) -> None:
    cache = startup_cache_path(ensure_distribution(engine.settings.version), find_java())
    if cache is None or not cache.is_file():
        pytest.skip("no start-up cache was made")
    assert str(cache) in {mapping.path for mapping in psutil.Process(engine.pid).memory_maps()}


async def test_making_a_startup_cache_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROKOS_ENGINE_HOME", str(ensure_distribution()))
    monkeypatch.setenv("PROKOS_CACHE", str(tmp_path))
    making = asyncio.create_task(ensure_startup_cache(idle=True))
    await wait_until(lambda: bool(children_of(tmp_path)), "the training run has begun")
    making.cancel()
    with suppress(asyncio.CancelledError):
        await making
    assert children_of(tmp_path) == []
    assert [path.suffix for path in (tmp_path / "engine").iterdir()] == [".lock"]


async def test_refuses_a_second_engine_on_the_same_data(engine: Running) -> None:
    second = EmbeddedEngine(engine.settings)
    with pytest.raises(DataInUseError, match=rf"another engine works on .*java process {engine.pid}, started by"):
        await second.start()
    assert psutil.pid_exists(engine.pid or 0)


async def test_comes_back_after_a_kill_with_what_was_running(engine: Running) -> None:
    address, killed = engine.address, engine.pid
    instance = await leave_a_task(engine)
    os.kill(killed or 0, signal.SIGKILL)
    await wait_until(lambda: "the engine is ready again" in engine.events, "it is back", START_TIMEOUT)
    assert engine.events[0] == "the engine ended with signal SIGKILL and is started again"
    assert engine.address == address
    assert engine.pid not in {None, killed}
    assert engine.restarts == 1
    assert await finish_the_task(engine) == (instance, 42)


async def test_takes_a_snapshot_when_much_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_partitions, "SAVED_AFTER", 20)
    monkeypatch.setattr(embedded_partitions, "LOOK", 0.2)
    async with Running(tmp_path) as engine:
        for _ in range(10):
            await leave_a_task(engine)
        snapshots = engine.settings.broker_directory / "raft-partition" / "partitions" / "1" / "snapshots"
        await wait_until(lambda: any(path.is_dir() for path in snapshots.iterdir()), "there is a snapshot")


async def test_stops_without_a_trace_and_starts_again_with_its_state(engine: Running) -> None:
    instance, ports, pid = await leave_a_task(engine), astuple(engine.ports), engine.pid
    closed = asyncio.create_task(engine.wait_closed())
    await engine.stop()
    await asyncio.wait_for(closed, 1)
    assert engine.pid is None
    assert not psutil.pid_exists(pid or 0)
    assert not [s for s in psutil.net_connections() if s.status == psutil.CONN_LISTEN and s.laddr.port in ports]

    await engine.start()
    assert await finish_the_task(engine) == (instance, 42)


async def test_state_that_is_not_kept_is_neither_there_at_start_nor_after_stop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "broker").mkdir(parents=True)
    (data / "broker" / "left.txt").write_text("of an engine before")
    async with Running(tmp_path, keep_state=False) as engine:
        await leave_a_task(engine)
        assert not (data / "broker" / "left.txt").exists()
    assert not data.exists()
    assert engine.settings.log_file.exists()


async def test_what_others_keep_in_the_data_directory_stays(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "mine.txt").touch()
    with pytest.raises(EngineSetupError):
        await failing(tmp_path, keep_state=False).start()
    assert [path.name for path in data.iterdir()] == ["mine.txt"]


def failing(directory: Path, *, keep_state: bool = True) -> EmbeddedEngine:
    """An engine whose heap is too small for any JVM."""
    return EmbeddedEngine(
        EmbeddedSettings(directory / "data", directory / "engine.log", heap="1m", keep_state=keep_state)
    )


async def test_a_failed_start_names_the_log_quotes_it_and_leaves_nothing_running(tmp_path: Path) -> None:
    engine = failing(tmp_path)
    with pytest.raises(EngineSetupError) as error:
        await engine.start()
    assert f"the engine ended with exit code 1 before it was ready; see {tmp_path / 'engine.log'}" in str(error.value)
    assert "Too small maximum heap" in str(error.value)
    assert engine.pid is None
    assert children_of(tmp_path) == []


def children_of(directory: Path) -> list[psutil.Process]:
    """Our child processes that work in a directory."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if Path(child.cwd()).is_relative_to(directory):
                found.append(child)
    return found


async def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    settings = EmbeddedSettings(tmp_path / "data", tmp_path / "engine.log", ready_timeout=0.6)
    with pytest.raises(EngineSetupError, match="is not ready after 1 s; see"):
        await EmbeddedEngine(settings).start()
    assert children_of(tmp_path) == []


async def test_a_cancelled_start_leaves_nothing_running(tmp_path: Path) -> None:
    engine = Running(tmp_path)
    start = asyncio.create_task(engine.start())
    await wait_until(lambda: engine.pid is not None, "java runs")
    start.cancel()
    with suppress(asyncio.CancelledError):
        await start
    assert engine.pid is None
    assert children_of(tmp_path) == []


async def test_a_port_in_use_is_said_before_the_start_times_out(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        environment = {"ZEEBE_BROKER_NETWORK_COMMANDAPI_PORT": str(other.getsockname()[1])}
        settings = EmbeddedSettings(tmp_path / "data", tmp_path / "engine.log", environment=environment)
        engine = EmbeddedEngine(settings)
        with pytest.raises(EngineSetupError, match=r"the engine cannot start[\s\S]*Address already in use"):
            await engine.start()


async def test_says_which_variable_names_no_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROKOS_ENGINE_HOME", str(tmp_path))
    with pytest.raises(EngineSetupError, match=f"PROKOS_ENGINE_HOME={tmp_path} is no distribution"):
        await Running(tmp_path).start()


@pytest.mark.skipif(sys.platform != "linux", reason="the request to the kernel is Linux' own")
async def test_the_broker_dies_with_a_killed_supervisor_and_frees_its_data(tmp_path: Path) -> None:
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    java = psutil.Process(int(await supervisor.stdout.readline()))
    await wait_until(lambda: java.name() == "java", "the child is java")
    supervisor.kill()
    await supervisor.wait()

    def free() -> bool:
        with (tmp_path / "data" / "engine.lock").open() as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def ended() -> bool:
        with suppress(psutil.NoSuchProcess):
            return java.status() == psutil.STATUS_ZOMBIE
        return True

    # The broker holds the lock, too: it is free when the last of its threads is gone.
    await wait_until(free, "the data is free", timeout=60)
    await wait_until(ended, "the broker has ended", timeout=60)
