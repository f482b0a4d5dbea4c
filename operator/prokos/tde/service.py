"""What a worker process does, in a pod or under `prokos dev`.

It reads its TaskExecutor from the file named by `PROKOS_EXECUTOR_FILE` (JSON) and the engine's connection from
`PROKOS_ENGINE_*`. With `PROKOS_SINGLE_USE` it takes one task, and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import structlog

from prokos.engine import EngineClient
from prokos.engine.connection import from_environment
from prokos.engine.nesting import allow_deep_variables
from prokos.engine.service import stop_signals, worker_identity
from prokos.logs import configure_logging
from prokos.resources import TaskExecutor
from prokos.tde.contract import Environment, FatalFailure
from prokos.tde.hints import HintSender
from prokos.tde.redaction import Redactor
from prokos.tde.secrets import MissingSecretError, resolve_secrets
from prokos.tde.types import executor_class
from prokos.tde.worker import TdeWorker

GRACE = 20.0
"""Seconds running tasks have to end when the worker is asked to stop; `PROKOS_GRACE` overrides it."""

FLUSH = 1.0
"""Seconds a worker that stops has to send its last hints."""

SIGN_OF_LIFE = 10.0
"""Seconds between touches of the ready file."""

log = structlog.get_logger("prokos.tde")


async def serve(executor_file: Path, workdir: Path) -> None:
    """Run the worker until SIGTERM or SIGINT."""
    resource = TaskExecutor.model_validate(json.loads(executor_file.read_text()))
    connection = from_environment()
    if connection is None:
        raise SystemExit("PROKOS_ENGINE_ADDRESS is not set: the worker does not know its engine")
    secrets = resolve_secrets(resource.spec.secrets)
    # Also what an executor's own code logs, and tracebacks, which quote what they stumbled over.
    configure_logging(clear=Redactor(secrets, secrets.names).text)
    stop = stop_signals()
    environment = Environment(
        name=resource.metadata.name,
        workdir=workdir,
        concurrency=resource.spec.concurrency,
        secrets=secrets,
    )
    executor = executor_class(resource.spec.type)(resource.spec.settings, environment)
    hints_address = os.environ.get("PROKOS_HINTS_ADDRESS")
    hints = HintSender(hints_address) if hints_address else None
    sending = asyncio.create_task(hints.run()) if hints else None
    async with EngineClient(connection) as client:
        identity = worker_identity(f"tde-{environment.name}")
        single_use = bool(os.environ.get("PROKOS_SINGLE_USE"))
        worker = TdeWorker(client, resource, executor, worker=identity, hints=hints, single_use=single_use)
        if metrics_address := os.environ.get("PROKOS_METRICS_ADDRESS"):
            worker.metrics.serve(metrics_address)
        living = asyncio.create_task(_show_life())
        await worker.run(stop, float(os.environ.get("PROKOS_GRACE", GRACE)), _announce)
        living.cancel()
    if hints and sending:
        await hints.flush(FLUSH)
        sending.cancel()
    log.info("worker stopped", executor=environment.name)


async def _show_life() -> None:
    """Touch the ready file now and then once it is there: one that stays old tells that this process hangs."""
    file = os.environ.get("PROKOS_READY_FILE")
    while file:
        await asyncio.sleep(SIGN_OF_LIFE)
        if Path(file).exists():
            os.utime(file)


def _announce() -> None:
    """Say that tasks are taken from now on: in the log, and by the file `PROKOS_READY_FILE` for whoever probes us."""
    log.info("worker started")
    if file := os.environ.get("PROKOS_READY_FILE"):
        Path(file).touch()


def main() -> None:
    """Run, and turn what cannot be mended by a restart into one clear line."""
    configure_logging()
    allow_deep_variables()
    try:
        file = os.environ.get("PROKOS_EXECUTOR_FILE")
        if not file:
            sys.exit("environment variable PROKOS_EXECUTOR_FILE is not set")
        asyncio.run(serve(Path(file), Path(os.environ.get("PROKOS_WORKDIR", "."))))
    except (LookupError, ValueError, FatalFailure, MissingSecretError) as error:
        # A restart cannot help: the class is missing, or the executor's settings are wrong for it.
        log.error("worker cannot start", reason=str(error))
        sys.exit(78)  # EX_CONFIG of sysexits.h
    except Exception:
        # Python's own traceback would show what the log clears.
        log.exception("worker ends")
        sys.exit(1)
