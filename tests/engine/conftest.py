"""The real Camunda broker, started once for all tests that need it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from prokos.engine import Connection, EngineClient
from prokos.engine.embedded import EmbeddedEngine, EmbeddedSettings


@pytest.fixture(scope="session")
def engine_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker that all tests share: they use names of their own for what they deploy."""
    directory = tmp_path_factory.mktemp("engine")
    ready: Future[str] = Future()
    stop: Future[None] = Future()
    thread = threading.Thread(target=_run, args=(directory, ready, stop), name="engine")
    thread.start()
    try:
        yield ready.result()
    finally:
        stop.set_result(None)
        thread.join()


def _run(directory: Path, ready: Future[str], stop: Future[None]) -> None:
    async def serve() -> None:
        settings = EmbeddedSettings(data=directory / "data", log_file=directory / "engine.log", keep_state=False)
        try:
            async with EmbeddedEngine(settings) as engine:
                ready.set_result(engine.address)
                await asyncio.wrap_future(stop)
        except Exception as error:  # noqa: BLE001 - it is the test's to see
            ready.set_exception(error)

    asyncio.run(serve())


@pytest.fixture
async def engine(engine_address: str) -> AsyncIterator[EngineClient]:
    """A client of the shared broker."""
    async with EngineClient(Connection(engine_address)) as client:
        yield client
