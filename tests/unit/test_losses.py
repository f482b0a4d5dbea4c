"""Which jobs are not trusted after a connection was lost, on a real connection."""

from __future__ import annotations

from dataclasses import replace

import grpc

from helpers import wait_until
from prokos.engine import Connection, EngineClient
from prokos.engine.losses import DOUBT, Losses
from unit.builders import job
from unit.gateway import Gateway, serving


async def test_jobs_that_came_just_before_a_lost_connection_are_doubted_and_no_others():
    gateway = Gateway()
    async with serving(gateway):
        client = EngineClient(Connection(gateway.address))
        await client.__aenter__()
        await client.publish_message("ready", "")
        recent = job(1)
        old = replace(recent, received_at=recent.received_at - DOUBT - 1)
        assert not client.losses.doubts(recent)
    try:
        await wait_until(lambda: client.losses.doubts(recent))
        assert not client.losses.doubts(old)
        assert not client.losses.doubts(job(1))
    finally:
        await client.close()


async def test_a_command_that_fails_is_no_lost_connection():
    gateway = Gateway()
    async with serving(gateway), EngineClient(Connection(gateway.address)) as client:
        given = job(1)
        gateway.failures = [(grpc.StatusCode.UNAVAILABLE, "no leader")]
        await client.publish_message("ready", "")
        assert not client.losses.doubts(given)


def test_a_later_loss_counts_as_well():
    losses = Losses(None)
    losses.note()
    given = job(1)
    assert not losses.doubts(given)
    losses.note()
    assert losses.doubts(given)
