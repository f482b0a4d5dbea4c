"""gRPC servers and inputs that mean harm: each ends as a clear failure in time, and the executor goes on working."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import resource
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
import structlog
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2

from prokos.resources.grpc_settings import GrpcSettings
from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.contract import Context, Environment
from prokos.tde.grpc import executor as grpc_executor
from prokos.tde.grpc.executor import GrpcExecutor
from unit.grpc_service import descriptor_file, descriptor_set, payments_server
from unit.http2_server import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    GRPC,
    HEADERS,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Behaviour,
    Http2,
    answer,
    data,
    frame,
    header,
    http2_server,
    message,
    trailers,
)

PATIENCE = 1.0
"""Seconds one attempt has."""

LIMIT = 100_000
"""Bytes of an answer the executor under attack takes."""

MEMORY = 40_000_000
"""Bytes by which an attack may make this process grow."""

FINE = b"\x0a\x04fine"
"""A Receipt whose payment_id is `fine`."""


@asynccontextmanager
async def executing(address: str, method: str = "Pay", **settings: Any) -> AsyncIterator[GrpcExecutor]:
    given = {"descriptorSet": descriptor_set(), "maxResponseBytes": LIMIT, "allowedNetworks": ["127.0.0.0/8"]}
    parsed = GrpcSettings.model_validate(
        {"address": address, "method": f"shop.Payments/{method}", "tls": {"enabled": False}, **given, **settings}
    )
    made = GrpcExecutor(parsed, Environment("payments", Path("/nonexistent"), 4))
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def attempt(executor: GrpcExecutor, given: dict[str, Any] | None = None, seconds: float = PATIENCE) -> Any:
    """The outcome of one attempt: a value or a failure of the contract, never anything else, and in time."""
    started = time.monotonic()
    try:
        context = Context("key-1", timedelta(seconds=seconds), structlog.get_logger())
        return await executor.execute(given or {}, context)
    except (BusinessError, FatalFailure, RetryableFailure) as failure:
        return failure
    finally:
        assert time.monotonic() - started < seconds + 60


def threads() -> int:
    """Threads of this process but for asyncio's pool, which looks up names and keeps its own."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def sending(make: Callable[[int], bytes]) -> Behaviour:
    async def behave(stream: int, writer: asyncio.StreamWriter) -> None:
        writer.write(make(stream))
        await writer.drain()

    return behave


def repeating(first: Callable[[int], bytes], part: Callable[[int], bytes], pause: float = 0) -> Behaviour:
    """The first bytes, then the same ones for ever."""

    async def behave(stream: int, writer: asyncio.StreamWriter) -> None:
        writer.write(first(stream))
        while True:
            writer.write(part(stream))
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


def nothing(stream: int) -> bytes:
    return b""


def head(stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, GRPC)


async def still_works(server: Http2, executor: GrpcExecutor) -> None:
    """What was broken off may take the connection with it; then there is a new one within seconds."""
    server.behave = sending(lambda stream: answer(stream, FINE))
    deadline = time.monotonic() + 30
    while (outcome := await attempt(executor)) != {"paymentId": "fine"}:
        assert isinstance(outcome, RetryableFailure), outcome
        assert time.monotonic() < deadline, outcome
        await asyncio.sleep(0.1)


BOMB = gzip.compress(bytes(60_000_000))
GZIP = header(b"grpc-encoding", b"gzip")

NEVER_ENDING: dict[str, Behaviour] = {
    "silence": repeating(nothing, nothing, 0.01),
    "an answer whose message never comes": repeating(head, nothing, 0.01),
    "a message that drips": repeating(
        lambda stream: head(stream) + frame(DATA, 0, stream, message(bytes(50_000))[:5]),
        lambda stream: frame(DATA, 0, stream, b"x"),
        0.01,
    ),
    "frames without content": repeating(head, lambda stream: frame(DATA, 0, stream), 0.001),
    "pings without end": repeating(head, lambda _: frame(PING, 0, 0, bytes(8)) * 10, 0.001),
    "settings without end": repeating(head, lambda _: frame(SETTINGS, 0, 0) * 10, 0.001),
}

