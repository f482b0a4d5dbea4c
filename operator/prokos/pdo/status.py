"""The PDO's status API and the port where workers say what has become of their tasks."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from prokos.pdo.executing import Executed
from prokos.pdo.metrics import render_metrics

if TYPE_CHECKING:
    from prokos.pdo.beat import Heartbeat
    from prokos.pdo.service import Pdo

DEFAULT_LIMIT = 50

log = structlog.get_logger(__name__)


def build_status(pdo: Pdo, heartbeat: Heartbeat) -> dict[str, Any]:
    """The state of this PDO as JSON. Times are seconds since the epoch.

    `inFlight` and `running` count the tasks that have not ended, by executor and by process. `executing` tells of how
    many of them workers speak, and how many of those were taken here; the others may be counted by other replicas, too.
    """
    executing, here = pdo.executing.counts(), pdo.executing.counts(among=pdo.flights)
    in_flight, running = Counter(pdo.flights.by_executor()), Counter(pdo.flights.by_process())
    for (executor, process), tasks in (executing - here).items():
        in_flight[executor] += tasks
        running[process] += tasks
    return {
        "worker": pdo.worker,
        "now": time.time(),
        "shards": [
            {"shard": shard, "beat": number, "at": at} for shard, (number, at) in sorted(heartbeat.last.items())
        ],
        "jobTypes": sorted(pdo.registry.job_types),
        "counts": dict(pdo.journal.counts),
        "inFlight": dict(in_flight),
        "running": dict(running),
        "executing": [
            {"executor": executor, "process": process, "tasks": tasks, "here": here[executor, process]}
            for (executor, process), tasks in sorted(executing.items())
        ],
    }


def build_app(pdo: Pdo, heartbeat: Heartbeat) -> web.Application:
    """The HTTP API: `/healthz`, `/status`, `/tasks?limit=N`."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def status(_: web.Request) -> web.Response:
        return web.json_response(build_status(pdo, heartbeat))

    async def tasks(request: web.Request) -> web.Response:
        text = request.query.get("limit", str(DEFAULT_LIMIT))
        if not text.isdecimal():
            raise web.HTTPBadRequest(text=f"limit={text!r} is not a number\n")
        return web.json_response(pdo.journal.latest(int(text)))

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=render_metrics(pdo, heartbeat), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/status", status),
            web.get("/tasks", tasks),
            web.get("/metrics", metrics),
        ]
    )
    return app


async def receive_hints(pdo: Pdo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read one worker's hints, JSON lines, until it hangs up. A line that is no hint ends the connection."""
    try:
        while line := await reader.readline():
            hint = json.loads(line)
            job, retries = int(hint["job"]), int(hint["retries"])
            if "executing" in hint:
                until = time.monotonic() + float(hint["executing"])
                pdo.executing.heard(job, Executed(retries, str(hint["executor"]), str(hint["process"]), until))
                continue
            pdo.executing.ended(job, retries)
            pdo.flights.ended(job, retries, str(hint["outcome"]), str(hint.get("message", "")))
    except (ValueError, KeyError, TypeError, ConnectionError) as error:
        log.warning("hint connection closed", error=str(error))
    except asyncio.CancelledError:
        # The PDO stops. Nobody awaits this task, so raising would only print a traceback.
        return
    finally:
        writer.close()
