"""A second, newer engine for compatibility tests: Camunda's in-memory engine for process tests.

`io.camunda:zeebe-process-test-engine` is the workflow engine of its version with the gRPC gateway, on one partition
and without a disk. It comes as single jars, which `in_memory_engine.lock` names with their SHA-256. A Java runtime
has no compiler, so the few lines that start the engine are a BeanShell script. To write the lock for a version:
`PYTHONPATH=tests python -m engine.in_memory_engine VERSION`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import grpc
import requests

from engine.devsystem import wait_until
from prokos.engine.distribution import REPOSITORY_VARIABLE, cache_directory
from prokos.engine.embedded_process import find_free_ports
from prokos.engine.java import find_java
from prokos.engine.tether import tethered

if TYPE_CHECKING:
    from collections.abc import Sequence

ENGINE = "io.camunda:zeebe-process-test-engine"
LAUNCHER = "org.apache-extras.beanshell:bsh:2.0b6"

LOCK = Path(__file__).with_suffix(".lock")
SCRIPT = Path(__file__).with_suffix(".bsh")

UNUSED = ("netty-tcnative-boringssl-static",)
"""Artifacts that are left out: TLS for five platforms."""

DOWNLOADS = 8
"""Downloads at a time."""

ATTEMPTS = 3
"""How often all downloads are tried when a connection breaks."""

START_TIMEOUT = 360.0
ADVANCE_TIMEOUT = 60.0


@dataclass(frozen=True)
class Jar:
    """A jar by its Maven coordinates."""

    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name in the cache; also groups share artifact ids."""
        parts = (self.group, self.artifact, self.version, self.classifier)
        return "-".join(part for part in parts if part) + ".jar"

    def is_in(self, directory: Path) -> bool:
        """Whether it is there, and is what it should be."""
        path = directory / self.file_name
        return path.is_file() and sha256(path) == self.sha256


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locked() -> tuple[str, list[Jar]]:
    """The engine's version and all its jars, as the lock has them."""
    jars = []
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinates, digest = line.split()
            group, artifact, version, *classifier = coordinates.split(":")
            jars.append(Jar(group, artifact, version, "".join(classifier), digest))
    version = next(jar.version for jar in jars if f"{jar.group}:{jar.artifact}" == ENGINE)
    return version, jars


VERSION = locked()[0]


def ensure_jars() -> list[Path]:
    """The engine's jars in the cache; those that are not there yet are downloaded and verified."""
    version, jars = locked()
    directory = cache_directory() / "test-engine" / version
    directory.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        missing = [jar for jar in jars if not jar.is_in(directory)]
        try:
            with tempfile.TemporaryDirectory(dir=directory) as work, ThreadPoolExecutor(DOWNLOADS) as pool:
                context = maven(Path(work))
                list(pool.map(lambda jar, to=context: download(to, jar, directory), missing))
            break
        except (requests.RequestException, RuntimeError):  # jgo raises the latter for whatever is not the file
            if attempt == ATTEMPTS:
                raise
    return [directory / jar.file_name for jar in jars]


def maven(cache: Path) -> Any:
    """jgo's resolver on the public repository, or the configured mirror."""
    from jgo.maven import MavenContext, PythonResolver

    # It says itself that a checksum differs, and goes on; the lock is what counts.
    logging.getLogger("jgo").setLevel(logging.ERROR)
    chosen = os.environ.get(REPOSITORY_VARIABLE, "").rstrip("/")
    repositories = {"configured": chosen} if chosen else None
    return MavenContext(resolver=PythonResolver(), repo_cache=cache, remote_repos=repositories, timeout=30)


def download(context: Any, jar: Jar, directory: Path) -> None:
    """One jar into the cache, if it is what the lock says."""
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    path = Path(component.artifact(jar.classifier, "jar").resolve())
    digest = sha256(path)
    if digest != jar.sha256:
        raise RuntimeError(f"{jar.file_name}: expected SHA-256 {jar.sha256}, got {digest}")
    path.rename(directory / jar.file_name)


class InMemoryEngine:
    """A running in-memory engine. It ends with this process, whose child it is."""

    def __init__(self, directory: Path) -> None:
        """Args: where its output and its temporary files go."""
        self._directory = directory
        self._output = directory / "engine.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.address = ""

    def __enter__(self) -> Self:
        port = find_free_ports("127.0.0.1").gateway
        self.address = f"127.0.0.1:{port}"
        command = [
            str(find_java().executable),
            *("-Xmx768m", f"-Dport={port}", f"-Djava.io.tmpdir={self._directory}"),
            *("-cp", os.pathsep.join(map(str, ensure_jars())), "bsh.Interpreter", str(SCRIPT)),
        ]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                tethered(command), stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
        self._wait_for("ready", 1, START_TIMEOUT)
        # The first connection loads many classes; a client would give up before.
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(START_TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        process = self._running()
        self._stdin(process).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()

    def advance(self, seconds: float) -> None:
        """Move the engine's clock forward; timers and leases that are due by then fall due now."""
        with self._lock:
            before = self._said("advanced")
            stdin = self._stdin(self._running())
            stdin.write(f"PT{seconds:g}S\n".encode())
            stdin.flush()
            self._wait_for("advanced", before + 1, ADVANCE_TIMEOUT)

    def _wait_for(self, line: str, count: int, timeout: float) -> None:
        wait_until(
            lambda: self._said(line) >= count or self._running().poll() is not None,
            timeout=timeout,
            describe=lambda: f"the engine did not say {line!r}:\n{self._output.read_text()}",
        )
        assert self._said(line) >= count, f"the engine ended:\n{self._output.read_text()}"

    def _said(self, line: str) -> int:
        return self._output.read_text(errors="replace").splitlines().count(line)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @staticmethod
    def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
        assert process.stdin is not None
        return process.stdin


def write_lock(version: str) -> None:
    """Resolve a version's dependencies, which takes a minute, and write the lock."""
    with tempfile.TemporaryDirectory() as cache:
        context = maven(Path(cache))
        wanted = [context.create_dependency(coordinates) for coordinates in (f"{ENGINE}:{version}", LAUNCHER)]
        found = [dependency.artifact for part in context.resolver.resolve(wanted) for dependency in part]
        used = [artifact for artifact in found if artifact.artifactId not in UNUSED]
        LOCK.write_text(
            "# The in-memory engine's jars: Maven coordinates and SHA-256, written by in_memory_engine.py\n"
            + "".join(f"{line}\n" for line in sorted(map(lock_line, used)))
        )


def lock_line(artifact: Any) -> str:
    parts = (artifact.groupId, artifact.artifactId, artifact.version, artifact.classifier)
    return f"{':'.join(part for part in parts if part)} {sha256(Path(artifact.resolve()))}"


def main(arguments: Sequence[str]) -> None:
    """With a version, write the lock for it; then fetch what the lock names."""
    if arguments:
        write_lock(arguments[0])
    ensure_jars()


if __name__ == "__main__":
    main(sys.argv[1:])
