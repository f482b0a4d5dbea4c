"""The real Camunda broker, started once for all tests that need it.

With `PROKOS_TEST_ENGINE` set to the version of the in-memory engine, that one takes its place, and tests that start
an engine of their own are skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from engine.in_memory_engine import VERSION, InMemoryEngine
from prokos.engine import Connection, EngineClient
from prokos.engine.embedded import EmbeddedEngine, EmbeddedSettings

TEST_ENGINE = os.environ.get("PROKOS_TEST_ENGINE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if TEST_ENGINE:
        own = pytest.mark.skip(reason="starts an engine of its own, not the one of PROKOS_TEST_ENGINE")
        for item in items:
            if Path(__file__).parent in item.path.parents and "broker" not in getattr(item, "fixturenames", ()):
                item.add_marker(own)


@dataclass(frozen=True)
class Broker:
    """A running broker whose clock can be moved."""

    address: str
    advance: Callable[[float], None]
    """Moves the engine's clock forward by seconds; timers and leases that are due by then fall due now."""


def _advance(management_url: str, seconds: float) -> None:
    body = json.dumps({"offsetMilli": int(seconds * 1000)}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{management_url}/actuator/clock/add", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 200


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that all tests share: they use names of their own for what they deploy."""
    directory = tmp_path_factory.mktemp("engine")
    if TEST_ENGINE:
        assert TEST_ENGINE == VERSION, f"PROKOS_TEST_ENGINE: there is {VERSION}, not {TEST_ENGINE}"
        with InMemoryEngine(directory) as in_memory:
            yield Broker(in_memory.address, in_memory.advance)
        return
    ready: Future[Broker] = Future()
    stop: Future[None] = Future()
    thread = threading.Thread(target=_run, args=(directory, ready, stop), name="engine")
    thread.start()
    try:
        yield ready.result()
    finally:
        stop.set_result(None)
        thread.join()


@pytest.fixture(scope="session")
def engine_address(broker: Broker) -> str:
    """host:port of the shared broker."""
    return broker.address


def _run(directory: Path, ready: Future[Broker], stop: Future[None]) -> None:
    async def serve() -> None:
        settings = EmbeddedSettings(
            data=directory / "data",
            log_file=directory / "engine.log",
            keep_state=False,
            environment={"ZEEBE_CLOCK_CONTROLLED": "true"},
        )
        try:
            async with EmbeddedEngine(settings) as engine:
                ready.set_result(Broker(engine.address, partial(_advance, engine.management_url)))
                await asyncio.wrap_future(stop)
        except Exception as error:  # noqa: BLE001 - it is the test's to see
            ready.set_exception(error)

    asyncio.run(serve())


@pytest.fixture
async def engine(engine_address: str) -> AsyncIterator[EngineClient]:
    """A client of the shared broker."""
    async with EngineClient(Connection(engine_address)) as client:
        yield client


@pytest.fixture(scope="session")
def shop() -> Iterator[None]:
    """The services of the order example, on the port its executors call. They refuse each first payment of an order."""
    service = Path(__file__).parents[2] / "examples" / "order" / "shop_service.py"
    with subprocess.Popen([sys.executable, str(service), "--flaky", "--quiet"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the shop service does not start"
        try:
            yield
        finally:
            process.terminate()
