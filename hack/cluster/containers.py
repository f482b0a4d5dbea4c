"""The node's container runtime: importing images, and ending what is left of containers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

from hack.cluster.commands import run, wait_until
from hack.cluster.processes import end, find_processes
from hack.cluster.settings import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

    from hack.cluster.settings import Node

NAMESPACE = "k8s.io"
"""containerd's namespace of what Kubernetes uses."""


def ctr(node: Node, *arguments: str | Path) -> str:
    """Run containerd's own command line on the node.

    Raises:
        ClusterError: It failed.
    """
    return run("ctr", "--address", node.containerd_socket, "--namespace", NAMESPACE, *arguments)


def is_ready(node: Node) -> bool:
    """Whether containerd answers."""
    try:
        ctr(node, "version")
    except ClusterError:
        return False
    return True


def snapshotter(node: Node) -> str:
    """How containerd can stack layers where the node's directory is: overlays do not lie on overlays."""
    below = run("stat", "--file-system", "--format=%T", node.directory).strip()
    return "native" if below == "overlayfs" else "overlayfs"


def import_archive(node: Node, archive: Path) -> None:
    """Make the images of an archive known to the node.

    Raises:
        ClusterError: The file holds no images, in Docker's or the OCI's format.
    """
    ctr(node, "images", "import", "--snapshotter", snapshotter(node), archive)


def write_archive(binary: Path, image: str, archive: Path) -> None:
    """An image whose only file is a static program, which it runs, in Docker's archive format."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, binary.name, binary.read_bytes(), mode=0o755)
    diff = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{binary.name}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, mode="w") as tar:
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", layer.getvalue())


def end_containers(node: Node) -> None:
    """End what pods left behind when the kubelet could not do it."""
    with contextlib.suppress(ClusterError):
        for task in ctr(node, "tasks", "list", "--quiet").split():
            with contextlib.suppress(ClusterError):
                ctr(node, "tasks", "kill", "--signal", "SIGKILL", task)


def end_shims(node: Node) -> None:
    """End the helper processes that containerd leaves beside containers."""
    end(find_processes("containerd-shim-runc-v2", str(node.containerd_socket)))


def wait_for_no_containers(node: Node, timeout: float) -> None:
    """Wait until the kubelet has removed all containers.

    Raises:
        ClusterError: There still are some after `timeout` seconds.
    """
    wait_until(lambda: not ctr(node, "containers", "list", "--quiet").strip(), "no containers", timeout)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))
