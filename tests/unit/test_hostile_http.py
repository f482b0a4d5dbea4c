"""Services and inputs that mean harm: each ends as a clear failure in time, and the executor goes on working."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import json
import re
import resource
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psutil
import pytest

from prokos.tde import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.http.executor import HttpExecutor
from unit.http_bench import context, executing, resolving_to

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LIMIT = 100_000
"""Bytes of an answer the executor under attack takes."""

PATIENCE = 1.0
"""Seconds one attempt has."""

MEMORY = 40_000_000
"""Bytes by which an attack may make this process grow."""


class Hostile:
    """A server that speaks raw bytes."""

    def __init__(self) -> None:
        self.behave: Behaviour = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        self.connections = 0
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await self.behave(reader, writer)
        writer.close()


def answering(*parts: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return behave


def repeating(first: bytes, part: bytes, pause: float = 0) -> Behaviour:
    """The first bytes, then the same ones for ever."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


def answer(body: bytes, *headers: str) -> Behaviour:
    head = "".join(f"{header}\r\n" for header in headers)
    return answering(f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


@pytest.fixture
async def hostile() -> AsyncIterator[Hostile]:
    server = Hostile()
    async with await asyncio.start_server(server.handle, "127.0.0.1", 0, limit=1_000_000) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


@pytest.fixture
async def executor(hostile: Hostile) -> AsyncIterator[HttpExecutor]:
    async with executing(
        url=f"http://127.0.0.1:{hostile.port}/{{path}}", max_response_bytes=LIMIT, result_variable="answer"
    ) as started:
        yield started


async def attempt(executor: HttpExecutor, data: dict[str, Any] | None = None, seconds: float = PATIENCE) -> Any:
    """The outcome of one attempt: a value or a failure of the contract, never anything else, and in time."""
    started = time.monotonic()
    try:
        return await executor.execute(data or {"path": "x"}, context(seconds))
    except (BusinessError, FatalFailure, RetryableFailure) as failure:
        return failure
    finally:
        assert time.monotonic() - started < seconds + 60


async def still_works(hostile: Hostile, executor: HttpExecutor) -> None:
    hostile.behave = answer(b'{"fine": true}')
    assert (await attempt(executor, seconds=60))["answer"]["body"] == {"fine": True}


GZIP = "Content-Encoding: gzip"
JSON = "Content-Type: application/json"
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@functools.cache
def bomb(size: int = 300_000_000) -> bytes:
    """Zeros, compressed to a thousandth."""
    compressor = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    parts = [compressor.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)]
    return b"".join([*parts, compressor.flush()])


NEVER_ENDING: dict[str, Behaviour] = {
    "silence": repeating(b"", b"", 0.01),
    "a status line that drips": repeating(b"HTTP/1.1 200", b" ", 0.01),
    "headers that drip": repeating(HEAD, b"X-A: b\r\n", 0.01),
    "a body that drips": repeating(HEAD + b"Content-Length: 1000000\r\n\r\n", b"x", 0.01),
    "chunks that drip": repeating(CHUNKED, b"1\r\nx\r\n", 0.01),
    "interim answers without end": repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim answers that drip": repeating(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.01),
}

TOO_MUCH: dict[str, Behaviour] = {
    "one header without end": repeating(HEAD + b"X-A: ", b"x" * 10_000),
    "headers without end": repeating(HEAD, b"X-A: b\r\n" * 1_000),
    "a status line without end": repeating(b"HTTP/1.1 200 ", b"x" * 10_000),
    "a body without end": repeating(HEAD + b"\r\n", b"x" * 10_000),
    "chunks without end": repeating(CHUNKED, b"2710\r\n" + b"x" * 10_000 + b"\r\n"),
    "a chunk extension without end": repeating(CHUNKED + b"1;", b"x" * 10_000),
    "trailers without end": repeating(CHUNKED + b"0\r\n", b"X-A: b\r\n" * 1_000),
    "a chunk of 16 exabytes": answering(CHUNKED + b"ffffffffffffffff\r\nx"),
    "a length of many digits": answering(HEAD + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n"),
    "a compressed bomb": answer(bomb(), GZIP),
    "a bomb that claims to be JSON": answer(bomb(), GZIP, JSON),
    "a deflate bomb without end": repeating(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(bytes(1_000_000))),
    "a bomb in a bomb": answer(gzip.compress(bomb()), "Content-Encoding: gzip, gzip"),
    "a hundred thousand empty gzip members": repeating(
        HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"") * 100
    ),
}

