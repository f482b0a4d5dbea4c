"""A PDO process: `python -m prokos.pdo`, in a pod or under `prokos dev`.

It opens the registry that the environment names (`prokos.registry.open_registry`), reads the engine's connection from
`PROKOS_ENGINE_*`, and serves its status API on `PROKOS_PDO_ADDRESS` and hints on `PROKOS_HINTS_ADDRESS` (host:port).
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial

import structlog
from aiohttp import web

from prokos.engine import EngineClient, StepRunner
from prokos.engine.connection import from_environment
from prokos.engine.nesting import allow_deep_variables
from prokos.engine.service import run_until, stop_signals, worker_identity
from prokos.logs import configure_logging
from prokos.pdo.beat import Heartbeat
from prokos.pdo.service import Pdo
from prokos.pdo.status import build_app, receive_hints
from prokos.registry import open_registry
from prokos.router import DecideStep, SettleSteps

BEAT_LEASE_MARGIN = 2.0
"""Seconds a beat's jobs outlive the beat: what a killed PDO delays the heartbeat by."""

log = structlog.get_logger("prokos.pdo")


async def serve(status_address: str, hints_address: str) -> None:
    """Run until SIGTERM or SIGINT."""
    connection = from_environment()
    if connection is None:
        raise SystemExit("PROKOS_ENGINE_ADDRESS is not set: the PDO does not know its engine")
    stop = stop_signals()
    # The heartbeat has a connection of its own, and so does not wait for tasks while the engine has too much to do.
    async with EngineClient(connection) as client, EngineClient(connection) as beating, open_registry() as store:
        pdo = Pdo(client, store, worker=worker_identity("pdo"))
        heartbeat = Heartbeat(beating, pdo)
        routing = dict(SettleSteps(store, pdo.settled).handlers())
        if pdo.registry.system.router.mode == "rules":
            routing |= DecideStep(lambda: pdo.registry).handlers()
        beats = StepRunner(
            beating,
            heartbeat.handlers(),
            worker=pdo.worker,
            lease=pdo.settings.beat_interval.total_seconds() + BEAT_LEASE_MARGIN,
            poll_interval=2.0,
            concurrency=pdo.settings.shards,
        )
        routes = StepRunner(client, routing, worker=pdo.worker, poll_interval=5.0)
        runner = web.AppRunner(build_app(pdo, heartbeat), access_log=None)
        await runner.setup()
        host, _, port = status_address.rpartition(":")
        await web.TCPSite(runner, host, int(port)).start()
        host, _, port = hints_address.rpartition(":")
        hints = await asyncio.start_server(partial(receive_hints, pdo), host, int(port))
        log.info("PDO started", worker=pdo.worker, shards=pdo.settings.shards, status=status_address)
        try:
            await run_until(stop, beats.run(), routes.run(), pdo.flights.expire(), pdo.stop_idle_shards())
        finally:
            pdo.stop()
            await pdo.hand_back()
            hints.close()
            await runner.cleanup()
    log.info("PDO stopped")


def main() -> None:
    """Run; a missing setting is one clear line."""
    configure_logging()
    allow_deep_variables()
    try:
        asyncio.run(serve(os.environ["PROKOS_PDO_ADDRESS"], os.environ["PROKOS_HINTS_ADDRESS"]))
    except KeyError as error:
        sys.exit(f"environment variable {error.args[0]} is not set")


if __name__ == "__main__":
    main()
