"""The broker's partitions, as its management API knows them: whether they work, and how much a start would replay."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import urllib.request
from dataclasses import dataclass
from typing import Any

import structlog

ANSWER_TIMEOUT = 5.0
"""Seconds the engine's web server may take to answer."""

SAVED_AFTER = 50_000
"""Records that may be logged since the last snapshot before a snapshot is due. A start replays them, 10,000 to 30,000 a
second on two processors, and does nothing else meanwhile; a dispatched task makes about 50. By itself the broker takes
a snapshot every five minutes, and none when it is killed more often than that."""

LOOK = 3.0
"""Seconds between two looks at how much was logged. A snapshot costs so little that it cannot be measured."""

DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The engine listens on loopback, which no proxy reaches."""

log = structlog.get_logger("prokos.engine")


class ManagementError(Exception):
    """The management API does not answer, or not as it should."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition as it is."""

    phase: str
    """Of its stream processor: `INITIAL`, `REPLAY`, `PROCESSING`, `PAUSED` or `FAILED`."""
    unsaved: int
    """Records since the last snapshot."""

    @property
    def replays(self) -> bool:
        """Whether it executes no commands yet."""
        return self.phase in {"INITIAL", "REPLAY"}


async def read_partitions(management_url: str) -> list[Partition]:
    """All partitions.

    Raises:
        ManagementError: There is no answer.
    """
    found = json.loads(await asyncio.to_thread(_request, "GET", f"{management_url}/actuator/partitions"))
    return [_partition(described) for described in found.values()]


def _partition(described: dict[str, Any]) -> Partition:
    saved = described.get("processedPositionInSnapshot") or 0
    return Partition(described.get("streamProcessorPhase", ""), (described.get("processedPosition") or 0) - saved)


async def save_often(management_url: str) -> None:
    """Have the broker take snapshots when it has logged much. Runs until cancelled, also while there is no broker."""
    while True:
        await asyncio.sleep(LOOK)
        with contextlib.suppress(ManagementError):
            partitions = await read_partitions(management_url)
            if any(one.phase == "PROCESSING" and one.unsaved > SAVED_AFTER for one in partitions):
                await asyncio.to_thread(_request, "POST", f"{management_url}/actuator/partitions/takeSnapshot")
                log.debug("the engine was asked for a snapshot", records=[one.unsaved for one in partitions])


def _request(method: str, url: str) -> bytes:
    try:
        with DIRECTLY.open(urllib.request.Request(url, method=method), timeout=ANSWER_TIMEOUT) as response:  # noqa: S310
            return bytes(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise ManagementError(f"{url}: {error}") from error
