"""Which addresses a call may reach: the guard against server-side request forgery.

A task's data can decide where a call goes, through the host's name, its DNS records or a redirect. So the address
is judged, not the name: every address a name resolves to, and those that are wrapped in an IPv6 address. Whoever
connects must use an address that `reachable` returned, since another look-up may answer differently.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from prokos.tde.contract import FatalFailure, RetryableFailure

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Looks up the addresses of a host name and port."""

SETTING = "spec.http.allowedNetworks"
"""The setting that allows a network."""

# IANA special-purpose address registries (RFC 6890 and its successors), and the metadata services of clouds.
# `ipaddress` knows most of them, but what it calls private has changed between releases of Python.
_DENIED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("link-local, where clouds serve metadata", ("169.254.0.0/16", "fe80::/10")),
    ("a cloud's metadata or host service", ("168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::/32")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("shared by a carrier (CGNAT)", ("100.64.0.0/10",)),
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    ("broadcast", ("255.255.255.255/32",)),
    ("reserved", ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4")),
    ("reserved", ("64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001:10::/28", "2001:20::/28", "5f00::/16")),
    ("for documentation", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
)
DENIED_NETWORKS: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), kind) for kind, networks in _DENIED for network in networks
)
"""Networks that may be called only when they are allowed, and what each is."""

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_IPV4_COMPATIBLE = IPv6Network("::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)
"""Third 32-bit word of an ISATAP address (RFC 5214); the IPv4 address follows it."""


def parse_networks(networks: Iterable[str]) -> tuple[Network, ...]:
    """Parse CIDR notations; a bare address is a network of one.

    Raises:
        ValueError: One is not a network, or has bits set beyond its prefix.
    """
    return tuple(ip_network(network) for network in networks)


def embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses an IPv6 address stands for, to which a gateway may send what is sent to it."""
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64 or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return (last,)
    if address in _IPV4_COMPATIBLE and int(address) > 1:  # :: and ::1 are addresses of their own
        return (last,)
    return ()


def denied_kind(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """Say why an address must not be called, in words that follow "which is". None when it may be.

    Args:
        address: The address, IPv4 or IPv6; an IPv6 zone is ignored.
        allowed: Networks that may be called although they are not public.
    """
    if isinstance(address, IPv6Address) and address.scope_id:
        address = IPv6Address(int(address))
    if any(address in network for network in allowed):
        return None
    for each in embedded(address):
        if kind := denied_kind(each, allowed):
            return f"{kind} (it stands for {each})"
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in _NAT64):
        return None  # IPv6-only networks reach public IPv4 servers this way
    for network, kind in DENIED_NETWORKS:
        if address in network:
            return kind
    return None if address.is_global else "not public"


async def resolve(host: str, port: int) -> list[str]:
    """Look up a host's addresses, in the system's order of preference. An address resolves to itself.

    Raises:
        OSError: The name is unknown, or its servers do not answer.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in found))


async def reachable(
    host: str, port: int, allowed: Sequence[Network], resolver: Resolver = resolve, setting: str = SETTING
) -> list[Address]:
    """Look up a host and judge all its addresses; `setting` is the one that allows a network.

    Returns:
        Its addresses, every one allowed.

    Raises:
        FatalFailure: One of them is not; the message names it and the setting that would allow it. That others
            are allowed does not help: an attacker can mix them.
        RetryableFailure: The name cannot be resolved.
    """
    try:
        addresses = [ip_address(address) for address in await resolver(host, port)]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RetryableFailure(f"cannot resolve host {host!r}: {reason}") from error
    if not addresses:
        raise RetryableFailure(f"cannot resolve host {host!r}: it has no address")
    for address in addresses:
        if kind := denied_kind(address, allowed):
            what = f"{host} resolves to {address}" if host != str(address) else host
            raise FatalFailure(f"refused to call {what}, which is {kind}; {setting} can allow its network")
    return addresses
