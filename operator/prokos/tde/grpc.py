"""TDE type `grpc`: one call of a unary or server-streaming method per attempt, with JSON in and out.

The request is the input, or one of its fields, in the JSON mapping of Protocol Buffers; the answer's fields are the
result. 64-bit integers are text there, so that no digit is lost. A stream's messages are collected in one variable.
Statuses that pass (UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED) are tried again, others are an
incident; `outcomes` overrides this. Calls carry the metadata `idempotency-key`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import json_format

from prokos.tde.addresses import parse_networks, reachable, resolve
from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.grpc_descriptors import Method, find_method, read_descriptor_set, reflected

if TYPE_CHECKING:
    from prokos.resources.grpc_settings import GrpcSettings
    from prokos.tde.addresses import Address, Resolver
    from prokos.tde.contract import Context, Environment

PASSING = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"})
"""Statuses that may be another one at the next attempt (https://grpc.io/docs/guides/status-codes/)."""

EXCERPT = 300
"""Characters of a server's message that go into ours."""

REFLECTION_TIMEOUT = 10.0
"""Seconds to ask a server for its descriptors."""

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
        self._channels: dict[str, grpc.aio.Channel] = {}
        """By target: the server's addresses may change, and each is judged anew."""

    async def start(self) -> None:
        """Read certificates, secrets and descriptors.

        Raises:
            ValueError: One is not valid.
            FatalFailure: A secret is missing.
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
        metadata |= {key: secrets[name] for key, name in settings.secret_metadata.items()}
        if settings.bearer:
            metadata["authorization"] = f"Bearer {secrets[settings.bearer]}"
        self._metadata = tuple(metadata.items())
        if settings.descriptor_set is not None:
            self._method = find_method(read_descriptor_set(settings.descriptor_set), settings.method)

    async def close(self) -> None:
        """Close the connections."""
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Make the call."""
        addresses = await reachable(self._host.strip("[]"), self._port, self._networks, self._resolver, SETTING)
        target = _target(addresses, self._port)
        try:
            method = self._method or await self._find(target)
            request = self._request(method, data)
            metadata = (*self._metadata, ("idempotency-key", context.idempotency_key))
            timeout = context.timeout.total_seconds()
            channel = self._channel(target)
            if method.streams:
                return await self._stream(channel, method, request, metadata, timeout)
            call = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
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
                messages.append(self._to_json(method.response.FromString(raw), method))
        finally:
            stream.cancel()
        return {self.settings.messages: messages}

    def _too_long(self) -> NoReturn:
        raise FatalFailure(f"the answer exceeds spec.grpc.maxResponseBytes ({self.settings.max_response_bytes})")

    def _to_json(self, message: Any, method: Method) -> dict[str, Any]:
        found: dict[str, Any] = json_format.MessageToDict(message, descriptor_pool=method.pool)
        return found

    async def _find(self, target: str) -> Method:
        """Ask the server once what the method takes and gives."""
        async with self._finding:
            if self._method is None:
                asking = asyncio.to_thread(self._ask, target)
                try:
                    self._method = await asyncio.wait_for(asking, REFLECTION_TIMEOUT)
                except TimeoutError as error:
                    message = f"{self.settings.address} did not describe its services in {REFLECTION_TIMEOUT:g} s"
                    raise RetryableFailure(message) from error
            return self._method

    def _ask(self, target: str) -> Method:
        options = self._options()
        credentials = self._credentials
        channel = (
            grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
        )
        with channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=REFLECTION_TIMEOUT / 2)
            except grpc.FutureTimeoutError as error:
                raise RetryableFailure(f"{self.settings.address} cannot be reached") from error
            try:
                # Everything the messages need is asked for now: nobody answers when the channel is closed.
                return find_method(reflected(channel), self.settings.method)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                message = f"{self.settings.address} does not describe its services; give spec.grpc.descriptorSet"
                raise FatalFailure(message) from error

    def _channel(self, target: str) -> grpc.aio.Channel:
        channel = self._channels.get(target)
        if channel is None:
            options = self._options()
            channel = (
                grpc.aio.secure_channel(target, self._credentials, options)
                if self._credentials
                else grpc.aio.insecure_channel(target, options)
            )
            self._channels[target] = channel
        return channel

    def _options(self) -> list[tuple[str, Any]]:
        name = self.settings.tls.server_name or self._host.strip("[]")
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", self.settings.max_response_bytes),
            ("grpc.default_authority", f"{self.settings.tls.server_name or self._host}:{self._port}"),
            ("grpc.enable_http_proxy", 0),
            # The engine is asked for further attempts; a client that repeats by itself would not tell.
            ("grpc.enable_retries", 0),
        ]
        if self.settings.tls.enabled:
            options.append(("grpc.ssl_target_name_override", name))
        return options

    def _judge(self, error: grpc.RpcError) -> NoReturn:
        """Turn a status into an outcome."""
        status, details = error.code().name, " ".join((error.details() or "").split())[:EXCERPT]
        said = f"{self.settings.address} {self.settings.method} answered {status}" + (f": {details}" if details else "")
        rule = next((rule for rule in self.settings.outcomes if rule.status == status), None)
        message = self._redact(rule.message if rule and rule.message else said)
        if rule is not None and rule.outcome == "error":
            variables = {"status": status, "message": self._redact(details)}
            raise BusinessError(rule.code or "", message, variables) from error
        passing = rule.outcome == "retry" if rule is not None else status in PASSING
        if status == "RESOURCE_EXHAUSTED" and "received message larger than max" in details.lower():
            self._too_long()
        raise (RetryableFailure if passing else FatalFailure)(message) from error

    def _redact(self, message: str) -> str:
        return self.environment.secrets.redact(message)


def _target(addresses: list[Address], port: int) -> str:
    """A target that names addresses, which are not looked up again."""
    family = addresses[0].version
    listed = [address for address in addresses if address.version == family]
    text = ",".join(f"[{address}]:{port}" if family == 6 else f"{address}:{port}" for address in listed)
    return f"ipv{family}:{text}"
