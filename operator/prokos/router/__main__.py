"""A router process: `python -m prokos.router`, in a pod or under `prokos dev`, when a model decides routes.

It is apart from the PDO because it alone needs the model's key and the libraries of model providers, which are large
and reach out to the network. It reads the registry's directory from `PROKOS_REGISTRY` and the engine's connection from
`PROKOS_ENGINE_*`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog

from prokos.engine import EngineClient, StepRunner
from prokos.engine.connection import from_environment
from prokos.logs import configure_logging
from prokos.registry import FileRegistry
from prokos.router.steps import DecideStep

POLL_INTERVAL = 5.0
"""Seconds between polls beside the stream."""

log = structlog.get_logger("prokos.router")


async def serve(registry: Path) -> None:
    """Run until SIGTERM or SIGINT."""
    connection = from_environment()
    if connection is None:
        raise SystemExit("PROKOS_ENGINE_ADDRESS is not set: the router does not know its engine")
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with EngineClient(connection) as client:
        store = FileRegistry(registry)
        runner = StepRunner(
            client, DecideStep(store.load).handlers(), worker=f"router-{os.getpid()}", poll_interval=POLL_INTERVAL
        )
        log.info("router started")
        work, stopping = asyncio.create_task(runner.run()), asyncio.create_task(stop.wait())
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        stopping.cancel()
        ended = await asyncio.gather(work, stopping, return_exceptions=True)
        for result in ended:
            if isinstance(result, Exception):
                raise result
    log.info("router stopped")


def main() -> None:
    """Run; a missing setting is one clear line."""
    configure_logging()
    try:
        asyncio.run(serve(Path(os.environ["PROKOS_REGISTRY"])))
    except KeyError as error:
        sys.exit(f"environment variable {error.args[0]} is not set")


if __name__ == "__main__":
    main()
