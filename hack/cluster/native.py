"""A real one-node Kubernetes made of processes on this machine: brought up, loaded with images, taken down."""

from __future__ import annotations

import contextlib
import os
import shutil
import string
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster import components, containers, network, processes
from hack.cluster.binaries import binaries_directory, ensure_built, kubectl_build, kubernetes_build
from hack.cluster.commands import run, succeeds, wait_until
from hack.cluster.packages import NODE_PROGRAMS, ensure_installed
from hack.cluster.pki import write_pki
from hack.cluster.progress import say, step
from hack.cluster.settings import DNS_SERVICE_IP, NODE_NAME, ClusterError, Node, egress_is_open

if TYPE_CHECKING:
    from collections.abc import Callable

START_TIMEOUT = 120.0
"""Seconds a component may take until it answers. On an idle machine it is one or two."""

DRAIN_TIMEOUT = 30.0
"""Seconds the kubelet gets to end all pods before we do it."""

SHARED_DIRECTORIES = (
    "/var/log/containers",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/run/containerd/runc/k8s.io",
    "/run/containerd/runc",
    "/run/containerd/s",
    "/run/containerd",
)
"""Directories that kubelet, containerd and network plugins make outside of ours, whatever they are told. They are
removed if nobody else has anything in them."""

ADDON_IMAGES = {
    "pause": components.PAUSE_IMAGE,
    "coredns": components.COREDNS_IMAGE,
    "provisioner": components.PROVISIONER_IMAGE,
}
"""Images that are nothing but one of our static programs."""


def is_up(node: Node) -> bool:
    """Whether all components run, and the node takes pods."""
    names = (*components.CONTROL_PLANE, *components.WORKLOADS)
    return all(processes.is_running(node, name) for name in names) and _is_serving(node)


def up(node: Node) -> None:
    """Bring the node up, from whatever state it is in.

    Raises:
        ClusterError: Something it needs is missing, or a component does not come up.
    """
    egress = egress_is_open()
    if os.geteuid() != 0:
        raise ClusterError("a native cluster can only be made by root: run this as root, or install Docker for kind")
    ensure_installed(NODE_PROGRAMS)
    binaries = ensure_built(kubernetes_build())
    ensure_built(kubectl_build())
    if is_up(node):
        say("the node is up already")
        return
    with step("starting the node"):
        _check_no_other_kubelet(node)
        node.directory.mkdir(parents=True, exist_ok=True)
        network.set_up(node, egress=egress)
        _write_files(node)
        commands = components.build_commands(node, binaries)
        for name in components.CONTROL_PLANE[:2]:
            processes.ensure_started(node, name, commands[name])
        _wait_ready(node, lambda: _api_is_ready(node), "the API server is ready")
        for name in (*components.CONTROL_PLANE[2:], *components.WORKLOADS[:1]):
            processes.ensure_started(node, name, commands[name])
        _wait_ready(node, lambda: containers.is_ready(node), "containerd is ready")
        _ensure_addons(node, binaries, egress=egress)
        for name in components.WORKLOADS[1:]:
            processes.ensure_started(node, name, commands[name])
        _wait_ready(node, lambda: _is_serving(node), "the node and its addons are ready")


def down(node: Node) -> None:
    """End everything that `up` has started, and undo and remove everything it has made."""
    if not node.directory.exists():
        say("there is no node")
        return
    with step("taking the node down"):
        processes.stop(node, "kube-scheduler", "kube-controller-manager")
        with contextlib.suppress(ClusterError):
            _drain(node)
        processes.stop(node, "kubelet", "kube-proxy")
        # What they would wait for and write is removed in a moment.
        processes.stop(node, "kube-apiserver", "etcd", grace=0)
        containers.end_containers(node)
        processes.stop(node, "containerd")
        containers.end_shims(node)
        _unmount_below(node.directory)
        network.tear_down(node)
        _remove_cgroups()
        _remove_directories(node)


def _drain(node: Node) -> None:
    """Let the kubelet end all pods: it and the network plugins know best what belongs to them."""
    if not (processes.is_running(node, "kubelet") and _api_is_ready(node)):
        return
    _kubectl(node, "delete", "pods", "--all-namespaces", "--all", "--grace-period=0", "--force", "--wait=false")
    containers.wait_for_no_containers(node, DRAIN_TIMEOUT)


