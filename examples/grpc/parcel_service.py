"""The outside world of the gRPC example: a carrier of parcels.

    python parcel_service.py [PORT]

    service Parcels {
      rpc Send (Parcel) returns (Label);             // refuses more than 30 kg
      rpc Track (Label) returns (stream Station);    // where it was, one station after the other
    }
    message Parcel  { string to = 1; double kilograms = 2; }
    message Label   { string number = 1; int64 cents = 2; }
    message Station { string place = 1; int64 hour = 2; }

A parcel is known by the metadata `idempotency-key`: sent again with the same one, it gets the same label. Every third
call finds the carrier away. The service describes itself (reflection), so that its callers need no generated code; its
messages are made here, to do without a compiler. Needs grpcio and grpcio-reflection, which come with ProkOS.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEFAULT_PORT = 18184
"""The port that the example's executors call."""

HEAVIEST = 30
"""Kilograms of the heaviest parcel."""

STATIONS = ("the counter", "the depot", "the van")

SERVICE = "carrier.Parcels"

MESSAGES = {
    "Parcel": {"to": "string", "kilograms": "double"},
    "Label": {"number": "string", "cents": "int64"},
    "Station": {"place": "string", "hour": "int64"},
}
METHODS = {"Send": ("Parcel", "Label", False), "Track": ("Label", "Station", True)}
"""Request, answer, and whether the answer is a stream."""


def describe() -> DescriptorPool:
    """What protoc would make of the above."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="parcels.proto", package="carrier", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (key, kind) in enumerate(fields.items(), 1):
            kind_number = field.Type.Value(f"TYPE_{kind.upper()}")
            message.field.add(name=key, number=number, type=kind_number, label=field.LABEL_OPTIONAL)
    service = file.service.add(name="Parcels")
    for name, (request, answer, streams) in METHODS.items():
        types = {"input_type": f".carrier.{request}", "output_type": f".carrier.{answer}"}
        service.method.add(name=name, server_streaming=streams, **types)
    pool = DescriptorPool()
    pool.Add(file)
    return pool


class Carrier:
    """What the service does."""

    def __init__(self, pool: DescriptorPool) -> None:
        self.types = {
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"carrier.{name}")) for name in MESSAGES
        }
        self._labels: dict[str, Any] = {}
        self._calls = itertools.count(1)

    async def send(self, parcel: Any, context: Any) -> Any:
        """Take a parcel, once per key."""
        if next(self._calls) % 3 == 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the carrier is at lunch")
        if parcel.kilograms > HEAVIEST:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{parcel.kilograms:g} kg is too heavy")
        key = dict(context.invocation_metadata()).get("idempotency-key", "")
        known = key in self._labels
        if not known:
            cents = 400 + int(parcel.kilograms * 100)
            self._labels[key] = self.types["Label"](number=f"P-{len(self._labels) + 1}", cents=cents)
        label = self._labels[key]
        print(f"{label.number} to {parcel.to}: {'was taken before' if known else 'taken'}", flush=True)
        return label

    async def track(self, label: Any, context: Any) -> AsyncIterator[Any]:
        """Tell where a parcel was."""
        for hour, place in enumerate(STATIONS):
            yield self.types["Station"](place=place, hour=hour)
            await asyncio.sleep(0.1)


async def serve(port: int) -> int:
    """Serve until interrupted."""
    pool = describe()
    carrier = Carrier(pool)
    parcel, label, station = (carrier.types[name] for name in MESSAGES)
    handlers = {
        "Send": grpc.unary_unary_rpc_method_handler(carrier.send, parcel.FromString, label.SerializeToString),
        "Track": grpc.unary_stream_rpc_method_handler(carrier.track, label.FromString, station.SerializeToString),
    }
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server, pool=pool)
    try:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError:
        print(f"parcel service: cannot listen on port {port}: it is taken", file=sys.stderr)
        return 1
    await server.start()
    print(f"parcel service listens on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()
    return 0


def main() -> int:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", nargs="?", type=int, default=DEFAULT_PORT)
    try:
        return asyncio.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
