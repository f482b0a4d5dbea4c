"""An embedded system for tests of executors and processes: the real engine, real workers, gone when the test ends."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.from_thread import start_blocking_portal

from prokos.dev.state import StateDirectory
from prokos.dev.system import running_system
from prokos.resources.names import tde_process_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anyio.from_thread import BlockingPortal

    from prokos.dev.system import System

TIMEOUT = 60.0
"""Seconds a process may take unless a test says otherwise."""


class EmbeddedSystem:
    """A running system, from a test that is not asynchronous."""

    def __init__(self, portal: BlockingPortal, system: System) -> None:
        self._portal = portal
        self._system = system

    def run(self, process: str, variables: Mapping[str, Any], timeout: float = TIMEOUT) -> dict[str, Any]:
        """Run a process to its end and return its variables.

        Raises:
            EngineError: It does not end in time, or the engine refuses it.
        """

        async def run() -> dict[str, Any]:
            return (await self._system.client.run_instance(process, variables, timeout=timeout)).variables

        return self._portal.call(run)

    def execute(self, executor: str, data: Mapping[str, Any], timeout: float = TIMEOUT) -> dict[str, Any]:
        """Run one task of an executor in its worker, through the engine, and return the TDE's variables.

        An attempt that fails is tried again, as in production; a business error has nobody here to catch it.
        """
        return self.run(tde_process_id(executor), data, timeout)


@contextmanager
def embedded_system(*manifests: str | Path) -> Iterator[EmbeddedSystem]:
    """Run an embedded system with these manifests until the context is left.

    The engine is downloaded at the first use, into the cache; a start takes some seconds.

    Raises:
        ManifestError: The manifests have errors.
        EngineSetupError: The engine cannot be installed or does not start.
    """
    with tempfile.TemporaryDirectory(prefix="prokos-test-") as directory, start_blocking_portal() as portal:
        state = StateDirectory(Path(directory))
        running = running_system([Path(path) for path in manifests], state, say=lambda _: None, keep_state=False)
        with portal.wrap_async_context_manager(running) as system:
            portal.call(system.wait_booted)
            yield EmbeddedSystem(portal, system)
