"""The tests on the cluster: what they need is built first, so that a test's time limit is about the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from hack.cluster import cluster, images
from hack.cluster.binaries import ensure_built, helm_build, kind_build, kubectl_build, kubernetes_build
from hack.cluster.settings import REPOSITORY, ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence


def run_tests(options: Sequence[str]) -> int:
    """Run pytest on tests/cluster; its exit code.

    Args:
        options: For pytest.

    Raises:
        ClusterError: This machine cannot have a cluster.
    """
    if reason := _obstacle():
        raise ClusterError(reason)
    for build in (kubectl_build(), helm_build(), kind_build(), *([kubernetes_build()] if cluster.is_native() else [])):
        ensure_built(build)
    images.build([image.name for image in (*images.IMAGES, *images.EXAMPLES)])
    pytest = [sys.executable, "-m", "pytest", "tests/cluster", "-q", *options]
    return subprocess.run(pytest, cwd=REPOSITORY, check=False).returncode


def _obstacle() -> str:
    """Why this machine cannot have a cluster; empty if it can."""
    if shutil.which("go") is None:
        return "Kubernetes' programs are built by Go 1.24 or newer, and there is no 'go' on the PATH"
    if not cluster.is_native():
        return ""
    if os.geteuid() != 0:
        return "without Docker a cluster is made of processes of root: run this as root, or install Docker for kind"
    if shutil.which("apt-get") is None:
        return "without Docker a cluster takes Debian's packages, and there is no apt-get: install Docker for kind"
    return ""
