"""The programs of a cluster, built once from their Go modules into the cache.

go.mod pins the versions, go.sum the checksum of every module they are built from; nothing else is downloaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tenacity
from hack.cluster.commands import run
from hack.cluster.progress import say, step
from hack.cluster.settings import HELM_MODULE, MODULE, ClusterError, cache_directory, module_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KIND_MODULE = MODULE.parent / "kind"
CYCLONUS_MODULE = MODULE.parent / "cyclonus"

REPORT_INTERVAL = 20.0
"""Seconds between two lines about a build that takes minutes."""

DOWNLOADS = 3
"""How often the download of the modules is tried; what is there already is kept."""


@dataclass(frozen=True, slots=True)
class Build:
    """Programs that are built together.

    Attributes:
        title: What they are, for people.
        module: Directory of the Go module that pins them.
        packages: What to build, by the name of the program.
        variables: Values of Go variables that are set when linking: versions that programs report and act on.
    """

    title: str
    module: Path
    packages: dict[str, str]
    variables: dict[str, str]


def kubernetes_build() -> Build:
    """Kubernetes, etcd, CoreDNS, and the two small programs of our own."""
    version = module_version("k8s.io/kubernetes")
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    return Build(
        title=f"Kubernetes {version}, etcd and CoreDNS",
        module=MODULE,
        packages={
            **{name: f"k8s.io/kubernetes/cmd/{name}" for name in names},
            "etcd": "go.etcd.io/etcd/server/v3",
            **{name: f"./{name}" for name in ("coredns", "pause", "provisioner")},
        },
        variables=_kubernetes_variables(version),
    )


def kubectl_build() -> Build:
    """kubectl, by itself: with kind it is all that is needed of Kubernetes."""
    version = module_version("k8s.io/kubernetes")
    packages = {"kubectl": "k8s.io/kubernetes/cmd/kubectl"}
    return Build(f"kubectl {version}", MODULE, packages, _kubernetes_variables(version))


def helm_build() -> Build:
    """Helm, as its own makefile builds it: charts ask which Kubernetes it was made for."""
    minor = module_version("k8s.io/client-go", HELM_MODULE).split(".")[1]
    version = module_version("helm.sh/helm/v3", HELM_MODULE)
    return Build(
        title=f"Helm {version}",
        module=HELM_MODULE,
        packages={"helm": "helm.sh/helm/v3/cmd/helm"},
        variables={
            "helm.sh/helm/v3/internal/version.version": f"v{version}",
            **{
                f"helm.sh/helm/v3/pkg/{package}.k8sVersion{part}": value
                for package in ("chartutil", "lint/rules")
                for part, value in (("Major", "1"), ("Minor", minor))
            },
        },
    )


def kind_build() -> Build:
    """kind, for machines with Docker."""
    return Build(
        f"kind {module_version('sigs.k8s.io/kind', KIND_MODULE)}", KIND_MODULE, {"kind": "sigs.k8s.io/kind"}, {}
    )


def cyclonus_build() -> Build:
    """cyclonus, which says what NetworkPolicies let through. It needs no cluster."""
    name = "github.com/mattfenwick/cyclonus"
    return Build(
        f"cyclonus {module_version(name, CYCLONUS_MODULE)}", CYCLONUS_MODULE, {"cyclonus": f"{name}/cmd/cyclonus"}, {}
    )


def binaries_directory() -> Path:
    """Where built programs are, whether they are there already or not."""
    return cache_directory() / "cluster" / module_version("k8s.io/kubernetes")


def ensure_built(build: Build) -> Path:
    """The directory with a build's programs; they are built if they are not there, or were built from other modules.

    Raises:
        ClusterError: There is no Go, or the build failed.
    """
    directory = binaries_directory()
    directory.mkdir(parents=True, exist_ok=True)
    first = next(iter(build.packages))
    stamp = directory / f".{first}.built-from"
    fingerprint = _fingerprint(build)
    # One lock each: who needs a small program does not wait for Kubernetes.
    with _only_one(directory / f".{first}.lock"):
        there = stamp.is_file() and stamp.read_text() == fingerprint
        if not there or not all((directory / name).is_file() for name in build.packages):
            if shutil.which("go") is None:
                raise ClusterError(f"building {build.title} needs Go 1.24 or newer, and there is no 'go' on the PATH")
            with step(f"building {build.title} (once, then cached)"):
                _compile(build, directory)
            stamp.write_text(fingerprint)
    return directory


def _kubernetes_variables(version: str) -> dict[str, str]:
    major, minor, _ = version.split(".", 2)
    return {
        f"k8s.io/{package}.{variable}": value
        for package in ("component-base/version", "client-go/pkg/version")
        for variable, value in (("gitVersion", f"v{version}"), ("gitMajor", major), ("gitMinor", minor))
    }


def _fingerprint(build: Build) -> str:
    """What the programs depend on: the modules with their checksums, our own sources, and what is set in them."""
    digest = hashlib.sha256(repr((build.packages, build.variables)).encode())
    for path in sorted(path for path in build.module.rglob("*") if path.suffix in {".go", ".mod", ".sum"}):
        digest.update(f"{path.relative_to(build.module)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _compile(build: Build, directory: Path) -> None:
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(DOWNLOADS), retry=tenacity.retry_if_exception_type(ClusterError), reraise=True
    )
    retrying(run, "go", "mod", "download", cwd=build.module, timeout=1800)
    # One call for all packages whose programs are named as we want them: they are compiled and linked side by side.
    together = [package for name, package in build.packages.items() if package.rsplit("/", 1)[1] == name]
    _go_build(build, directory, together)
    for name, package in build.packages.items():
        if package not in together:
            _go_build(build, directory / name, [package])


def _go_build(build: Build, output: Path, packages: list[str]) -> None:
    linked = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in build.variables.items())])
    # Debug information that -s -w would drop when linking is not made in the first place: a fifth of the time.
    command = ["go", "build", "-v", "-mod=readonly", "-trimpath", "-gcflags=all=-dwarf=false", f"-ldflags={linked}"]
    with subprocess.Popen(
        ["env", "CGO_ENABLED=0", *command, "-o", f"{output}/" if output.is_dir() else output, *packages],
        cwd=build.module,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = _follow(process)
    if process.returncode:
        raise ClusterError(f"building {build.title} failed: {' | '.join(said[-20:])}")


def _follow(process: subprocess.Popen[str]) -> list[str]:
    """What a build said, apart from the packages it compiled; those are counted for people."""
    compiled = 0
    said: list[str] = []
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(REPORT_INTERVAL):
            say(f"  {compiled} packages compiled")

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    for line in process.stderr or ():
        if " " in line or line.startswith("#"):
            said.append(line.strip())
        else:
            compiled += 1
    process.wait()
    ended.set()
    reporter.join()
    return said


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
