"""The heartbeat's jobs: one beat scans its shard for its length, then calls the next.

The call is a message to the process's own start event, correlated by the shard: the engine keeps it until this
instance has ended and starts the next one then, so a shard has one beat at a time, for ever, without nesting.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.engine import EngineClient, Job
    from prokos.engine.steps import Step
    from prokos.pdo.service import Pdo

BEAT_MESSAGE = "prokos.pdo.beat"
"""Message that starts a beat; its correlation key is the shard."""

NEXT_BEAT_KEPT = 60.0
"""Seconds the engine keeps the call of the next beat. It is taken at once; the rest covers an engine restart."""

SHOWN = 20
"""Tasks a beat's summary names."""

log = structlog.get_logger(__name__)


class Heartbeat:
    """Handlers of the PDO process's jobs."""

    def __init__(self, client: EngineClient, pdo: Pdo) -> None:
        self.client = client
        self.pdo = pdo
        self.last: dict[int, tuple[int, float]] = {}
        """Number and time (seconds since the epoch) of each shard's last beat here."""

    def handlers(self) -> Mapping[str, Step]:
        """Job type to handler."""
        return {"prokos.pdo.scan": self.scan, "prokos.pdo.beat": self.beat_again}

    async def scan(self, job: Job) -> dict[str, Any]:
        """Serve one beat: scan, tag, route and dispatch for its length, and say what was done."""
        variables = job.variables
        shard, number = int(variables["shard"]), int(variables.get("beat", 0))
        before = dict(self.pdo.journal.counts)
        self.pdo.beat(shard, number)
        self.last[shard] = (number, time.time())
        await asyncio.sleep(self.pdo.settings.beat_interval.total_seconds())
        counts = {
            state: count - before.get(state, 0)
            for state, count in self.pdo.journal.counts.items()
            if count > before.get(state, 0)
        }
        tasks = self.pdo.journal.of_beat(number, SHOWN) if counts else []
        return {"summary": {**counts, "inFlight": len(self.pdo.flights)}, "tasks": [shown(task) for task in tasks]}

    async def beat_again(self, job: Job) -> None:
        """Call the next beat. Repeated, it is one and the same call."""
        variables = job.variables
        shard, number = int(variables["shard"]), int(variables.get("beat", 0)) + 1
        if shard >= self.pdo.settings.shards:
            log.info("shard is no longer wanted; its heartbeat ends", shard=shard)
            return
        await self.client.publish_message(
            BEAT_MESSAGE,
            str(shard),
            {"shard": shard, "beat": number},
            ttl=NEXT_BEAT_KEPT,
            message_id=f"beat-{shard}-{job.process_instance_key}",
        )


def shown(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task as a beat's variables show it."""
    return {key: task[key] for key in ("process", "instance", "element", "job", "executor", "source", "state")}
