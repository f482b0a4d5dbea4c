"""TDE type `grpc`: one call of a unary or server-streaming method per attempt, with JSON in and out.

The request is the input, or one of its fields, in the JSON mapping of Protocol Buffers; the answer's fields are the
result. 64-bit integers are text there, so that no digit is lost. A stream's messages are collected in one variable.
Statuses that pass (UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED) are tried again, others are an
incident; `outcomes` overrides this. Calls carry the metadata `idempotency-key`.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from prokos.tde.addresses import parse_networks, reachable, resolve
from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.grpc.channel import Connections, open_channel, target
from prokos.tde.grpc.descriptors import Method, find_method, read_descriptor_set
from prokos.tde.grpc.reflection import MAX_BYTES, reflected
from prokos.tde.http.auth import sendable
from prokos.tde.result_redaction import clear_result

if TYPE_CHECKING:
    from prokos.resources.grpc_settings import GrpcSettings
    from prokos.tde.addresses import Resolver
    from prokos.tde.contract import Context, Environment

PASSING = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"})
"""Statuses that may be another one at the next attempt (https://grpc.io/docs/guides/status-codes/)."""

EXCERPT = 300
"""Characters of a server's message that go into ours."""

REFLECTION_TIMEOUT = 10.0
"""Seconds to ask a server for its descriptors."""

TOO_LARGE = re.compile(r"(client: received|decompressed)? message larger than max", re.IGNORECASE)
"""How gRPC says that a message exceeds a limit: the first two are ours, others the server's for the request."""

SETTING = "spec.grpc.allowedNetworks"


class GrpcExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Calls one method of one server."""

    settings: GrpcSettings

    def __init__(self, settings: GrpcSettings, environment: Environment, resolver: Resolver = resolve) -> None:
        super().__init__(settings, environment)
        self._resolver = resolver
        self._host, _, port = settings.address.rpartition(":")
        self._port = int(port)
        self._networks = parse_networks(settings.allowed_networks)
        self._credentials: grpc.ChannelCredentials | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._method: Method | None = None
        self._finding = asyncio.Lock()
        self._connections = Connections(lambda to: self._open(to, settings.max_response_bytes))
        self._sent: list[tuple[str, str]] = []
        """Secrets that the server gets to see, each with what it is called."""

    async def start(self) -> None:
        """Read certificates, secrets and descriptors.

        Raises:
            ValueError: One is not valid.
            FatalFailure: A secret is missing, or cannot be sent.
        """
        settings, secrets = self.settings, self.environment.secrets
        if settings.tls.enabled:
            tls = settings.tls
            self._credentials = grpc.ssl_channel_credentials(
                root_certificates=secrets[tls.ca_secret].encode() if tls.ca_secret else None,
                private_key=secrets[tls.key_secret].encode() if tls.key_secret else None,
                certificate_chain=secrets[tls.cert_secret].encode() if tls.cert_secret else None,
            )
        metadata = dict(settings.metadata)
        for key, name in settings.secret_metadata.items():
            if key.startswith("grpc-") or key.endswith("-bin"):
                raise FatalFailure(f"spec.grpc.secretMetadata.{key}: grpc- is the protocol's, and -bin is binary")
            metadata[key] = sendable(secrets, name)
        if settings.bearer:
            metadata["authorization"] = f"Bearer {sendable(secrets, settings.bearer)}"
        self._metadata = tuple(metadata.items())
        sent = [*settings.secret_metadata.values(), *([settings.bearer] if settings.bearer else [])]
        self._sent = [(secrets[name], f"secret {name}") for name in sent]
        if settings.descriptor_set is not None:
            self._method = find_method(read_descriptor_set(settings.descriptor_set), settings.method)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Make the call."""
        addresses = await reachable(self._host.strip("[]"), self._port, self._networks, self._resolver, SETTING)
        to = target(addresses, self._port)
        metadata = (*self._metadata, ("idempotency-key", context.idempotency_key))
        method = self._method or await self._find(to)
        request = self._request(method, data)
        timeout = context.timeout.total_seconds()
        async with self._connections.to(to) as channel:
            try:
                if method.streams:
                    return await self._stream(channel, method, request, metadata, timeout)
                call = channel.unary_unary(method.path, method.request.SerializeToString, None)
                answer = await call(request, metadata=metadata, timeout=timeout)
            except grpc.RpcError as error:
                self._judge(error)
        return self._to_json(answer, method)

    def _request(self, method: Method, data: dict[str, Any]) -> Any:
        content: Any = data
        if (field := self.settings.request) is not None:
            if field not in data:
                raise FatalFailure(f"the input has no field {field!r}, which spec.grpc.request names")
            content = data[field]
        try:
            return json_format.ParseDict(content, method.request(), descriptor_pool=method.pool)
        except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
            name = method.request.DESCRIPTOR.full_name
            raise FatalFailure(self._redact(f"the input is no {name}: {error}")) from error

    async def _stream(
        self, channel: grpc.aio.Channel, method: Method, request: Any, metadata: Any, timeout: float
    ) -> dict[str, Any]:
        """Collect a stream; the call is cancelled as soon as there is too much of it."""
        call = channel.unary_stream(method.path, method.request.SerializeToString, None)
        messages: list[dict[str, Any]] = []
        size = 0
        stream = call(request, metadata=metadata, timeout=timeout)
        try:
            async for raw in stream:
                size += len(raw)
                if len(messages) == self.settings.max_messages:
                    raise FatalFailure(f"more messages than spec.grpc.maxMessages ({self.settings.max_messages})")
                if size > self.settings.max_response_bytes:
                    self._too_long()
                messages.append(self._to_json(raw, method))
        finally:
            stream.cancel()
        return {self.settings.messages: messages}

    def _too_long(self) -> NoReturn:
        raise FatalFailure(f"the answer exceeds spec.grpc.maxResponseBytes ({self.settings.max_response_bytes})")

    def _to_json(self, raw: bytes, method: Method) -> dict[str, Any]:
        try:
            message = method.response.FromString(raw)
            found = json_format.MessageToDict(message, descriptor_pool=method.pool)
        # What cannot be said in JSON: an Any of a type that nobody described, a time beyond the year 9999.
        except (DecodeError, json_format.Error, TypeError, ValueError) as error:
            name = method.response.DESCRIPTOR.full_name
            raise FatalFailure(self._redact(f"the answer is no {name} that has a JSON form: {error}")) from error
        cleared: dict[str, Any] = clear_result(found, self._sent)
        return cleared

    async def _find(self, to: str) -> Method:
        """Ask the server once what the method takes and gives."""
        async with self._finding:
            if self._method is None:
                channel = self._open(to, MAX_BYTES)
                try:
                    async with asyncio.timeout(REFLECTION_TIMEOUT):
                        service = self.settings.method.partition("/")[0]
                        pool = await reflected(channel, service, self._metadata)
                except TimeoutError as error:
                    message = f"{self.settings.address} did not describe its services in {REFLECTION_TIMEOUT:g} s"
                    raise RetryableFailure(message) from error
                except grpc.RpcError as error:
                    self._not_described(error)
                finally:
                    await channel.close()
                self._method = find_method(pool, self.settings.method)
            return self._method

    def _not_described(self, error: grpc.RpcError) -> NoReturn:
        status = error.code().name
        if status == "UNIMPLEMENTED":
            message = f"{self.settings.address} does not describe its services; give spec.grpc.descriptorSet"
            raise FatalFailure(message) from error
        message = self._redact(f"{self.settings.address}, asked for its services, answered {_said(error)}")
        passing = status in PASSING or _broke_off(error)
        raise (RetryableFailure if passing else FatalFailure)(message) from error

    def _open(self, to: str, max_bytes: int) -> grpc.aio.Channel:
        return open_channel(to, self.settings, self._credentials, max_bytes)

    def _judge(self, error: grpc.RpcError) -> NoReturn:
        """Turn a status into an outcome."""
        status = error.code().name
        said = f"{self.settings.address} {self.settings.method} answered {_said(error)}"
        rule = next((rule for rule in self.settings.outcomes if rule.status == status), None)
        message = self._redact(rule.message if rule and rule.message else said)
        if rule is not None and rule.outcome == "error":
            variables = {"status": status, "message": self._redact(_details(error))}
            raise BusinessError(rule.code or "", message, variables) from error
        passing = rule.outcome == "retry" if rule is not None else status in PASSING or _broke_off(error)
        if status == "RESOURCE_EXHAUSTED" and (too_large := TOO_LARGE.search(_details(error))):
            if too_large[1]:
                self._too_long()
            passing = False
        raise (RetryableFailure if passing else FatalFailure)(message) from error

    def _redact(self, message: str) -> str:
        return self.environment.secrets.redact(message)


def _details(error: grpc.RpcError) -> str:
    """What a server said besides the status, on one line."""
    return " ".join((error.details() or "").split())[:EXCERPT]


def _broke_off(error: grpc.RpcError) -> bool:
    """Whether the status is the library's word for a connection that ended in the middle of a call."""
    return error.code() is grpc.StatusCode.UNKNOWN and _details(error).startswith("Stream removed")


def _said(error: grpc.RpcError) -> str:
    return ": ".join(filter(None, [error.code().name, _details(error)]))
