"""Images that mean harm, or break: whatever they answer ends as an outcome of the task, in time and in bounds.

The server is a socket, so that it can say what no HTTP library would.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from helpers import wait_until
from prokos.resources.container_settings import ContainerSettings
from prokos.tde import Environment, FatalFailure, RetryableFailure, Secrets
from prokos.tde.container import ContainerExecutor
from unit.test_tde_container import context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

LIMIT = 100_000


@contextlib.asynccontextmanager
async def image(answer: Answer) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that is healthy, and answers tasks as a test says; yields its port and what it was sent."""
    bodies: list[bytes] = []
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    if head.startswith(b"GET"):
                        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        continue
                    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                    bodies.append(await reader.readexactly(length))
                    await answer(writer)
                    break
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], bodies
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def execute(
    answer: Answer, tmp_path: Path, data: Any = None, timeout: float = 5.0, limit: int = LIMIT
) -> dict[str, Any]:
    """One attempt, within its time as the worker keeps it."""
    async with image(answer) as (port, _):
        settings = ContainerSettings.model_validate({"image": "x", "port": port, "maxResponseBytes": limit})
        executor = ContainerExecutor(settings, Environment("c", tmp_path, 4, Secrets({})))
        await executor.start()
        try:
            async with asyncio.timeout(timeout):
                return await executor.execute(data or {}, context(timeout * 2))
        finally:
            await executor.close()


def saying(content: bytes, *headers: str, status: str = "200 OK") -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"content-length: {len(content)}", *headers))
        writer.write(f"{head}\r\n".encode() + content)
        await writer.drain()

    return answer


async def test_a_stream_without_end_is_left_at_the_limit(tmp_path: Path) -> None:
    sent = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()
            sent += 4096

    with pytest.raises(FatalFailure, match="maxResponseBytes"):
        await execute(answer, tmp_path)
    assert sent < 50 * LIMIT


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_slow_drip_ends_with_the_time_of_the_task(head: bytes, tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    # `TdeWorker` makes of it a failure that is tried again.
    with pytest.raises(TimeoutError):
        await execute(answer, tmp_path, timeout=0.5)


async def test_a_short_answer_does_not_become_a_long_one(tmp_path: Path) -> None:
    bomb = gzip.compress(b'{"output": {"x": "' + b"a" * 50_000_000 + b'"}}', 9)
    assert len(bomb) < LIMIT
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FatalFailure, match="compressed"):
        await execute(saying(bomb, "content-encoding: gzip"), tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b'{"output": {"a": "\xe4"}}',
        b'{"output": {"a": "\\ud800"}}',
        b'{"output": {"a": NaN}}',
        b'{"output": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
        b"[" * 90_000,
        b'{"output": ' + b"9" * 5_000 + b"}",
        b'{"output": {"a": 1}} trailing',
        b"<html>{{7*7}}</html>",
    ],
)
async def test_what_is_not_json_is_an_incident_that_says_so(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FatalFailure, match="it must be an object with output, error or failure"):
        await execute(saying(content), tmp_path)


async def test_garbage_instead_of_http_is_tried_again(tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01SSH-2.0\r\n\r\n")

    with pytest.raises(RetryableFailure, match="cannot be reached"):
        await execute(answer, tmp_path)


async def test_headers_without_end_are_left(tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x-more: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    with pytest.raises(RetryableFailure, match="cannot be reached"):
        await execute(answer, tmp_path)


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    moved = saying(b"", "location: http://169.254.169.254/latest/meta-data/", status="302 Found")
    with pytest.raises(FatalFailure, match="answered 302"):
        await execute(moved, tmp_path)


@pytest.mark.parametrize(
    "text", ["{{7*7}}", "${jndi:ldap://127.0.0.1/x}", "<%= 7*7 %>", "$(id)", "\u0000\u202e", "%s%n"]
)
async def test_data_reaches_the_image_and_comes_back_as_it_is(text: str, tmp_path: Path) -> None:
    async with image(saying(json.dumps({"output": {"back": text}}).encode())) as (port, bodies):
        settings = ContainerSettings.model_validate({"image": "x", "port": port})
        executor = ContainerExecutor(settings, Environment("c", tmp_path, 4, Secrets({})))
        await executor.start()
        assert await executor.execute({"text": text, text: 1}, context()) == {"back": text}
        await executor.close()
    assert json.loads(bodies[0])["input"] == {"text": text, text: 1}


async def test_a_server_that_never_comes_is_said_and_waited_for_no_longer(tmp_path: Path) -> None:
    settings = ContainerSettings.model_validate({"image": "x", "port": 1024, "healthPath": "/up", "startTimeout": "1s"})
    executor = ContainerExecutor(settings, Environment("c", tmp_path, 4, Secrets({})))
    with pytest.raises(
        FatalFailure, match=r"GET http://127.0.0.1:1024/up .* within 1 s: .* check spec.container.port, healthPath"
    ):
        await executor.start()
    await executor.close()


async def test_ten_thousand_rows_are_data_like_any_other(tmp_path: Path) -> None:
    rows = [{"id": number, "text": "x" * 50} for number in range(10_000)]
    content = json.dumps({"output": {"rows": rows}}).encode()
    assert await execute(saying(content), tmp_path, limit=len(content)) == {"rows": rows}
    with pytest.raises(FatalFailure, match=rf"exceeds spec.container.maxResponseBytes \({LIMIT}\)"):
        await execute(saying(content), tmp_path)


async def test_attacks_leave_neither_connections_nor_tasks(tmp_path: Path) -> None:
    me = psutil.Process()

    async def drip(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 200 OK\r\nx: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    attacks = [drip, saying(b"x" * 2 * LIMIT), saying(b"[" * 90_000), saying(b"", "content-length: 5"), saying(b"{}")]
    await execute(saying(b'{"output": {}}'), tmp_path)
    tasks, files = len(asyncio.all_tasks()), me.num_fds()
    for attack in attacks:
        with pytest.raises((FatalFailure, RetryableFailure, TimeoutError)):
            await execute(attack, tmp_path, timeout=0.5)
    await wait_until(
        lambda: len(asyncio.all_tasks()) <= tasks and me.num_fds() <= files,
        describe=lambda: (asyncio.all_tasks(), me.net_connections()),
    )
