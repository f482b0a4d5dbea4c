"""The engine's distribution: from a Maven repository into the cache, whole and verified, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit

import structlog
import tenacity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GROUP, ARTIFACT, PACKAGING = "io.camunda", "camunda-zeebe", "tar.gz"
"""Maven coordinates of the complete distribution: broker, gateway and all libraries."""

DEFAULT_VERSION = "8.6.0"

PINNED_SHA256 = {"8.6.0": "5c699e86a6c9d290dd7b1f0b2ea648fb57fd1dacf1cab22c874219e58827ea45"}
"""SHA-256 of the distributions that ProkOS is tested with, as the public repository served them."""

HOME_VARIABLE = "PROKOS_ENGINE_HOME"
CACHE_VARIABLE = "PROKOS_CACHE"
REPOSITORY_VARIABLE = "PROKOS_MAVEN_REPOSITORY"

VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?")

ATTEMPTS = 3
"""How often a download is tried when the connection breaks, for which 300 MB is long enough, or the repository refuses:
what it has not and what it cannot give just now look alike."""

PAUSE = 2.0
"""Seconds between two attempts."""

TIMEOUT = 30
"""Seconds the repository may stay silent."""

log = structlog.get_logger("prokos.engine")


class EngineSetupError(Exception):
    """The embedded engine cannot be installed or started. The message says why and what to do."""


class Progress(Protocol):
    """Told how far a long step is."""

    def __call__(self, description: str, done: int, total: int | None) -> None:
        """Args: what is done, how many bytes of it, and of how many; None when that is unknown."""


def no_progress(description: str, done: int, total: int | None) -> None:
    """Tell nobody."""


def cache_directory() -> Path:
    """Where ProkOS keeps what it can fetch or make again: `PROKOS_CACHE`, else `~/.cache/prokos`."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "prokos"


def missing_parts(home: Path) -> list[str]:
    """What a directory lacks to be a distribution of the engine."""
    parts = [] if (home / "bin" / "broker").is_file() else ["bin/broker"]
    return parts if any((home / "lib").glob("*.jar")) else [*parts, "lib/*.jar"]


def ensure_distribution(version: str = DEFAULT_VERSION, *, progress: Progress = no_progress) -> Path:
    """The directory of an engine's distribution; it is downloaded if it is not there yet.

    Blocks; see `obtain_distribution`. Processes that ask at the same time wait for the one that downloads.

    Args:
        version: Version of the engine, like `8.6.0`. Without effect when `PROKOS_ENGINE_HOME` is set.
        progress: Told of downloading and unpacking, in bytes.

    Raises:
        EngineSetupError: `PROKOS_ENGINE_HOME` names no distribution, the download failed or is not what it should
            be, or there is no room for it. Nothing is left in the cache that could be taken for a distribution.
    """
    if there := installed_distribution(version):
        return there
    parent = cache_directory() / "engine"
    home = parent / version
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _only_one(parent / f".{version}.lock", f"waiting for another download of the engine {version}", progress):
            # Somebody else may have finished it while we waited; what they left unfinished is ours to remove.
            if missing_parts(home):
                _remove_unfinished(parent, version)
                _install(version, home, progress)
    except OSError as error:
        raise EngineSetupError(f"cannot install the engine {version} in {parent}: {error}") from error
    return home


def installed_distribution(version: str = DEFAULT_VERSION) -> Path | None:
    """The directory of a distribution that is there already: the chosen one, or the one in the cache.

    Raises:
        EngineSetupError: `PROKOS_ENGINE_HOME` names no distribution, or the version is none.
    """
    if chosen := os.environ.get(HOME_VARIABLE):
        return _chosen_distribution(chosen)
    if not VERSION.fullmatch(version):
        raise EngineSetupError(f"{version!r} is no version of the engine; give one like {DEFAULT_VERSION}")
    home = cache_directory() / "engine" / version
    return None if missing_parts(home) else home


async def obtain_distribution(version: str = DEFAULT_VERSION, *, progress: Progress = no_progress) -> Path:
    """As `ensure_distribution`, in a thread; `progress` is called there. Cancelling it ends the download."""
    cancelled = threading.Event()

    def checked(description: str, done: int, total: int | None) -> None:
        if cancelled.is_set():
            raise EngineSetupError(f"{description} was cancelled")
        progress(description, done, total)

    try:
        return await asyncio.to_thread(ensure_distribution, version, progress=checked)
    finally:
        cancelled.set()


def _chosen_distribution(chosen: str) -> Path:
    home = Path(chosen).expanduser().absolute()
    if missing := missing_parts(home):
        raise EngineSetupError(
            f"{HOME_VARIABLE}={chosen} is no distribution of the engine: it has no {' and no '.join(missing)}; "
            f"name the directory that holds bin/ and lib/, or unset {HOME_VARIABLE} to have one downloaded"
        )
    return home


@contextlib.contextmanager
def _only_one(lock: Path, description: str, progress: Progress) -> Iterator[None]:
    """Hold a lock between processes. The kernel lets go of it when its holder dies, however that happens."""
    with lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress(description, 0, None)
                time.sleep(0.2)
        yield


def _remove_unfinished(parent: Path, version: str) -> None:
    for path in [*parent.glob(f".{version}-*"), parent / version]:
        shutil.rmtree(path, ignore_errors=True)


