"""What `EngineClient` repeats and what not, on a real connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from prokos.engine import Connection, EngineClient, EngineUnavailableError, PayloadTooLargeError, RetryPolicy, to_json
from unit.gateway import Gateway, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Expected to handle gRPC request, but the broker is overloaded")
AWAY = (grpc.StatusCode.UNAVAILABLE, "Expected to find a leader")


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with serving(Gateway(), max_message=10_000) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[EngineClient]:
    async with EngineClient(Connection(gateway.address), RetryPolicy(initial=0.001, maximum=0.01)) as opened:
        yield opened


async def test_repeats_a_command_until_the_engine_takes_it(gateway, client):
    gateway.failures = [BUSY] * 4
    assert (await client.create_instance("orders")).key == 2
    assert len(gateway.calls) == 5


async def test_repeats_a_publication_after_a_lost_connection(gateway, client):
    gateway.failures = [AWAY, AWAY]
    assert await client.publish_message("paid", "7")
    assert len(gateway.calls) == 3


async def test_starts_no_second_instance_after_a_lost_connection(gateway, client):
    gateway.failures = [AWAY]
    with pytest.raises(EngineUnavailableError):
        await client.create_instance("orders")
    assert len(gateway.calls) == 1


async def test_starts_an_instance_once_the_engine_can_be_reached():
    first, second = Gateway(), Gateway()
    async with serving(first):
        pass
    async with EngineClient(Connection(first.address), RetryPolicy(patience=10)) as client:
        starting = asyncio.create_task(client.create_instance("orders"))
        while client._channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            await asyncio.sleep(0.01)
        async with serving(second, address=first.address):
            assert (await starting).key == 2
    assert len(second.calls) == 1


async def test_an_instance_that_no_engine_can_start_says_so():
    gateway = Gateway()
    async with serving(gateway):
        pass
    async with EngineClient(Connection(gateway.address), RetryPolicy(patience=0.1)) as client:
        with pytest.raises(EngineUnavailableError, match="refused"):
            await client.create_instance("orders")


async def test_does_not_repeat_a_payload_that_is_too_large(gateway, client):
    async with asyncio.timeout(5):
        with pytest.raises(PayloadTooLargeError):
            await client.publish_message("paid", "7", {"text": "x" * 20_000})
    assert gateway.calls == []


async def test_a_message_that_is_there_already_is_no_error(gateway, client):
    gateway.failures = [(grpc.StatusCode.ALREADY_EXISTS, "a message with id 'beat-1' is already published")]
    assert not await client.publish_message("beat", "0", message_id="beat-1")


async def test_keeps_the_jobs_of_an_answer_that_breaks_off(gateway, client):
    gateway.failures = [AWAY]
    jobs = await client.activate_jobs("pay", worker="test", limit=5, lease=10)
    assert [job.key for job in jobs] == [7]
    assert len(gateway.calls) == 1


async def test_finds_an_engine_again_that_was_restarted():
    first = Gateway()
    async with serving(first):
        client = EngineClient(Connection(first.address))
        await client.publish_message("ready", "")
    publishing = asyncio.create_task(client.publish_message("ready", ""))
    second = Gateway()
    async with serving(second, address=first.address), client, asyncio.timeout(20):
        assert await publishing
    assert len(second.calls) == 1


async def test_tells_the_state_of_the_cluster(client):
    topology = await client.topology()
    assert topology.ready
    assert (topology.gateway_version, topology.brokers, topology.partitions) == ("8.6.0", 1, 1)


def test_refuses_variables_that_are_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"x": float("nan")})


def test_refuses_variables_that_are_nested_beyond_the_stack():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        to_json({"x": deep})