NONSENSE: dict[str, Behaviour] = {
    "garbage": sending(lambda _: bytes(range(256)) * 10),
    "HTTP/1.1": sending(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "another status": sending(lambda stream: frame(HEADERS, END_HEADERS | 1, stream, b"\x8d")),
    "a web page": sending(
        lambda stream: (
            frame(HEADERS, END_HEADERS, stream, b"\x88" + header(b"content-type", b"text/html"))
            + frame(DATA, 1, stream, b"<html>hello</html>")
        )
    ),
    "no status": sending(lambda stream: head(stream) + frame(DATA, 1, stream, message(FINE))),
    "a status that is none": sending(lambda stream: head(stream) + trailers(stream, status=b"many")),
    "a status of the future": sending(lambda stream: head(stream) + trailers(stream, status=b"4711")),
    "OK without a message": sending(lambda stream: head(stream) + trailers(stream)),
    "a failure whose text is not UTF-8": sending(
        lambda stream: head(stream) + trailers(stream, header(b"grpc-message", b"%ff%fe\xff\xfe"), status=b"13")
    ),
    "a failure whose text is endless": sending(
        lambda stream: head(stream) + trailers(stream, header(b"grpc-message", b"x" * 5_000), status=b"13")
    ),
    "a message that is none": sending(lambda stream: answer(stream, b"\xff" * 10)),
    "text that is not UTF-8": sending(lambda stream: answer(stream, b"\x0a\x02\xff\xfe")),
    "a length beyond the end": sending(lambda stream: answer(stream, b"\x0a\xff\xff\xff\x7fx")),
    "groups in groups": sending(lambda stream: answer(stream, b"\x1b" * 50_000)),
    "two messages": sending(
        lambda stream: head(stream) + data(stream, message(FINE) * 2) + trailers(stream, status=b"13")
    ),
    "a message cut off": sending(lambda stream: head(stream) + data(stream, message(FINE)[:-1]) + trailers(stream)),
    "a frame beyond its limit": sending(lambda stream: head(stream) + frame(DATA, 0, stream, bytes(17_000))),
    "an announcement of 4 gigabytes": sending(
        lambda stream: head(stream) + frame(DATA, 0, stream, b"\x00\xff\xff\xff\xff")
    ),
    "a reset": sending(lambda stream: frame(RST_STREAM, 0, stream, b"\x00\x00\x00\x02")),
    "a farewell": sending(lambda _: frame(GOAWAY, 0, 0, bytes(8))),
    "a push": sending(lambda stream: frame(PUSH_PROMISE, END_HEADERS, stream, b"\x00\x00\x00\x02" + GRPC)),
    "a window of none": sending(lambda _: frame(WINDOW_UPDATE, 0, 0, bytes(4))),
    "a window beyond all": sending(lambda _: frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2),
    "a compression nobody knows": sending(
        lambda stream: answer(stream, FINE, header(b"grpc-encoding", b"zip"), compressed=True)
    ),
    "gzip that is none": sending(lambda stream: answer(stream, b"hello", GZIP, compressed=True)),
}

TOO_MUCH: dict[str, Behaviour] = {
    "a message that is too long": sending(lambda stream: answer(stream, b"\x0a\xc0\x84\x3d" + bytes(1_000_000))),
    "a compressed bomb": sending(lambda stream: answer(stream, BOMB, GZIP, compressed=True)),
    "headers without end": repeating(
        lambda stream: frame(HEADERS, 0, stream, GRPC),
        lambda stream: frame(CONTINUATION, 0, stream, header(b"x-a", b"x" * 10_000)),
    ),
    "trailers that are too long": sending(
        lambda stream: head(stream) + trailers(stream, *[header(b"x-a", b"x" * 1_000)] * 15)
    ),
    "data after the limit, without end": repeating(
        lambda stream: head(stream) + frame(DATA, 0, stream, b"\x00\x7f\xff\xff\xff"),
        lambda stream: frame(DATA, 0, stream, bytes(16_384)),
    ),
}


@pytest.fixture
async def server() -> AsyncIterator[Http2]:
    async with http2_server() as serving:
        yield serving


@pytest.fixture
async def executor(server: Http2) -> AsyncIterator[GrpcExecutor]:
    async with executing(f"127.0.0.1:{server.port}") as made:
        yield made


async def test_the_server_of_these_tests_is_understood(server: Http2, executor: GrpcExecutor) -> None:
    await still_works(server, executor)


@pytest.mark.parametrize("name", NEVER_ENDING)
async def test_a_server_that_never_ends_is_left_in_time(server: Http2, executor: GrpcExecutor, name: str) -> None:
    server.behave = NEVER_ENDING[name]
    assert isinstance(await attempt(executor), RetryableFailure)
    await still_works(server, executor)


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_is_a_clear_failure(server: Http2, executor: GrpcExecutor, name: str) -> None:
    server.behave = NONSENSE[name]
    failure = await attempt(executor)
    assert isinstance(failure, FatalFailure | RetryableFailure)
    assert 10 < len(str(failure)) < 1_000
    await still_works(server, executor)


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_a_server_that_sends_too_much_is_cut_off(server: Http2, executor: GrpcExecutor, name: str) -> None:
    await still_works(server, executor)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    server.behave = TOO_MUCH[name]
    failure = await attempt(executor)
    assert isinstance(failure, FatalFailure | RetryableFailure)
    assert len(str(failure)) < 1_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MEMORY
    await still_works(server, executor)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(1_000), b"\x16\x03\x01\x02\x00"])
