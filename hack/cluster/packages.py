"""The Debian packages that the node and the building of images need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster.commands import run
from hack.cluster.progress import step
from hack.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
}
"""What the node runs, and the package each is in."""

IMAGE_PROGRAMS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "runc": "runc"}
"""What builds images where there is no Docker."""


def ensure_installed(programs: Mapping[str, str]) -> None:
    """Install the packages of programs that are missing.

    Raises:
        ClusterError: They cannot be installed: we are not root, or this is no Debian.
    """
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if not missing:
        return
    if os.geteuid() != 0:
        raise ClusterError(f"{', '.join(missing)} must be installed, which only root can: run this as root")
    if shutil.which("apt-get") is None:
        raise ClusterError(f"{', '.join(missing)} must be installed, and there is no apt-get: install them, or Docker")
    with step(f"installing {', '.join(missing)}"):
        # RUNLEVEL=1 keeps packages from starting their services: we run our own, elsewhere.
        environment = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
            run("apt-get", "update", "-qq")
        # Another apt-get may be at work.
        options = ("-oDPkg::Lock::Timeout=300", "-qq", "--yes", "--no-install-recommends")
        install = ("apt-get", "install", *options, *missing)
        try:
            run(*install, environment=environment)
        except ClusterError:
            # The lists may be so old that the versions they name are gone.
            run("apt-get", "update", "-qq")
            run(*install, environment=environment)