def _install(version: str, home: Path, progress: Progress) -> None:
    # The directory starts with a dot and has no bin/: whatever interrupts us, it is never taken for a distribution.
    work = Path(tempfile.mkdtemp(prefix=f".{version}-", dir=home.parent))
    try:
        tarball = _download(version, PACKAGING, work / "download", progress)
        _verify(version, tarball, work)
        unpacked = _unpack(version, tarball, work / "unpacked", progress)
        # The rename must not reach the disk before the files do, or a power failure would leave empty ones.
        os.sync()
        unpacked.rename(home)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(version: str, packaging: str, work: Path, progress: Progress = no_progress) -> Path:
    """One file of the distribution's component, tried several times."""
    import requests

    def failed(state: tenacity.RetryCallState) -> None:
        shutil.rmtree(work, ignore_errors=True)
        reason = type(state.outcome.exception()).__name__ if state.outcome else ""
        log.warning("download of the engine failed", version=version, attempt=state.attempt_number, reason=reason)

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_fixed(PAUSE),
        retry=tenacity.retry_if_exception_type((requests.RequestException, EngineSetupError)),
        after=failed,
        reraise=True,
    )
    try:
        return retrying(_fetch, version, packaging, work, progress)
    except requests.RequestException as error:
        raise EngineSetupError(
            f"cannot download {_coordinates(version)} from {_repository_name()} ({type(error).__name__}, {ATTEMPTS} "
            f"attempts): check the connection and its proxy settings, set {REPOSITORY_VARIABLE} to a mirror, or "
            f"{HOME_VARIABLE} to an unpacked distribution"
        ) from None  # what it says may name the repository with its credentials


def _fetch(version: str, packaging: str, work: Path, progress: Progress) -> Path:
    """One attempt, by the Maven repository's own rules."""
    from jgo.maven import MavenContext, PythonResolver

    # jgo says itself that checksums differ or are missing; we check them all the same and say what to do.
    logging.getLogger("jgo").setLevel(logging.ERROR)
    # A repository cache of our own: jgo takes whatever file lies in the cache for a complete one.
    context = MavenContext(
        resolver=PythonResolver(progress_callback=_Downloading(version, progress)),
        repo_cache=work,
        remote_repos=_repositories(),
        timeout=TIMEOUT,
    )
    try:
        path = context.project(GROUP, ARTIFACT).at_version(version).artifact(packaging=packaging).resolve()
    except RuntimeError as error:
        raise EngineSetupError(
            f"{_repository_name()} has no {_coordinates(version, packaging)}, or cannot give it now; not every version "
            f"of the engine is published there, {DEFAULT_VERSION} is"
        ) from error
    return Path(path)


class _Downloading:
    """jgo's progress callback, in our terms."""

    def __init__(self, version: str, progress: Progress) -> None:
        self._description = f"downloading the engine {version}"
        self._progress = progress

    @contextlib.contextmanager
    def __call__(self, filename: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def update(count: int) -> None:
            nonlocal done
            done += count
            self._progress(self._description, done, total)

        yield update


def _repositories() -> dict[str, str] | None:
    """The configured mirror; None for jgo's own default, the public repository."""
    chosen = os.environ.get(REPOSITORY_VARIABLE, "").rstrip("/")
    return {"configured": chosen} if chosen else None


def _repository_name() -> str:
    """The repository as messages may name it: without credentials."""
    repositories = _repositories()
    if repositories is None:
        return "the public Maven repository"
    parts = urlsplit(repositories["configured"])
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _coordinates(version: str, packaging: str = PACKAGING) -> str:
    return f"{GROUP}:{ARTIFACT}:{version}:{packaging}"


def _verify(version: str, tarball: Path, work: Path) -> None:
    expected, algorithm = PINNED_SHA256.get(version), "sha256"
    if expected is None:
        # Every Maven repository has a SHA-1 beside each file; the stronger ones are missing more often than not.
        algorithm = "sha1"
        checksum = _download(version, f"{PACKAGING}.{algorithm}", work / algorithm)
        expected = checksum.read_text().split()[0].lower()
        log.warning(
            "this version of the engine is not pinned: it is verified against the repository's own checksum, which "
            "tells a damaged download but not a forged one",
            version=version,
            repository=_repository_name(),
            sha1=expected,
        )
    with tarball.open("rb") as file:
        got = hashlib.file_digest(file, algorithm).hexdigest()
    if got != expected:
        raise EngineSetupError(
            f"{_coordinates(version)} from {_repository_name()} is not what it should be: expected {algorithm} "
            f"{expected}, got {got} ({tarball.stat().st_size} bytes); try again, and if it stays so, do not trust "
            f"that repository: set {REPOSITORY_VARIABLE} to another one"
        )


def _unpack(version: str, tarball: Path, target: Path, progress: Progress) -> Path:
    """Unpack the tarball; its one top directory is the distribution."""
    description = f"unpacking the engine {version}"
    total = tarball.stat().st_size
    try:
        with tarball.open("rb") as file, tarfile.open(fileobj=file, mode="r|gz") as archive:
            for member in archive:
                archive.extract(member, target, filter="data")
                progress(description, _position(file, total), total)
    except (tarfile.TarError, EOFError) as error:
        raise EngineSetupError(f"{_coordinates(version)} is no distribution of the engine: {error}") from error
    homes = [path for path in target.iterdir() if not missing_parts(path)] if target.is_dir() else []
    if len(homes) != 1:
        raise EngineSetupError(f"{_coordinates(version)} is no distribution of the engine: it has no bin/ and lib/")
    return homes[0]


def _position(file: IO[bytes], total: int) -> int:
    return min(file.tell(), total)