async def test_what_speaks_no_http2_is_a_failure_that_may_pass(greeting: bytes) -> None:
    async with http2_server() as server:
        server.greeting = greeting
        async with executing(f"127.0.0.1:{server.port}") as executor:
            assert isinstance(await attempt(executor), RetryableFailure)


STREAMS: dict[str, tuple[Behaviour, type[Exception]]] = {
    "messages without end": (repeating(head, lambda stream: data(stream, message(FINE) * 100)), FatalFailure),
    "empty messages without end": (repeating(head, lambda stream: data(stream, message(b"") * 100)), FatalFailure),
    "messages that drip": (repeating(head, lambda stream: data(stream, message(FINE)), 0.05), RetryableFailure),
    "nothing after the first": (
        repeating(lambda stream: head(stream) + data(stream, message(FINE)), nothing, 0.05),
        RetryableFailure,
    ),
    "one that is none": (
        sending(lambda stream: answer(stream, FINE) if stream < 0 else head(stream) + data(stream, message(b"\xff"))),
        FatalFailure,
    ),
    "ten thousand rows": (
        sending(lambda stream: head(stream) + data(stream, message(FINE) * 10_000) + trailers(stream)),
        FatalFailure,
    ),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_ends_within_its_limits(server: Http2, name: str) -> None:
    server.behave, expected = STREAMS[name]
    async with executing(f"127.0.0.1:{server.port}", "History", maxMessages=1_000) as executor:
        # What is cut off for its size must not have to hurry.
        seconds = PATIENCE if expected is RetryableFailure else 60
        assert isinstance(await attempt(executor, seconds=seconds), expected)


async def test_ten_thousand_rows_are_data_like_any_other(server: Http2) -> None:
    server.behave = sending(lambda stream: head(stream) + data(stream, message(FINE) * 10_000) + trailers(stream))
    async with executing(f"127.0.0.1:{server.port}", "History", maxMessages=10_000) as executor:
        assert await attempt(executor, seconds=60) == {"messages": [{"paymentId": "fine"}] * 10_000}


async def test_attacks_leave_neither_connections_nor_tasks_nor_threads(server: Http2) -> None:
    me = psutil.Process()

    async def attack(behaviours: list[Behaviour]) -> None:
        async with executing(f"127.0.0.1:{server.port}") as executor:
            for behaviour in behaviours:
                server.behave = behaviour
                await attempt(executor)

    # grpc has threads of its own, made when they are needed first.
    await attack([*NONSENSE.values()])
    tasks, files, before = len(asyncio.all_tasks()), me.num_fds(), threads()
    for _ in range(2):
        await attack([NEVER_ENDING["a message that drips"], *NONSENSE.values(), *TOO_MUCH.values()])
    deadline = time.monotonic() + 30
    while len(asyncio.all_tasks()) > tasks or me.num_fds() > files or threads() > before:
        assert time.monotonic() < deadline, (asyncio.all_tasks(), me.num_fds() - files, threading.enumerate())
        await asyncio.sleep(0.05)


# Reflection

Files = list[descriptor_pb2.FileDescriptorProto]


def described(*files: descriptor_pb2.FileDescriptorProto) -> bytes:
    encoded = [file.SerializeToString() for file in files]
    answer = reflection_pb2.FileDescriptorResponse(file_descriptor_proto=encoded)
    return reflection_pb2.ServerReflectionResponse(file_descriptor_response=answer).SerializeToString()


def importing(*names: str) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_file()
    file.dependency.extend(names)
    return file


def wrong() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_file()
    file.service[0].method[0].input_type = ".shop.Nothing"
    return file


async def never(_: Any) -> bytes:
    await asyncio.sleep(60)
    return b""


def always(content: bytes) -> Callable[[Any], Any]:
    async def describe(_: Any) -> bytes:
        return content

    return describe


def endless_imports() -> Callable[[Any], Any]:
    numbers = itertools.count()

    async def describe(request: Any) -> bytes:
        number = next(numbers)
        file = importing(f"{number + 1}.proto")
        if number:
            del file.message_type[:]
            del file.service[:]
            file.name = f"{number}.proto"
        return described(file)

    return describe


def many_imports() -> Callable[[Any], Any]:
    async def describe(request: Any) -> bytes:
        name = request.file_by_filename
        if not name:
            return described(importing("a.proto", "b.proto"))
        return described(
            descriptor_pb2.FileDescriptorProto(name=name, dependency=[f"{name[:-6]}{half}.proto" for half in "ab"])
        )

    return describe


REFLECTIONS: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "never answers": lambda: never,
    "garbage": lambda: always(b"\xff" * 100),
    "nothing": lambda: always(b""),
    "files that are none": lambda: always(
        reflection_pb2.ServerReflectionResponse(
            file_descriptor_response=reflection_pb2.FileDescriptorResponse(file_descriptor_proto=[b"\xff"])
        ).SerializeToString()
    ),
    "another service": lambda: always(described(descriptor_pb2.FileDescriptorProto(name="shop.proto"))),
    "types that are not there": lambda: always(described(wrong())),
    "a circle": lambda: always(
        described(importing("a.proto"), descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["shop.proto"]))
    ),
    "a file that imports itself": lambda: always(described(importing("shop.proto"))),
    "a file it does not show": lambda: always(described(importing("/etc/passwd"))),
    "imports without end": endless_imports,
    "twice as many imports each time": many_imports,
    "eleven megabytes": lambda: always(bytes(11_000_000)),
    "an error with a long text": lambda: always(
        reflection_pb2.ServerReflectionResponse(
            error_response=reflection_pb2.ErrorResponse(error_code=5, error_message="no\n" * 10_000)
        ).SerializeToString()
    ),
}


