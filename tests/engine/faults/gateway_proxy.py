"""A proxy before the engine's gRPC gateway, in which a test loses and delays single commands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio

STREAMS = {"ActivateJobs", "StreamActivatedJobs"}
"""Commands with many answers. All others have one."""

FORWARD_TIMEOUT = 15.0
"""Seconds, whatever is left of the client's own: a rule may have held the command back."""

MESSAGE_LIMIT = ("grpc.max_receive_message_length", 16 * 1024 * 1024)

Forward = Callable[[], Awaitable[bytes]]
Rule = Callable[[bytes, Forward], Awaitable[bytes]]
"""What becomes of a command: gets the request, may forward it to the engine, returns the answer. Raises `LostError`."""


class LostError(Exception):
    """The answer does not reach the client."""


class Proxy(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Passes everything on, by the rules of the commands that have one."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.address = ""
        self.rules: dict[str, Rule] = {}

    def service(self, details: Any) -> Any:
        """The handler of a command."""
        command = details.method.rpartition("/")[2]
        if command in STREAMS:
            return grpc.unary_stream_rpc_method_handler(partial(self._stream, details.method))
        return grpc.unary_unary_rpc_method_handler(partial(self._one, details.method, command))

    async def _one(self, method: str, command: str, request: bytes, context: Any) -> bytes:
        async def forward() -> bytes:
            answer: bytes = await self._channel.unary_unary(method)(request, timeout=FORWARD_TIMEOUT)
            return answer

        try:
            rule = self.rules.get(command)
            return await (rule(request, forward) if rule else forward())
        except LostError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
        raise AssertionError("abort raises")

    async def _stream(self, method: str, request: bytes, _: Any) -> AsyncIterator[bytes]:
        call = self._channel.unary_stream(method)(request)
        try:
            async for answer in call:
                yield answer
        finally:
            call.cancel()

    async def serve(self, ready: Future[None], stop: Future[None]) -> None:
        """Serve on a free port until told to stop."""
        async with grpc.aio.insecure_channel(self.engine, options=[MESSAGE_LIMIT]) as self._channel:
            server = grpc.aio.server(options=[MESSAGE_LIMIT])
            server.add_generic_rpc_handlers([self])
            self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            ready.set_result(None)
            await asyncio.wrap_future(stop)
            await server.stop(grace=None)


@contextmanager
def running_proxy(engine: str) -> Iterator[Proxy]:
    """A proxy in a thread of its own, for the length of the context."""
    proxy, ready, stop = Proxy(engine), Future[None](), Future[None]()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(ready, stop)), name="proxy")
    thread.start()
    try:
        ready.result(timeout=30)
        yield proxy
    finally:
        stop.set_result(None)
        thread.join()
