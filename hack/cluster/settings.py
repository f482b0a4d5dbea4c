"""Where everything of the development cluster is, and the addresses it has."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

MODULE = Path(__file__).parent / "go" / "node"
"""The Go module that pins Kubernetes, etcd and CoreDNS, with the checksums of everything they are built from."""

HELM_MODULE = REPOSITORY / "tde-images" / "system" / "helm"
"""The Go module that pins Helm. The image of the operator is built from it too."""

NODE_VARIABLE = "PROKOS_NODE_DIR"
EGRESS_VARIABLE = "PROKOS_NODE_EGRESS"
KIND_VARIABLE = "PROKOS_CLUSTER"

NODE_NAME = "prokos-node"

NODE_IP = "10.214.0.1"
"""Address of the API server, the kubelet and the gateway of the pods. It is on the loopback interface."""
POD_CIDR = "10.214.0.0/24"
"""The node's own address is in it: the pods' network plugin reaches a gateway only there."""
SERVICE_CIDR = "10.215.0.0/24"
API_SERVICE_IP = "10.215.0.1"
DNS_SERVICE_IP = "10.215.0.10"
"""The addons' manifest names it too."""

API_PORT = 6443
ETCD_PORT = 12379
ETCD_PEER_PORT = 12380
"""Not 2379, where another etcd may be; below the ports that embedded engines take."""


class ClusterError(Exception):
    """The cluster cannot be made or reached. The message is one line that says why and what to do."""


def cache_directory() -> Path:
    """Where ProkOS keeps what it can fetch or make again: `PROKOS_CACHE`, else `~/.cache/prokos`."""
    chosen = os.environ.get("PROKOS_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "prokos"


def module_version(module: str, go_module: Path = MODULE) -> str:
    """The version, without its `v`, at which a go.mod requires a module."""
    text = (go_module / "go.mod").read_text()
    match = re.search(rf"^(?:require|\s)\s*{re.escape(module)} v(\S+)", text, re.MULTILINE)
    if match is None:
        raise ClusterError(f"{go_module / 'go.mod'} requires no module {module}")
    return match[1]


@dataclass(frozen=True, slots=True)
class Node:
    """The directory of a node's state, and what is where in it. `make cluster-down` removes all of it."""

    directory: Path

    @classmethod
    def chosen(cls) -> Node:
        """The node of `PROKOS_NODE_DIR`, else of `~/.cache/prokos/node`."""
        chosen = os.environ.get(NODE_VARIABLE)
        return cls(Path(chosen).expanduser().absolute() if chosen else cache_directory() / "node")

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the cluster's administrator."""
        return self.directory / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.directory / "pki"

    @property
    def configuration(self) -> Path:
        """Configuration files of the components, their kubeconfigs among them."""
        return self.directory / "conf"

    @property
    def logs(self) -> Path:
        """Output of the components, a file each."""
        return self.directory / "logs"

    @property
    def processes(self) -> Path:
        """A file per component that runs: process id and start time."""
        return self.directory / "processes"

    @property
    def volumes(self) -> Path:
        """Parent of the persistent volumes' directories."""
        return self.directory / "volumes"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens."""
        return self.directory / "containerd.sock"

    @property
    def saved_sysctls(self) -> Path:
        """Kernel settings as they were before the node changed them."""
        return self.directory / "sysctls.json"


def egress_is_open() -> bool:
    """Whether pods may reach addresses outside of the cluster: `PROKOS_NODE_EGRESS=open`.

    Raises:
        ClusterError: The variable has another value than `open` and `closed`.
    """
    value = os.environ.get(EGRESS_VARIABLE, "closed")
    if value not in {"open", "closed"}:
        raise ClusterError(f"{EGRESS_VARIABLE}={value!r} is neither 'open' nor 'closed'")
    return value == "open"