@asynccontextmanager
async def reflecting(describe: Callable[[Any], Any]) -> AsyncIterator[str]:
    async def info(requests: AsyncIterator[Any], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await describe(request)

    handler = grpc.stream_stream_rpc_method_handler(info, reflection_pb2.ServerReflectionRequest.FromString, bytes)
    made = grpc.aio.server()
    name = "grpc.reflection.v1.ServerReflection"
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}),))
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await made.stop(None)


@pytest.mark.parametrize("name", REFLECTIONS)
async def test_a_description_that_means_harm_is_a_clear_failure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_executor, "REFLECTION_TIMEOUT", PATIENCE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    async with reflecting(REFLECTIONS[name]()) as address, executing(address, descriptorSet=None) as executor:
        running = threads()
        failures = [await attempt(executor) for _ in range(2)]
        assert threads() <= running
    for failure in failures:
        assert isinstance(failure, FatalFailure | RetryableFailure)
        assert 10 < len(str(failure)) < 1_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < 2 * MEMORY


async def test_a_cancelled_attempt_does_not_go_on_asking() -> None:
    async with reflecting(never) as address, executing(address, descriptorSet=None) as executor:
        asking = asyncio.create_task(attempt(executor))
        await asyncio.sleep(0.3)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        # Whoever comes next does not wait for the one before.
        second = asyncio.create_task(attempt(executor))
        await asyncio.sleep(0.3)
        assert not second.done()
        second.cancel()