def _write_files(node: Node) -> None:
    if not node.kubeconfig.exists():
        write_pki(node)
    resolved = Path("/run/systemd/resolve/resolv.conf")
    files = components.build_files(
        node,
        snapshotter=containers.snapshotter(node),
        # Where systemd resolves names, /etc/resolv.conf names a server on the loopback interface, which pods have not.
        resolv_conf=resolved if resolved.exists() else Path("/etc/resolv.conf"),
    )
    for path, text in files.items():
        # kube-proxy ends when its file is written, be it to what it was.
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def _ensure_addons(node: Node, binaries: Path, *, egress: bool) -> None:
    for program, image in ADDON_IMAGES.items():
        archive = node.directory / f"{program}.tar"
        containers.write_archive(binaries / program, image, archive)
        containers.import_archive(node, archive)
        archive.unlink()
    addons = string.Template((Path(__file__).parent / "addons.yaml").read_text())
    nowhere = "template ANY ANY . {\n        rcode NXDOMAIN\n      }"
    manifest = addons.substitute(
        node=NODE_NAME,
        volumes=node.volumes,
        dns_service_ip=DNS_SERVICE_IP,
        coredns_image=components.COREDNS_IMAGE,
        provisioner_image=components.PROVISIONER_IMAGE,
        outside="forward . /etc/resolv.conf" if egress else nowhere,
    )
    _apply(node, manifest)


def _kubectl(node: Node, *arguments: str, stdin: str | None = None) -> str:
    return run(binaries_directory() / "kubectl", f"--kubeconfig={node.kubeconfig}", *arguments, stdin=stdin)


def _apply(node: Node, manifest: str) -> None:
    _kubectl(node, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)


def _api_is_ready(node: Node) -> bool:
    try:
        return node.kubeconfig.exists() and _kubectl(node, "get", "--raw", "/readyz").strip() == "ok"
    except ClusterError:
        return False


def _is_serving(node: Node) -> bool:
    """Whether the node takes pods and both addons run, which shows that pods start and reach the API server."""
    kubectl = binaries_directory() / "kubectl"
    waiting: list[str | Path] = [kubectl, f"--kubeconfig={node.kubeconfig}", "wait", "--timeout=1s"]
    addons = [*waiting, "--for=condition=Available", "--namespace=kube-system", "deployment/coredns"]
    return succeeds(*waiting, "--for=condition=Ready", f"node/{NODE_NAME}") and succeeds(
        *addons, "deployment/provisioner"
    )


def _wait_ready(node: Node, condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, or for the first component that ends."""

    def met() -> bool:
        processes.check_running(node, [path.name for path in node.processes.iterdir()])
        return condition()

    wait_until(met, f"{what} (logs are in {node.logs})", START_TIMEOUT)


def _check_no_other_kubelet(node: Node) -> None:
    """Two kubelets on one machine would remove each other's pods."""
    if any(path.exists() for path in _cgroups()) and not processes.is_running(node, "kubelet"):
        if node.directory.exists():
            _remove_cgroups()
        if any(path.exists() for path in _cgroups()):
            raise ClusterError("this machine runs pods already (it has a cgroup 'kubepods'): end its other Kubernetes")


def _cgroups() -> list[Path]:
    """The kubelet's cgroups: one in each hierarchy, or the one of cgroup v2."""
    root = Path("/sys/fs/cgroup")
    return [path for path in (root / "kubepods", *root.glob("*/kubepods")) if path.is_dir()]


def _remove_cgroups() -> None:
    for top in _cgroups():
        for path in sorted(top.rglob("*"), key=lambda path: len(path.parts), reverse=True):
            if path.is_dir():
                path.rmdir()
        top.rmdir()


def _remove_directories(node: Node) -> None:
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(node.directory):
            link.unlink()
    Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)
    shutil.rmtree(node.directory)
    for directory in SHARED_DIRECTORIES:
        with contextlib.suppress(OSError):
            Path(directory).rmdir()


def _unmount_below(directory: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if mount.startswith(f"{directory}/"):
            run("umount", "--lazy", mount)
