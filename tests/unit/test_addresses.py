"""The guard against server-side request forgery."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from prokos.tde import FatalFailure, RetryableFailure
from prokos.tde.addresses import denied_kind, embedded, parse_networks, reachable, resolve

if TYPE_CHECKING:
    from prokos.tde.addresses import Resolver


def answering(*addresses: str) -> Resolver:
    async def resolver(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolver


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fc00::1", "private"),
        ("fdff::1", "private"),
        ("fec0::1", "private"),
        ("169.254.169.254", "link-local, where clouds serve metadata"),
        ("fe80::1", "link-local, where clouds serve metadata"),
        ("fe80::1%eth0", "link-local, where clouds serve metadata"),
        ("168.63.129.16", "a cloud's metadata or host service"),
        ("100.100.100.200", "a cloud's metadata or host service"),
        ("fd00:ec2::254", "a cloud's metadata or host service"),
        ("192.0.0.192", "reserved"),
        ("100.64.0.1", "shared by a carrier (CGNAT)"),
        ("100.127.255.255", "shared by a carrier (CGNAT)"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.250", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("192.88.99.1", "reserved"),
        ("100::1", "reserved"),
        ("192.0.2.1", "for documentation"),
        ("2001:db8::1", "for documentation"),
    ],
)
def test_denies_addresses_that_are_not_public(address: str, kind: str) -> None:
    assert denied_kind(ip_address(address)) == kind


@pytest.mark.parametrize(
    ("address", "inner"),
    [
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:169.254.169.254", "169.254.169.254"),
        ("::127.0.0.1", "127.0.0.1"),
        ("64:ff9b::10.0.0.1", "10.0.0.1"),
        ("2002:7f00:1::", "127.0.0.1"),
        ("2002:a9fe:a9fe::1", "169.254.169.254"),
        # Teredo: the client's address is stored inverted.
        ("2001:0:808:808:0:0:80ff:fffe", "127.0.0.1"),
        # ISATAP, under a prefix that is public
        ("2a00:1450::5efe:10.0.0.1", "10.0.0.1"),
        ("2a00:1450::200:5efe:10.0.0.1", "10.0.0.1"),
    ],
)
def test_denies_ipv6_addresses_that_stand_for_a_denied_ipv4_address(address: str, inner: str) -> None:
    assert ip_address(inner) in embedded(ip_address(address))
    kind = denied_kind(ip_address(address))
    assert kind is not None
    assert inner in kind


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"],
)
def test_lets_public_addresses_pass(address: str) -> None:
    assert denied_kind(ip_address(address)) is None


def test_lets_an_allowed_network_pass_also_in_its_ipv6_forms() -> None:
    allowed = parse_networks(["10.1.0.0/16", "fd12::/16"])
    assert denied_kind(ip_address("10.1.2.3"), allowed) is None
    assert denied_kind(ip_address("::ffff:10.1.2.3"), allowed) is None
    assert denied_kind(ip_address("fd12::1"), allowed) is None
    assert denied_kind(ip_address("10.2.0.1"), allowed) == "private"
    assert denied_kind(ip_address("169.254.169.254"), allowed) is not None


def test_refuses_a_network_with_bits_beyond_its_prefix() -> None:
    with pytest.raises(ValueError, match="host bits"):
        parse_networks(["10.1.2.3/16"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "localhost"])
async def test_judges_what_a_name_resolves_to_however_it_is_written(host: str) -> None:
    with pytest.raises(FatalFailure, match="loopback"):
        await reachable(host, 80, (), resolve)


async def test_names_host_address_and_setting_when_it_refuses() -> None:
    with pytest.raises(FatalFailure) as refused:
        await reachable("pay.example", 443, (), answering("10.0.0.7"))
    message = str(refused.value)
    assert "pay.example resolves to 10.0.0.7" in message
    assert "spec.http.allowedNetworks" in message


async def test_refuses_a_name_when_only_one_of_its_addresses_is_denied() -> None:
    with pytest.raises(FatalFailure, match=r"169\.254\.169\.254"):
        await reachable("pay.example", 443, (), answering("8.8.8.8", "169.254.169.254"))


async def test_returns_all_addresses_when_all_are_allowed() -> None:
    assert await reachable("pay.example", 443, (), answering("8.8.8.8", "2001:4860:4860::8888")) == [
        ip_address("8.8.8.8"),
        ip_address("2001:4860:4860::8888"),
    ]


async def test_an_unknown_host_may_be_known_later() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(RetryableFailure, match=r"cannot resolve host 'pay\.example': Name or service not known"):
        await reachable("pay.example", 443, (), unknown)
