"""A running system with what the benchmarks need of it: an engine client, and a look at its processes."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import Load
from benchmarks.observe import Observed
from engine.devsystem import START_TIMEOUT, DevSystem
from engine.samples import write
from prokos.engine import Connection, EngineClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Running:
    """A `prokos dev` and the load on it."""

    dev: DevSystem
    client: EngineClient
    observed: Observed
    load: Load

    @property
    def address(self) -> str:
        """host:port of the engine's gateway."""
        return str(self.dev.runtime["engine"]["PROKOS_ENGINE_ADDRESS"])


def work_directory(chosen: Path | None, name: str) -> Path:
    """Where a benchmark keeps its state: the chosen directory, made if it is missing, or a new one below /tmp."""
    if chosen is None:
        return Path(tempfile.mkdtemp(prefix=f"prokos-{name}-"))
    chosen.mkdir(parents=True, exist_ok=True)
    # Workers run in directories of their own.
    return chosen.resolve()


@contextlib.asynccontextmanager
async def running(
    directory: Path, processes: Mapping[str, str], resources: Sequence[Mapping[str, Any]]
) -> AsyncIterator[Running]:
    """Run `prokos dev` for the length of the context.

    Args:
        directory: Where manifests, state and logs go.
        processes: Name to BPMN.
        resources: Executors, and the ProkOS resource if it is not the default one.
    """
    manifests = write(directory / "manifests", processes=dict(processes), resources=[dict(one) for one in resources])
    dev = DevSystem(directory, [manifests])
    try:
        dev.start(wait=False)
        await asyncio.to_thread(dev.wait_for, "\nready: ", START_TIMEOUT + len(processes) + len(resources))
        async with EngineClient(Connection(dev.runtime["engine"]["PROKOS_ENGINE_ADDRESS"])) as client:
            # Instances are not created again after a lost connection; so there should be one.
            await client.topology()
            observed = Observed(dev)
            yield Running(dev, client, observed, Load(client, observed))
    finally:
        await asyncio.to_thread(dev.stop)
