"""The messages of a method that is known by name only, and of which there are descriptors."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from prokos.tde.contract import FatalFailure

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor


@dataclass(frozen=True, slots=True)
class Method:
    """A method that can be called."""

    path: str
    request: type[Any]
    response: type[Any]
    streams: bool
    pool: DescriptorPool
    """Knows the types that `google.protobuf.Any` may hold."""


def read_descriptor_set(encoded: str) -> DescriptorPool:
    """Read `spec.grpc.descriptorSet`.

    Raises:
        ValueError: It is none, or lacks a file that another one imports.
    """
    advice = "make it with protoc --descriptor_set_out --include_imports, and encode it as base64"
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(encoded, validate=True)).file
    except (binascii.Error, DecodeError) as error:
        raise ValueError(f"spec.grpc.descriptorSet is no file descriptor set ({error}); {advice}") from error
    pool = DescriptorPool()
    try:
        for file in files:
            pool.Add(file)
    except TypeError as error:
        raise ValueError(f"spec.grpc.descriptorSet cannot be used: {error}; {advice}") from error
    return pool


def find_method(pool: DescriptorPool, name: str) -> Method:
    """Look a method up by `package.Service/Method`.

    Raises:
        FatalFailure: There is none, or it takes a stream of requests.
    """
    service_name, _, method_name = name.partition("/")
    try:
        service = pool.FindServiceByName(service_name)
    except (KeyError, TypeError) as error:
        raise FatalFailure(f"there is no gRPC service {service_name!r}; correct spec.grpc.method") from error
    found: MethodDescriptor | None = service.methods_by_name.get(method_name)
    if found is None:
        known = ", ".join(sorted(service.methods_by_name)) or "none"
        raise FatalFailure(f"gRPC service {service_name!r} has no method {method_name!r}; it has: {known}")
    if found.client_streaming:
        raise FatalFailure(f"{name} takes a stream of requests; unary and server-streaming methods can be called")
    return Method(
        path=f"/{name}",
        request=message_factory.GetMessageClass(found.input_type),
        response=message_factory.GetMessageClass(found.output_type),
        streams=found.server_streaming,
        pool=pool,
    )
