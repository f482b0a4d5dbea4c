"""A router process: `python -m prokos.router`, in a pod or under `prokos dev`, when a model decides routes.

It is apart from the PDO because it alone needs the model's key and the libraries of model providers, which are large
and reach out to the network. It opens the registry that the environment names (`prokos.registry.open_registry`) and
reads the engine's connection from `PROKOS_ENGINE_*`.
"""

from __future__ import annotations

import asyncio
import sys

import structlog

from prokos.engine import EngineClient, StepRunner
from prokos.engine.connection import from_environment
from prokos.engine.service import run_until, stop_signals, worker_identity
from prokos.logs import configure_logging
from prokos.registry import open_registry
from prokos.router.steps import DecideStep

POLL_INTERVAL = 5.0
"""Seconds between polls beside the stream."""

log = structlog.get_logger("prokos.router")


async def serve() -> None:
    """Run until SIGTERM or SIGINT."""
    connection = from_environment()
    if connection is None:
        raise SystemExit("PROKOS_ENGINE_ADDRESS is not set: the router does not know its engine")
    stop = stop_signals()
    async with EngineClient(connection) as client, open_registry() as store:
        steps = DecideStep(store.load).handlers()
        runner = StepRunner(client, steps, worker=worker_identity("router"), poll_interval=POLL_INTERVAL)
        log.info("router started")
        await run_until(stop, runner.run())
    log.info("router stopped")


def main() -> None:
    """Run; a missing setting is one clear line."""
    configure_logging()
    try:
        asyncio.run(serve())
    except KeyError as error:
        sys.exit(f"environment variable {error.args[0]} is not set")


if __name__ == "__main__":
    main()
