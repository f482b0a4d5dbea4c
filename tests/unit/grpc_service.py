"""A real gRPC server with reflection, whose messages are made here rather than by a compiler."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVICE = "shop.Payments"

_FIELD = descriptor_pb2.FieldDescriptorProto


def _message(file: Any, name: str, *fields: tuple[str, int]) -> None:
    message = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields, 1):
        message.field.add(name=field, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)


def descriptor_file() -> Any:
    """Messages Charge and Receipt; methods Pay, History (a stream) and Upload (a stream of requests)."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    _message(file, "Charge", ("order_id", _FIELD.TYPE_STRING), ("cents", _FIELD.TYPE_INT64))
    _message(file, "Receipt", ("payment_id", _FIELD.TYPE_STRING), ("cents", _FIELD.TYPE_INT64))
    service = file.service.add(name="Payments")
    for name, more in (("Pay", {}), ("History", {"server_streaming": True}), ("Upload", {"client_streaming": True})):
        service.method.add(name=name, input_type=".shop.Charge", output_type=".shop.Receipt", **more)
    return file


def descriptor_set() -> str:
    """The same as `spec.grpc.descriptorSet`."""
    return base64.b64encode(descriptor_pb2.FileDescriptorSet(file=[descriptor_file()]).SerializeToString()).decode()


class Payments:
    """What the server does: by the order's id."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, dict[str, str]]] = []
        self.pool = DescriptorPool()
        self.pool.Add(descriptor_file())
        found = {name: self.pool.FindMessageTypeByName(f"shop.{name}") for name in ("Charge", "Receipt")}
        self.charge = message_factory.GetMessageClass(found["Charge"])
        self.receipt = message_factory.GetMessageClass(found["Receipt"])

    async def pay(self, request: Any, context: Any) -> Any:
        self.calls.append((request, dict(context.invocation_metadata())))
        if request.order_id.startswith("status:"):
            await context.abort(grpc.StatusCode[request.order_id.partition(":")[2]], "because of\nthis")
        if request.order_id.startswith("echo:"):
            await context.abort(grpc.StatusCode[request.order_id.partition(":")[2]], repr(self.calls[-1][1]))
        if request.order_id == "echo":
            return self.receipt(payment_id=repr(self.calls[-1][1]))
        if request.order_id == "slow":
            await asyncio.sleep(30)
        if request.order_id.startswith("answer:"):
            return self.receipt(payment_id=request.order_id.partition(":")[2])
        if request.order_id.startswith("metadata:"):
            return self.receipt(payment_id=self.calls[-1][1][request.order_id.partition(":")[2]])
        size = 2_000_000 if request.order_id == "huge" else 4
        return self.receipt(payment_id="p" * size, cents=request.cents)

    async def history(self, request: Any, context: Any) -> AsyncIterator[Any]:
        number = 0
        while request.cents < 0 or number < request.cents:
            number += 1
            yield self.receipt(payment_id=f"{request.order_id}-{number}", cents=number)
            await asyncio.sleep(0)


@asynccontextmanager
async def payments_server(credentials: Any = None, *, reflects: bool = True) -> AsyncIterator[tuple[Payments, str]]:
    """Serve on loopback; yields what was called, and the address."""
    service = Payments()
    handlers = {
        "Pay": grpc.unary_unary_rpc_method_handler(
            service.pay, service.charge.FromString, service.receipt.SerializeToString
        ),
        "History": grpc.unary_stream_rpc_method_handler(
            service.history, service.charge.FromString, service.receipt.SerializeToString
        ),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if reflects:
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server, pool=service.pool)
    port = (
        server.add_secure_port("127.0.0.1:0", credentials) if credentials else server.add_insecure_port("127.0.0.1:0")
    )
    await server.start()
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
