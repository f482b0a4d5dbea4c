"""Lost connections to the engine, and which jobs must not be trusted after one.

A broker sends a job to its worker before it has written down that there is one (Camunda 8: records are appended by
another thread). Killed in this moment, it forgets the job; when it is back, it gives the job's key to something else:
another instance's task, a TDE, a beat. Whoever then completes the key he remembers, completes that. So after a lost
connection nothing is done any more with jobs that came shortly before it: the engine offers those that it remembers
again when their leases end.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import grpc
import grpc.aio

if TYPE_CHECKING:
    from prokos.engine.job import Job

DOUBT = 5.0
"""Seconds before a lost connection within which the engine may have done what it then forgot. It writes within
milliseconds; where 50 processes shared two processors it took up to two seconds."""


class Losses:
    """The losses of one connection."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._at = -math.inf
        self._next = asyncio.Event()

    async def watch(self) -> None:
        """Take note of each loss. Runs until cancelled."""
        state = self._channel.get_state()
        while True:
            await self._channel.wait_for_state_change(state)
            before, state = state, self._channel.get_state()
            if before is grpc.ChannelConnectivity.READY:
                self.note()

    def note(self) -> None:
        """The connection was lost just now."""
        self._at = time.monotonic()
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the next loss."""
        await self._next.wait()

    def doubts(self, job: Job) -> bool:
        """Whether the engine may have forgotten a job, so that its key may be another's by now."""
        return self._at - DOUBT < job.received_at <= self._at
