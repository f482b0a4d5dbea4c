"""What pods may reach, as NetworkPolicy egress: closed but for what is declared. Pure.

A policy sees addresses after a Service's translation, so a port here is the port of the pod behind it.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prokos.k8s.names import HINTS_PORT, PDO, selector_labels
from prokos.tde.addresses import DENIED_NETWORKS, denied_kind, parse_networks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prokos.kube import Manifest
    from prokos.resources import TaskExecutor
    from prokos.resources.pods import Egress

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""The label by which Kubernetes itself marks each namespace with its name."""

PRIVATE_V4 = [str(one) for one in collapse_addresses(net for net, _ in DENIED_NETWORKS if isinstance(net, IPv4Network))]
PRIVATE_V6 = [
    *(str(one) for one in collapse_addresses(net for net, _ in DENIED_NETWORKS if isinstance(net, IPv6Network))),
    # A gateway turns addresses of these into IPv4 ones: compatible, NAT64, Teredo, 6to4.
    *("::/96", "64:ff9b::/96", "2001::/32", "2002::/16"),
]
"""What is not the public network: all that the executors' own guard refuses, too."""

NODE_LOCAL_DNS = "169.254.20.10/32"
"""Where clusters with a name service on each node have it."""

DATABASE_PORTS = {"postgresql": 5432, "postgres": 5432, "mysql": 3306, "mariadb": 3306}


def name_service() -> Manifest:
    """The cluster's name service."""
    return {
        "to": [
            {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: "kube-system"}}},
            {"ipBlock": {"cidr": NODE_LOCAL_DNS}},
        ],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    }


def host_egress(host: str, port: int, namespace: str) -> Manifest:
    """A host by name or address. A name of the cluster is its namespace; any other is the public network."""
    return {"to": destinations(host, namespace), "ports": [{"port": port, "protocol": "TCP"}]}


def destinations(host: str, namespace: str) -> list[Manifest]:
    """Peers of a NetworkPolicy for a host name, seen from a namespace."""
    bare = host.strip("[]")
    try:
        address = ip_address(bare)
    except ValueError:
        pass
    else:
        return [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}]
    labels = bare.rstrip(".").split(".")
    if len(labels) == 1:
        return [{"podSelector": {}}]
    if len(labels) >= 3 and labels[2] == "svc":
        peer: Manifest = {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: labels[1]}}}
        return [{"podSelector": {}} if labels[1] == namespace else peer]
    return [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE_V4}},
        {"ipBlock": {"cidr": "::/0", "except": PRIVATE_V6}},
    ]


def declared_egress(egress: Iterable[Egress]) -> list[Manifest]:
    """The rules of `spec.network.egress`."""
    return [
        {"to": [_peer(rule)], "ports": [{"port": port.port, "protocol": port.protocol} for port in rule.ports]}
        for rule in egress
    ]


def _peer(rule: Egress) -> Manifest:
    if rule.cidr is not None:
        return {"ipBlock": {"cidr": rule.cidr}}
    peer: Manifest = {}
    if rule.namespace is not None:
        peer["namespaceSelector"] = {"matchLabels": {NAMESPACE_LABEL: rule.namespace}}
    if rule.pods:
        peer["podSelector"] = {"matchLabels": dict(rule.pods)}
    return peer


def executor_egress(executor: TaskExecutor, namespace: str) -> list[Manifest]:
    """What an executor's own settings name: the origins of its URLs, the server of its database."""
    spec = executor.spec
    rules: list[Manifest] = []
    if spec.http is not None:
        for origin in spec.http.origins:
            url = urlsplit(origin)
            port = url.port or (443 if url.scheme == "https" else 80)
            rules += _guarded_egress(url.hostname or "", port, namespace, spec.http.allowed_networks)
    if spec.grpc is not None:
        host, _, number = spec.grpc.address.rpartition(":")
        rules += _guarded_egress(host, int(number), namespace, spec.grpc.allowed_networks)
    if spec.sql is not None and spec.sql.url is not None and not spec.sql.url.startswith("sqlite"):
        url = urlsplit(spec.sql.url)
        if url.hostname:
            database_port = url.port or DATABASE_PORTS[url.scheme.partition("+")[0]]
            rules.append(host_egress(url.hostname, database_port, namespace))
    return rules + declared_egress(spec.network.egress)


def _guarded_egress(host: str, port: int, namespace: str, allowed: Sequence[str]) -> list[Manifest]:
    """For executors that refuse what is not public: an address that is written out is opened if they would call it."""
    try:
        refused = denied_kind(ip_address(host.strip("[]")), parse_networks(allowed)) is not None
    except ValueError:
        refused = False
    peers = [] if refused else destinations(host, namespace)
    peers += [{"ipBlock": {"cidr": network}} for network in allowed]
    # A rule without peers would be one for all of them.
    return [{"to": peers, "ports": [{"port": port, "protocol": "TCP"}]}] if peers else []


def hints_egress(system: str) -> Manifest:
    """The PDO's port for hints."""
    return {
        "to": [{"podSelector": {"matchLabels": selector_labels(system, PDO)}}],
        "ports": [{"port": HINTS_PORT, "protocol": "TCP"}],
    }


def network_policy(
    metadata: Manifest, pods: dict[str, str], egress: list[Manifest], ingress: list[Manifest] | None = None
) -> Manifest:
    """A policy that closes the pods in both directions but for these rules."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress or [],
            "egress": egress,
        },
    }