NONSENSE: dict[str, Behaviour] = {
    "nothing": answering(b""),
    "garbage": answering(bytes(range(256)) * 100),
    "HTTP/0.9": answering(b"<html>hello</html>"),
    "HTTP/2": answering(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "TLS": answering(b"\x16\x03\x01\x02\x00\x01\x00"),
    "a status of four digits": answering(b"HTTP/1.1 2000 OK\r\n\r\n"),
    "a negative length": answering(HEAD + b"Content-Length: -5\r\n\r\n"),
    "two lengths": answering(HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    "a body cut off": answering(HEAD + b"Content-Length: 50\r\n\r\nhello"),
    "a chunk cut off": answering(CHUNKED + b"ff\r\nhello"),
    "a chunk of nonsense": answering(CHUNKED + b"zz\r\nhello\r\n"),
    "a header without a name": answering(HEAD + b": x\r\n\r\n"),
    "a header with NUL": answering(HEAD + b"X-A: a\x00b\r\n\r\n"),
    "an upgrade nobody asked for": answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello"),
    "gzip that is none": answer(b"hello", GZIP),
    "gzip that is cut off": answer(gzip.compress(b"hello" * 100)[:-5], GZIP),
    "JSON that is none": answer(b"{", JSON),
    "JSON of a million brackets": answer(b"[" * 90_000, JSON),
    "JSON nested and closed": answer(b"[" * 40_000 + b"]" * 40_000, JSON),
    "JSON with an endless number": answer(b"1" * 90_000, JSON),
    "JSON with NaN": answer(b'{"a": NaN}', JSON),
    "JSON with half a surrogate pair": answer(b'{"a": "\\ud800"}', JSON),
    "JSON that is not UTF-8": answer(b'{"a": "\xff\xfe"}', JSON),
    "text that is not UTF-8": answer(b"\xff\xfe\xfd", "Content-Type: text/plain; charset=utf-8"),
    "a charset of quadratic time": answer(b"a" * 90_000 + b"-zz", "Content-Type: text/plain; charset=punycode"),
    "a charset that runs code": answer(b"\\x41" * 10, "Content-Type: text/plain; charset=unicode_escape"),
    "a charset that decompresses": answer(zlib.compress(bytes(10_000_000)), "Content-Type: text/plain; charset=zlib"),
    "a charset that is a path": answer(b"x", "Content-Type: text/plain; charset=../../etc/passwd"),
    "a very long charset": answer(b"x", "Content-Type: text/plain; charset=" + "x" * 50_000),
    "a Retry-After of the year 9999": answering(
        b"HTTP/1.1 503 No\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 -2359\r\nContent-Length: 0\r\n\r\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEVER_ENDING)
async def test_a_service_that_never_ends_is_left_in_time(hostile: Hostile, executor: HttpExecutor, name: str) -> None:
    hostile.behave = NEVER_ENDING[name]
    failure = await attempt(executor)
    assert isinstance(failure, RetryableFailure)
    assert "GET http://127.0.0.1" in str(failure)
    await still_works(hostile, executor)


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_a_service_that_sends_too_much_is_cut_off(hostile: Hostile, executor: HttpExecutor, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    hostile.behave = TOO_MUCH[name]
    failure = await attempt(executor)
    assert isinstance(failure, FatalFailure | RetryableFailure)
    assert len(str(failure)) < 1_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MEMORY
    await still_works(hostile, executor)


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_is_a_clear_failure(hostile: Hostile, executor: HttpExecutor, name: str) -> None:
    hostile.behave = NONSENSE[name]
    failure = await attempt(executor)
    assert isinstance(failure, FatalFailure | RetryableFailure)
    assert 10 < len(str(failure)) < 1_000
    await still_works(hostile, executor)


async def test_attacks_leave_neither_connections_nor_tasks(hostile: Hostile, executor: HttpExecutor) -> None:
    me = psutil.Process()
    await still_works(hostile, executor)
    tasks, files = len(asyncio.all_tasks()), me.num_fds()
    for behaviour in (NEVER_ENDING["a body that drips"], *NONSENSE.values(), *TOO_MUCH.values()):
        hostile.behave = behaviour
        await attempt(executor)
    await still_works(hostile, executor)
    # The server needs a moment to notice that it was left.
    deadline = time.monotonic() + 10
    while len(asyncio.all_tasks()) > tasks or me.num_fds() > files:
        assert time.monotonic() < deadline, asyncio.all_tasks()
        await asyncio.sleep(0.01)


async def test_ten_thousand_rows_are_data_like_any_other(hostile: Hostile) -> None:
    rows = [{"id": number, "text": "x" * 50} for number in range(10_000)]
    hostile.behave = answer(json.dumps(rows).encode(), JSON)
    async with executing(url=f"http://127.0.0.1:{hostile.port}/") as executor:
        assert await executor.execute({}, context()) == {"result": rows}
    async with executing(url=f"http://127.0.0.1:{hostile.port}/", max_response_bytes=LIMIT) as executor:
        with pytest.raises(FatalFailure, match="maxResponseBytes"):
            await executor.execute({}, context())


# Addresses

FORBIDDEN = [
    "127.0.0.1", "localhost", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.1", "127.0.0.1.",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]",
    "[2001:0:7f00:1::]", "[fe80::5efe:127.0.0.1]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]",
    "169.254.169.254", "2852039166", "0xA9FEA9FE", "169.254.43518", "100.100.100.200", "168.63.129.16",
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255",
    "１２７.０.０.１", "⑯⑨.254.169.254", "127。0。0。1", "①②⑦.⓪.⓪.①",  # noqa: RUF001 - what IDNA makes digits of
]  # fmt: skip


@pytest.mark.parametrize("host", FORBIDDEN)
async def test_no_way_of_writing_a_forbidden_address_reaches_it(hostile: Hostile, host: str) -> None:
    async with executing(url="{+url}", allowed_networks=[]) as executor:
        outcome = await attempt(executor, {"url": f"http://{host}:{hostile.port}/"}, seconds=60)
    # What is a name to the resolver (what Unicode makes of some, and 127.0.0.1. with its dot) is not reached either.
    assert isinstance(outcome, FatalFailure | RetryableFailure)
    assert isinstance(outcome, FatalFailure) or re.search("cannot resolve|looking up", str(outcome))
    assert hostile.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"], ["::ffff:127.0.0.1"], ["fe80::1%lo"], []],
)
async def test_one_forbidden_address_among_others_is_enough(hostile: Hostile, addresses: list[str]) -> None:
    async with executing(
        url=f"http://pay.example:{hostile.port}/", allowed_networks=[], resolver=resolving_to(*addresses)
    ) as executor:
        assert isinstance(await attempt(executor), FatalFailure | RetryableFailure)
    assert hostile.connections == 0


async def test_a_name_that_changes_its_address_is_judged_at_each_connection(hostile: Hostile) -> None:
    """The first answer is allowed, all others are not; the connection that is open stays where it was judged."""
    answers = ["127.0.0.1"]

    async def rebinding(host: str, port: int) -> list[str]:
        return [answers.pop()] if answers else ["169.254.169.254"]

    url = f"http://pay.example:{hostile.port}/"
    async with executing(url=url, resolver=rebinding) as executor:
        assert await attempt(executor, seconds=60) == {}
        hostile.behave = answering(b"")
        outcomes = [await attempt(executor) for _ in range(2)]
    assert "refused to call pay.example resolves to 169.254.169.254" in str(outcomes[-1])
    assert hostile.connections <= 2


# Inputs

INJECTIONS = [
    "x\r\nX-Injected: 1", "x\nX-Injected: 1", "x HTTP/1.1\r\nHost: evil\r\n\r\n", "{{7*7}}", "${7*7}", "{path}",
    "{+url}", "%0d%0aX-Injected: 1", "../../admin", "..%2f..%2fadmin", "\x00", "\ud800", "\u2028", "😀" * 1000,
    "a" * 100_000,
    "@evil.example", "//evil.example/", "\\\\evil.example\\", "?x=1#y", "'; DROP TABLE x; --", "<script>", "=1+1",
]  # fmt: skip


@pytest.mark.parametrize("value", INJECTIONS)
@pytest.mark.parametrize("body_format", ["json", "form", "multipart", "text"])
async def test_input_stays_in_its_place(hostile: Hostile, value: str, body_format: str) -> None:
    received = bytearray()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.readuntil(b"\r\n\r\n"))
        await record(reader, writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, limit=1_000_000) as server:
        port = server.sockets[0].getsockname()[1]
        async with executing(
            url=f"http://127.0.0.1:{port}/a/{{path}}",
            method="PUT",
            query={"q": "path"},
            body="path" if body_format == "text" else "input",
            body_format=body_format,
        ) as executor:
            outcome = await attempt(executor, {"path": value, value: value}, 60)
    if isinstance(outcome, FatalFailure | RetryableFailure):
        assert not received, outcome
    else:
        lines = bytes(received).split(b"\r\n")
        assert lines[0].startswith(b"PUT /a/")
        assert lines[0].count(b" ") == 2
        names = {line.partition(b":")[0].lower() for line in lines[1:] if line}
        assert b"x-injected" not in names
        assert [line for line in lines if line.lower().startswith(b"host:")] == [f"Host: 127.0.0.1:{port}".encode()]
        assert b"/a/../" not in lines[0]
