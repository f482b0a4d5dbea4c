"""A server's description of itself, by gRPC server reflection: asked once, and within bounds.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from prokos.tde.contract import FatalFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

    File = descriptor_pb2.FileDescriptorProto

METHODS = tuple(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))
"""The same messages under two names; older servers know the second one only."""

UNKNOWN = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)
"""How a call of a method ends that the server does not know: the second way if it says so while it is being asked,
which gRPC for asyncio hides."""

MAX_BYTES = 10_000_000
"""Bytes of all descriptors together. Those of Google's whole public API have less."""

MAX_FILES = 2_000
"""Files of them."""


async def reflected(channel: grpc.aio.Channel, service: str, metadata: Sequence[tuple[str, str]]) -> DescriptorPool:
    """Ask a server for the file that describes a service, and all that it imports.

    Args:
        channel: To the server.
        service: Full name of the service.
        metadata: Sent with the calls; a server may ask for a token here, too.

    Raises:
        grpc.RpcError: The server gives none, with the status UNIMPLEMENTED if it knows no reflection.
        FatalFailure: It does not know the service, or describes it in a way that cannot be used.
    """
    request = reflection_pb2.ServerReflectionRequest
    asking = Asking(channel, metadata)
    await asking.ask([request(file_containing_symbol=service)])
    while missing := asking.missing():
        await asking.ask([request(file_by_filename=name) for name in missing])
    return pool_of(asking.files.values())


class Asking:
    """The files that came so far."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str]]) -> None:
        self.files: dict[str, File] = {}
        self._channel = channel
        self._metadata = tuple(metadata)
        self._methods = list(METHODS)
        self._asked: set[str] = set()
        self._size = 0

    def missing(self) -> list[str]:
        """Files that others import, and that did not come.

        Raises:
            FatalFailure: One was asked for and did not come.
        """
        missing = {name for file in self.files.values() for name in file.dependency if name not in self.files}
        if withheld := missing & self._asked:
            raise _unusable(f"it does not show {min(withheld)!r}, which another file imports")
        self._asked |= missing
        return sorted(missing)

    async def ask(self, requests: Sequence[Any]) -> None:
        """Ask, by the newest name of the method that the server knows."""
        try:
            await self._ask(requests)
        except grpc.aio.AioRpcError as error:
            if error.code() not in UNKNOWN or len(self._methods) == 1:
                raise
            del self._methods[0]
            await self._ask(requests)

    async def _ask(self, requests: Sequence[Any]) -> None:
        method = self._channel.stream_stream(self._methods[0], lambda request: request.SerializeToString(), None)
        call = method(iter(requests), metadata=self._metadata)
        answers = 0
        try:
            async for raw in call:
                answers += 1
                self._take(raw)
                if answers == len(requests):
                    return
        finally:
            call.cancel()
        raise _unusable(f"it answered {answers} of {len(requests)} questions")

    def _take(self, raw: bytes) -> None:
        self._size += len(raw)
        if self._size > MAX_BYTES:
            raise _unusable(f"its description has more than {MAX_BYTES} bytes")
        try:
            answer = reflection_pb2.ServerReflectionResponse.FromString(raw)
            if answer.HasField("error_response"):
                # What was asked for is in our words, what went wrong in the server's.
                asked = answer.original_request.file_containing_symbol or answer.original_request.file_by_filename
                said = " ".join(answer.error_response.error_message.split())[:300]
                raise _unusable(f"it does not know {asked[:300]!r} ({said}); correct spec.grpc.method")
            for encoded in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(encoded)
                self.files.setdefault(file.name, file)
        except DecodeError as error:
            raise _unusable(f"its description cannot be read: {error}") from error
        if len(self.files) > MAX_FILES:
            raise _unusable(f"its description has more than {MAX_FILES} files")


def pool_of(files: Any) -> DescriptorPool:
    """A pool of files, each added after those that it imports.

    Raises:
        FatalFailure: They contradict each other, lack one, or import each other in a circle.
    """
    pool, added, waiting = DescriptorPool(), set[str](), list(files)
    while waiting:
        ready = [file for file in waiting if added.issuperset(file.dependency)]
        if not ready:
            raise _unusable("its files import each other in a circle")
        for file in ready:
            try:
                pool.Add(file)
            except TypeError as error:
                raise _unusable(f"its description is wrong: {error}") from error
            added.add(file.name)
        waiting = [file for file in waiting if file.name not in added]
    return pool


def _unusable(why: str) -> FatalFailure:
    return FatalFailure(f"the server does not describe what is to be called: {why}")
