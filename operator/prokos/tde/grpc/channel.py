"""The connection to a gRPC server whose addresses may change."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from prokos.resources.grpc_settings import GrpcSettings
    from prokos.tde.addresses import Address

RECONNECT_MS = 5_000
"""Longest pause in milliseconds between two attempts to connect; by default it grows to two minutes."""


def target(addresses: Iterable[Address], port: int) -> str:
    """A target that names addresses, which are not looked up again; in one order, whatever the name service gives."""
    found = list(addresses)
    family = found[0].version
    listed = sorted(str(address) for address in found if address.version == family)
    text = ",".join(f"[{address}]:{port}" if family == 6 else f"{address}:{port}" for address in listed)
    return f"ipv{family}:{text}"


def open_channel(
    to: str, settings: GrpcSettings, credentials: grpc.ChannelCredentials | None, max_bytes: int
) -> grpc.aio.Channel:
    """A channel that does nothing but what it is asked to.

    Args:
        to: The target.
        settings: Name and port that the server goes by.
        credentials: For TLS; None is plain text.
        max_bytes: Longest message that is received, before and after decompression.
    """
    host, _, port = settings.address.rpartition(":")
    name = settings.tls.server_name
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.default_authority", f"{name or host}:{port}"),
        ("grpc.enable_http_proxy", 0),
        # The engine is asked for further attempts; a client that repeats by itself would not tell.
        ("grpc.enable_retries", 0),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
        # Else connections outlive their channel, for another one to the same addresses.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if credentials is None:
        return grpc.aio.insecure_channel(to, options)
    options.append(("grpc.ssl_target_name_override", name or host.strip("[]")))
    return grpc.aio.secure_channel(to, credentials, options)


@dataclass
class _Open:
    target: str
    channel: grpc.aio.Channel
    calls: int = 0


class Connections:
    """One connection at a time. When the addresses change there is a new one, and the old one ends with its calls."""

    def __init__(self, connect: Callable[[str], grpc.aio.Channel]) -> None:
        self._connect = connect
        self._current: _Open | None = None
        self._all: list[_Open] = []

    @contextlib.asynccontextmanager
    async def to(self, address: str) -> AsyncIterator[grpc.aio.Channel]:
        """The connection to a target, for one call."""
        if self._current is None or self._current.target != address:
            self._current = _Open(address, self._connect(address))
            self._all.append(self._current)
        used = self._current
        used.calls += 1
        try:
            await self._close_unused()
            yield used.channel
        finally:
            used.calls -= 1
            await self._close_unused()

    async def close(self) -> None:
        """Close all, with their calls."""
        self._current = None
        while self._all:
            await self._all.pop().channel.close()

    async def _close_unused(self) -> None:
        unused = [one for one in self._all if one is not self._current and not one.calls]
        self._all = [one for one in self._all if one not in unused]
        for one in unused:
            await one.channel.close()
