"""The components of a node: their command lines and configuration files. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml
from hack.cluster.settings import (
    API_PORT,
    DNS_SERVICE_IP,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE_IP,
    NODE_NAME,
    POD_CIDR,
    SERVICE_CIDR,
)

if TYPE_CHECKING:
    from pathlib import Path

    from hack.cluster.settings import Node

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
WORKLOADS = ("containerd", "kubelet", "kube-proxy")

PAUSE_IMAGE = "docker.io/prokos/cluster-pause:dev"
COREDNS_IMAGE = "docker.io/prokos/cluster-coredns:dev"
PROVISIONER_IMAGE = "docker.io/prokos/cluster-provisioner:dev"


def build_commands(node: Node, binaries: Path) -> dict[str, list[str | Path]]:
    """The command line of each component. None listens beyond the loopback interface and `NODE_IP`."""
    pki, conf = node.pki, node.configuration
    etcd, peer = f"https://127.0.0.1:{ETCD_PORT}", f"https://127.0.0.1:{ETCD_PEER_PORT}"
    return {
        "etcd": [
            binaries / "etcd",
            f"--data-dir={node.directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            *(
                f"--{prefix}{option}"
                for prefix in ("", "peer-")
                for option in (
                    f"cert-file={pki / 'etcd.crt'}",
                    f"key-file={pki / 'etcd.key'}",
                    f"trusted-ca-file={pki / 'ca.crt'}",
                    "client-cert-auth",
                )
            ),
        ],
        "kube-apiserver": [
            binaries / "kube-apiserver",
            f"--bind-address={NODE_IP}",
            f"--advertise-address={NODE_IP}",
            f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--etcd-servers={etcd}",
            f"--etcd-cafile={pki / 'ca.crt'}",
            f"--etcd-certfile={pki / 'apiserver-client.crt'}",
            f"--etcd-keyfile={pki / 'apiserver-client.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'service-accounts.key'}",
            f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
            "--authorization-mode=Node,RBAC",
            # In addition to those that are on by default, PodSecurity among them.
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'apiserver-client.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
        ],
        "kube-controller-manager": [
            binaries / "kube-controller-manager",
            f"--kubeconfig={conf / 'controller-manager.kubeconfig'}",
            "--bind-address=127.0.0.1",
            "--use-service-account-credentials",
            f"--flex-volume-plugin-dir={node.directory / 'volume-plugins'}",
            f"--service-account-private-key-file={pki / 'service-accounts.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            "--leader-elect=false",
        ],
        "kube-scheduler": [
            binaries / "kube-scheduler",
            f"--kubeconfig={conf / 'scheduler.kubeconfig'}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
        "containerd": ["containerd", "--config", conf / "containerd.toml"],
        "kubelet": [
            binaries / "kubelet",
            f"--config={conf / 'kubelet.yaml'}",
            f"--kubeconfig={conf / 'kubelet.kubeconfig'}",
            f"--root-dir={node.directory / 'kubelet'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_IP}",
        ],
        "kube-proxy": [binaries / "kube-proxy", f"--config={conf / 'proxy.yaml'}"],
    }


def build_files(node: Node, *, snapshotter: str, resolv_conf: Path) -> dict[Path, str]:
    """The configuration files, by their paths.

    Args:
        node: Whose files they are.
        snapshotter: How containerd stacks the layers of images.
        resolv_conf: Which name servers the machine has.
    """
    conf = node.configuration
    return {
        conf / "containerd.toml": _containerd(node, snapshotter),
        conf / "kubelet.yaml": yaml.safe_dump(_kubelet(node, resolv_conf)),
        conf / "proxy.yaml": yaml.safe_dump(_proxy(node)),
        node.directory / "cni" / "10-prokos.conflist": json.dumps(_pod_network(node)),
    }


def _containerd(node: Node, snapshotter: str) -> str:
    directory = node.directory / "containerd"
    return f"""version = 2
root = "{directory / "root"}"
state = "{directory / "state"}"

[grpc]
  address = "{node.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{directory / "opt"}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  netns_mounts_under_state_dir = true
  # Nested sandboxes may not lower oom_score_adj (CAP_SYS_RESOURCE), and runc then starts nothing.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{node.directory / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def _pod_network(node: Node) -> dict[str, object]:
    """Each pod on a wire of its own to this machine, which routes between them.

    On a bridge, answers to what was sent to a Service's address would pass by iptables, and need br_netfilter.
    """
    addresses = {
        "type": "host-local",
        "dataDir": str(node.directory / "cni-addresses"),
        "ranges": [[{"subnet": POD_CIDR, "gateway": NODE_IP}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {"cniVersion": "0.4.0", "name": "prokos", "plugins": [{"type": "ptp", "ipam": addresses}]}


def _kubelet(node: Node, resolv_conf: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "tlsCertFile": str(node.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(node.pki / "kubelet-server.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(node.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        # The limits of pods hold; only the sum of all pods is not limited, which some sandboxes refuse.
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolv_conf),
        "podLogsDir": str(node.directory / "pod-logs"),
        "volumePluginDir": str(node.directory / "volume-plugins"),
        # A full disk of the developer's must not evict pods nor remove images, which nobody could pull again.
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def _proxy(node: Node) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(node.configuration / "proxy.kubeconfig")},
        "hostnameOverride": NODE_NAME,
        "clusterCIDR": POD_CIDR,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "nodePortAddresses": [f"{NODE_IP}/32"],
        # What the machine has set for its own connections stays.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
