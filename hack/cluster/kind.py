"""The same cluster by kind, on machines with a Docker that works."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from hack.cluster.binaries import ensure_built, kind_build, kubectl_build
from hack.cluster.commands import run, succeeds
from hack.cluster.progress import say, step
from hack.cluster.settings import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from hack.cluster.settings import Node

NAME = "prokos"
"""kind-config.yaml gives the cluster the same name."""

START_TIMEOUT = 900
"""Seconds for a start, with the download of the node's image: some 400 MB."""


def has_docker() -> bool:
    """Whether there is a Docker whose daemon answers."""
    return succeeds("docker", "info")


def is_up() -> bool:
    """Whether kind has the cluster."""
    return NAME in run(_kind(), "get", "clusters").split()


def up(node: Node) -> None:
    """Create the cluster if it is not there.

    Raises:
        ClusterError: kind cannot.
    """
    ensure_built(kubectl_build())
    node.directory.mkdir(parents=True, exist_ok=True)
    if is_up():
        say("the cluster is up already")
        run(_kind(), "export", "kubeconfig", "--name", NAME, "--kubeconfig", node.kubeconfig)
        return
    with step("creating the cluster by kind"):
        config = REPOSITORY / "kind-config.yaml"
        create = ("create", "cluster", "--config", config, "--kubeconfig", node.kubeconfig, "--wait", "180s")
        run(_kind(), *create, timeout=START_TIMEOUT)


def down(node: Node) -> None:
    """Delete the cluster."""
    run(_kind(), "delete", "cluster", "--name", NAME, "--kubeconfig", node.kubeconfig)
    shutil.rmtree(node.directory, ignore_errors=True)


def import_archive(archive: Path) -> None:
    """Make the images of an archive known to the cluster."""
    run(_kind(), "load", "image-archive", archive, "--name", NAME)


def _kind() -> str | Path:
    return shutil.which("kind") or ensure_built(kind_build()) / "kind"
