"""A real gRPC server that speaks the gateway's protocol, for what only a connection can show."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from pyzeebe.proto import gateway_pb2 as pb
from pyzeebe.proto.gateway_pb2_grpc import GatewayServicer, add_GatewayServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Gateway(GatewayServicer):  # type: ignore[misc]  # grpc has no types
    """Answers the commands below, after the failures in `failures`, and records what comes."""

    def __init__(self) -> None:
        self.address = ""
        self.failures: list[tuple[grpc.StatusCode, str]] = []
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, str]] = []

    async def Topology(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802 - the protocol's name
        await self._take("Topology", request, context)
        leader = pb.Partition(partitionId=1, role=pb.Partition.LEADER, health=pb.Partition.HEALTHY)
        return pb.TopologyResponse(
            brokers=[pb.BrokerInfo(partitions=[leader])], partitionsCount=1, gatewayVersion="8.6.0"
        )

    async def PublishMessage(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        await self._take("PublishMessage", request, context)
        return pb.PublishMessageResponse(key=1)

    async def CreateProcessInstance(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        await self._take("CreateProcessInstance", request, context)
        return pb.CreateProcessInstanceResponse(
            processDefinitionKey=1, bpmnProcessId=request.bpmnProcessId, version=1, processInstanceKey=2
        )

    async def ActivateJobs(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        await self._take("ActivateJobs", request, context)
        yield pb.ActivateJobsResponse(jobs=[pb.ActivatedJob(key=7, type=request.type)])
        if self.failures:
            await context.abort(*self.failures.pop(0))

    async def _take(self, name: str, request: Any, context: grpc.aio.ServicerContext) -> None:
        self.calls.append((name, request))
        self.metadata.append(dict(context.invocation_metadata()))
        if self.failures and name != "ActivateJobs":
            await context.abort(*self.failures.pop(0))


@contextlib.asynccontextmanager
async def serving(
    gateway: Gateway,
    credentials: grpc.ServerCredentials | None = None,
    *,
    address: str = "127.0.0.1:0",
    max_message: int | None = None,
) -> AsyncIterator[Gateway]:
    """Serve on loopback.

    Args:
        gateway: What answers; it learns its address.
        credentials: Key and certificate for TLS.
        address: host:port; port 0 is any free one.
        max_message: Longest request in bytes.
    """
    options = [("grpc.max_receive_message_length", max_message)] if max_message else []
    server = grpc.aio.server(options=options)
    add_GatewayServicer_to_server(gateway, server)
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    gateway.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield gateway
    finally:
        await server.stop(None)
