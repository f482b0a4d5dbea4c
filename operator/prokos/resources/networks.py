"""Networks as resources name them."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from prokos.resources.cel import Rule, in_cluster

NETWORK_MAX_LENGTH = 49
"""Longest network in characters: an IPv6 address that ends in an IPv4 one has 45, and `/128` follows."""


def check_network(text: str) -> str:
    """Check a network in CIDR notation.

    Raises:
        ValueError: It is none. An address alone is none either: NetworkPolicies do not take it.
    """
    if "/" not in text:
        raise ValueError(f"{text!r} is not a network; write for example 10.1.0.0/16, or 192.0.2.7/32 for one address")
    ip_network(text)
    return text


Network = Annotated[
    str,
    AfterValidator(check_network),
    Field(
        max_length=NETWORK_MAX_LENGTH,
        json_schema_extra=in_cluster(
            Rule(
                "isCIDR(self) && cidr(self) == cidr(self).masked()",
                "is not a network; write for example 10.1.0.0/16, or 192.0.2.7/32 for one address",
            )
        ),
    ),
]
"""A network in CIDR notation, without host bits."""
