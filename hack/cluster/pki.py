"""Keys and certificates of a node, and the kubeconfigs that hold them."""

from __future__ import annotations

import datetime
import ipaddress
from typing import TYPE_CHECKING

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hack.cluster.settings import API_PORT, API_SERVICE_IP, NODE_IP, NODE_NAME, Node

if TYPE_CHECKING:
    from pathlib import Path

VALID_FOR = datetime.timedelta(days=365)

CLOCKS_DIFFER = datetime.timedelta(minutes=5)
"""How much earlier than now certificates begin to be valid."""

SERVERS = {
    "apiserver": [NODE_IP, API_SERVICE_IP, "kubernetes.default.svc", "kubernetes.default", "kubernetes"],
    "etcd": ["127.0.0.1"],
    "kubelet-server": [NODE_IP, NODE_NAME],
}
"""Names and addresses of the servers, by the name of their certificate."""

CLIENTS = {
    "kubeconfig": ("kubernetes-admin", "system:masters"),
    "conf/controller-manager.kubeconfig": ("system:kube-controller-manager", ""),
    "conf/scheduler.kubeconfig": ("system:kube-scheduler", ""),
    "conf/kubelet.kubeconfig": (f"system:node:{NODE_NAME}", "system:nodes"),
    "conf/proxy.kubeconfig": ("system:kube-proxy", ""),
}
"""User and group of each kubeconfig, by its path in the node's directory. Kubernetes has roles for all of them."""


class Authority:
    """A certificate authority that lives as long as the object; only what it signed stays."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject("prokos-node-ca", "")
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(self._name, self._name, self._key).add_extension(constraints, critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256())

    def issue(self, user: str, group: str, names: list[str]) -> tuple[bytes, bytes]:
        """A certificate and its key, in PEM.

        Args:
            user: Common name: the user, for Kubernetes.
            group: Organization: the group, for Kubernetes; may be empty.
            names: DNS names and IP addresses of a server; none for a client.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(user, group), self._name, key)
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if names else [])]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_name(name) for name in names]), critical=False
            )
        return _pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key)


def write_pki(node: Node) -> None:
    """Make all keys, certificates and kubeconfigs of a node."""
    authority = Authority()
    node.pki.mkdir(parents=True, exist_ok=True)
    (node.pki / "ca.crt").write_bytes(_pem(authority.certificate))
    for server, names in SERVERS.items():
        _write_pair(node.pki / server, *authority.issue(server, "", names))
    # With this pair the API server reads logs from the kubelet and runs commands there.
    _write_pair(node.pki / "apiserver-client", *authority.issue("kube-apiserver-kubelet-client", "system:masters", []))
    _write_private(node.pki / "service-accounts.key", _key_pem(ec.generate_private_key(ec.SECP256R1())))
    for path, (user, group) in CLIENTS.items():
        kubeconfig = build_kubeconfig(_pem(authority.certificate), *authority.issue(user, group, []))
        _write_private(node.directory / path, yaml.safe_dump(kubeconfig).encode())


def build_kubeconfig(authority: bytes, certificate: bytes, key: bytes) -> dict[str, object]:
    """A kubeconfig for the node's API server, from PEM."""
    import base64

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    cluster = {"server": f"https://{NODE_IP}:{API_PORT}", "certificate-authority-data": encoded(authority)}
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NODE_NAME, "cluster": cluster}],
        "users": [{"name": NODE_NAME, "user": user}],
        "contexts": [{"name": NODE_NAME, "context": {"cluster": NODE_NAME, "user": NODE_NAME}}],
        "current-context": NODE_NAME,
    }


def _subject(user: str, group: str) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + VALID_FOR)
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write_pair(path: Path, certificate: bytes, key: bytes) -> None:
    path.with_suffix(".crt").write_bytes(certificate)
    _write_private(path.with_suffix(".key"), key)


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