async def test_a_service_with_imports_is_described_by_the_newest_reflection() -> None:
    """Its messages are in files of their own, which are asked for by name, each once."""
    names: list[str] = []
    whole = descriptor_file()
    service = descriptor_pb2.FileDescriptorProto(name="service.proto", package="shop", dependency=["shop.proto"])
    service.service.extend(whole.service)
    del whole.service[:]

    async def describe(request: Any) -> bytes:
        names.append(request.file_by_filename)
        return described(whole if request.file_by_filename else service)

    async with reflecting(describe) as address, executing(address, descriptorSet=None) as executor:
        for _ in range(2):
            failure = await attempt(executor, {"orderId": "o"}, seconds=60)
            assert "UNIMPLEMENTED" in str(failure), "the service is described, but not there"
    assert names == ["", "shop.proto"]


# Addresses and inputs

FORBIDDEN = [
    "127.0.0.1", "localhost", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[fd00:ec2::254]", "169.254.169.254",
    "2852039166", "0xA9FEA9FE", "100.100.100.200", "168.63.129.16", "10.0.0.1", "192.168.0.1", "100.64.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", FORBIDDEN)
async def test_no_way_of_writing_a_forbidden_address_reaches_it(server: Http2, host: str) -> None:
    async with executing(f"{host}:{server.port}", allowedNetworks=[]) as executor:
        outcome = await attempt(executor)
    assert isinstance(outcome, FatalFailure)
    assert "spec.grpc.allowedNetworks" in str(outcome)
    assert server.connections == 0


async def test_the_environment_names_no_proxy(server: Http2, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with executing(f"127.0.0.1:{server.port}") as executor:
        await still_works(server, executor)


async def test_addresses_that_change_do_not_pile_up_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    me = psutil.Process()
    addresses = itertools.cycle([["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.3", "127.0.0.1"]])

    async def resolver(host: str, port: int) -> list[str]:
        return next(addresses)

    async with payments_server() as (_, address), executing(address) as executor:
        executor._resolver = resolver
        for _ in range(3):
            await attempt(executor)
        before = me.num_fds()
        for _ in range(30):
            assert (await attempt(executor, {"orderId": "o"}, 60))["paymentId"] == "pppp"
        # The server notices a moment later.
        deadline = time.monotonic() + 10
        while me.num_fds() > before + 4:
            assert time.monotonic() < deadline, me.num_fds() - before
            await asyncio.sleep(0.05)


INPUTS: list[Any] = [
    "x\r\nx-injected: 1", "{{7*7}}", "${7*7}", "\x00", "\ud800", "😀" * 1000, "a" * 100_000, "'; DROP TABLE x; --",
]  # fmt: skip


@pytest.mark.parametrize("value", INPUTS)
async def test_input_stays_in_its_place(value: str) -> None:
    async with payments_server() as (service, address), executing(address) as executor:
        outcome = await attempt(executor, {"orderId": value}, 60)
    if not isinstance(outcome, FatalFailure):
        ((request, metadata),) = service.calls
        assert request.order_id == value
        assert "x-injected" not in metadata
    else:
        assert "\ud800" in value, "only what is no text is refused"


async def test_a_nest_of_a_million_brackets_is_refused() -> None:
    nest: Any = []
    for _ in range(100_000):
        nest = [nest]
    async with payments_server() as (_, address), executing(address) as executor:
        assert isinstance(await attempt(executor, {"orderId": nest}), FatalFailure)


async def test_a_request_that_the_server_finds_too_large_is_not_repeated() -> None:
    async with payments_server() as (_, address), executing(address) as executor:
        failure = await attempt(executor, {"orderId": "x" * 5_000_000}, seconds=60)
    assert isinstance(failure, FatalFailure)
    assert "maxResponseBytes" not in str(failure)
