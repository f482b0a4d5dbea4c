"""A PDO on a bench: over an engine in memory and a registry on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpers import finished, wait_until
from prokos.pdo.service import Pdo
from prokos.registry import FileRegistry
from prokos.resources import ProkOSSpec
from prokos.router import ROUTE_MESSAGE
from unit.builders import job, process
from unit.fake_engine import FakeEngine

if TYPE_CHECKING:
    from pathlib import Path

TDE = "prokos.tde.payer"
"""Message that starts the TDE of the executor `payer`."""


class System:
    """A PDO that serves the beats of shard 0. It knows the process that `job()` belongs to."""

    def __init__(self, directory: Path) -> None:
        self.engine = FakeEngine()
        self.store = FileRegistry(directory)
        finished(self.store.put_process(process()))

    def start(self, *executors: Any, **system: Any) -> Pdo:
        for one in executors:
            finished(self.store.put_executor(one))
        finished(self.store.put_system(ProkOSSpec.model_validate(system)))
        self.pdo = Pdo(self.engine, self.store, worker="pdo-test")
        self.pdo.beat(0, 1)
        return self.pdo

    def offer(self, *keys: int) -> None:
        self.engine.offer(*(job(key) for key in keys))

    @property
    def started(self) -> list[str]:
        """Correlation keys of the TDEs that were started."""
        return [command[2] for command in self.engine.named("publish") if command[1] == TDE]

    @property
    def asked(self) -> list[str]:
        """Correlation keys of the routes that were requested."""
        return [command[2] for command in self.engine.named("publish") if command[1] == ROUTE_MESSAGE]

    async def all_wait(self, count: int) -> None:
        await wait_until(lambda: self.pdo.journal.counts["routing"] == count)
