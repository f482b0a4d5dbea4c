"""What a fault needs beside `prokos dev`: a second PDO, and an engine with settings of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.devsystem import DevSystem, wait_until
from prokos.dev.system import free_ports
from prokos.engine.embedded import EmbeddedEngine, EmbeddedSettings


class Replica:
    """One more PDO of a running system, as a cluster would have."""

    def __init__(self, dev: DevSystem) -> None:
        self._dev = dev
        self._status, self._hints = (f"127.0.0.1:{port}" for port in free_ports(2))
        environment = {
            **os.environ,
            **dev.runtime["engine"],
            "PROKOS_PDO_ADDRESS": self._status,
            "PROKOS_HINTS_ADDRESS": self._hints,
            "PROKOS_REGISTRY": str(dev.state / "registry"),
            "PROKOS_LOG_FORMAT": "json",
        }
        with (dev.state / "logs" / "replica.log").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "prokos.pdo"], env=environment, stdout=output, stderr=output
            )

    def __enter__(self) -> Replica:
        wait_until(lambda: self.status().get("shards"), timeout=60, describe=self._dev.logs)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def status(self) -> dict[str, Any]:
        """What it says of itself; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self._status}/status", timeout=5) as response:
                found: dict[str, Any] = json.loads(response.read())
        except (urllib.error.URLError, OSError, json.JSONDecodeError):
            return {}
        return found


@contextmanager
def running_engine(directory: Path, environment: Mapping[str, str]) -> Iterator[EmbeddedEngine]:
    """A broker with settings of its own, in a thread of ours."""
    ready: Future[EmbeddedEngine] = Future()
    stop: Future[None] = Future()

    async def serve() -> None:
        settings = EmbeddedSettings(
            data=directory / "data", log_file=directory / "engine.log", keep_state=False, environment=environment
        )
        try:
            async with EmbeddedEngine(settings) as engine:
                ready.set_result(engine)
                await asyncio.wrap_future(stop)
        except Exception as error:  # noqa: BLE001 - it is the test's to see
            ready.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="engine")
    thread.start()
    try:
        yield ready.result()
    finally:
        stop.set_result(None)
        thread.join()


def metric(engine: EmbeddedEngine, name: str) -> float:
    """The sum of one of the engine's metrics over all its labels."""
    with urllib.request.urlopen(f"{engine.management_url}/actuator/prometheus", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
