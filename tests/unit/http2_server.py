"""A server that speaks HTTP/2 frame by frame, so that it can also say what no library would."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Behaviour = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
"""What the server does with a call, which it gets as the number of its stream and where to write."""

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """A header field that is neither indexed nor compressed (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    length, out = len(text), bytearray()
    if length < 127:
        return bytes([length]) + text
    out.append(127)
    length -= 127
    while length >= 128:
        out.append(length % 128 + 128)
        length //= 128
    return bytes([*out, length]) + text


STATUS_200 = b"\x88"
GRPC = STATUS_200 + header(b"content-type", b"application/grpc")


def message(content: bytes, *, compressed: bool = False) -> bytes:
    """A message of gRPC, with its length before it."""
    return struct.pack(">BI", compressed, len(content)) + content


def data(stream: int, content: bytes) -> bytes:
    """A message in as many frames as it takes."""
    return b"".join(frame(DATA, 0, stream, content[start : start + 16_384]) for start in range(0, len(content), 16_384))


def trailers(stream: int, *fields: bytes, status: bytes = b"0") -> bytes:
    """The end of a call."""
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, header(b"grpc-status", status) + b"".join(fields))


def answer(stream: int, content: bytes, *fields: bytes, compressed: bool = False) -> bytes:
    """A whole answer."""
    head = frame(HEADERS, END_HEADERS, stream, GRPC + b"".join(fields))
    return head + data(stream, message(content, compressed=compressed)) + trailers(stream)


async def silent(stream: int, writer: asyncio.StreamWriter) -> None:
    """Never answer."""


class Http2:
    """The server; `behave` gets the number of a stream that a call has opened, and where to write."""

    def __init__(self) -> None:
        self.behave: Behaviour = silent
        self.greeting = frame(SETTINGS, 0, 0)
        self.port = 0
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answering: set[asyncio.Task[None]] = set()
        try:
            writer.write(self.greeting)
            await reader.readexactly(len(PREFACE))
            while True:
                if (stream := await self._call(reader, writer)) is not None:
                    answering.add(asyncio.create_task(self._answer(stream, writer)))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # a client that left needs no answer
        finally:
            for task in answering:
                task.cancel()
            writer.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        """Read a frame; the number of the stream if it opens one."""
        head = await reader.readexactly(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        content = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags & ACK:
            writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            writer.write(frame(PING, ACK, 0, content))
        return stream if kind == HEADERS else None

    async def _answer(self, stream: int, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await self.behave(stream, writer)


@contextlib.asynccontextmanager
async def http2_server() -> AsyncIterator[Http2]:
    """Serve on loopback."""
    server = Http2()
    async with await asyncio.start_server(server.handle, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server
