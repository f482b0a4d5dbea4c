"""Installing the engine's distribution, from a real HTTP server laid out as a Maven repository."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from prokos.engine.distribution import PINNED_SHA256, EngineSetupError, ensure_distribution, obtain_distribution

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = "9.9.9"
INSTALL = (
    "import sys; from prokos.engine.distribution import ensure_distribution; print(ensure_distribution(sys.argv[1]))"
)


def path_of(version: str, suffix: str = "") -> str:
    return f"/io/camunda/camunda-zeebe/{version}/camunda-zeebe-{version}.tar.gz{suffix}"


def tarball(members: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return output.getvalue()


def distribution(version: str = VERSION, *, ballast: int = 0) -> bytes:
    top = f"camunda-zeebe-{version}"
    files = {f"{top}/bin/broker": b"#!/bin/sh\n", f"{top}/lib/engine.jar": os.urandom(ballast) or b"jar"}
    return tarball(files)


class Repository(ThreadingHTTPServer):
    """Files by path. A file announced longer than it is breaks off; one that is held is not sent to its end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.announced: dict[str, int] = {}
        self.requested: list[str] = []
        self.refusals: list[int] = []
        """Statuses of the next answers."""
        self.hold = threading.Event()
        self.hold.set()
        self.sending = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def publish(self, content: bytes, version: str = VERSION, *, sha1: str | None = None) -> None:
        self.files[path_of(version)] = content
        self.files[path_of(version, ".sha1")] = (sha1 or hashlib.sha1(content).hexdigest()).encode()


class Handler(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        if self.server.refusals:
            self.send_error(self.server.refusals.pop(0))
            return
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.announced.get(self.path, len(content))))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if self.path.endswith(".tar.gz"):
            self.server.sending.set()
            self.server.hold.wait(30)
        self.wfile.write(content[half:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    with Repository() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("PROKOS_MAVEN_REPOSITORY", server.url)
        yield server
        server.hold.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PROKOS_CACHE", str(tmp_path))
    monkeypatch.delenv("PROKOS_ENGINE_HOME", raising=False)
    monkeypatch.setattr("prokos.engine.distribution.PAUSE", 0)
    return tmp_path / "engine"


def visible(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_installs_a_distribution_and_leaves_nothing_else(repository: Repository, cache: Path) -> None:
    repository.publish(distribution())
    home = ensure_distribution(VERSION)
    assert home == cache / VERSION
    assert (home / "bin" / "broker").read_bytes() == b"#!/bin/sh\n"
    assert visible(cache) == [VERSION]


def test_asks_the_repository_only_once(repository: Repository) -> None:
    repository.publish(distribution())
    ensure_distribution(VERSION)
    asked = len(repository.requested)
    ensure_distribution(VERSION)
    assert len(repository.requested) == asked


def test_tells_its_progress_in_bytes(repository: Repository) -> None:
    content = distribution(ballast=100_000)
    repository.publish(content)
    told: list[tuple[str, int, int | None]] = []
    ensure_distribution(VERSION, progress=lambda *step: told.append(step))
    assert ("downloading the engine 9.9.9", len(content), len(content)) in told
    assert ("unpacking the engine 9.9.9", len(content), len(content)) in told


def test_says_that_an_unpinned_version_is_only_checked_against_the_repository(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.publish(distribution())
    ensure_distribution(VERSION)
    assert "verified against the repository's own checksum" in capsys.readouterr().out


def test_refuses_a_corrupt_download_with_both_checksums(repository: Repository, cache: Path) -> None:
    content = distribution()
    repository.publish(content, sha1="0" * 40)
    with pytest.raises(EngineSetupError) as error:
        ensure_distribution(VERSION)
    assert f"expected sha1 {'0' * 40}, got {hashlib.sha1(content).hexdigest()}" in str(error.value)
    assert "try again" in str(error.value)
    assert visible(cache) == []


def test_refuses_another_content_of_a_pinned_version_even_when_the_repository_vouches_for_it(
    repository: Repository, cache: Path
) -> None:
    content = distribution("8.6.0")
    repository.publish(content, "8.6.0")
    with pytest.raises(EngineSetupError) as error:
        ensure_distribution("8.6.0")
    assert f"expected sha256 {PINNED_SHA256['8.6.0']}, got {hashlib.sha256(content).hexdigest()}" in str(error.value)
    assert visible(cache) == []


def test_names_the_coordinates_of_a_version_that_is_not_published(repository: Repository, cache: Path) -> None:
    with pytest.raises(EngineSetupError, match=r"has no io\.camunda:camunda-zeebe:9\.9\.9:tar\.gz"):
        ensure_distribution(VERSION)
    assert visible(cache) == []


def test_refuses_an_unpinned_version_without_a_checksum(repository: Repository, cache: Path) -> None:
    repository.files[path_of(VERSION)] = distribution()
    with pytest.raises(EngineSetupError, match=r"has no io\.camunda:camunda-zeebe:9\.9\.9:tar\.gz\.sha1"):
        ensure_distribution(VERSION)
    assert visible(cache) == []


def test_tries_a_broken_download_again_and_then_says_what_to_do(repository: Repository, cache: Path) -> None:
    content = distribution()
    repository.publish(content)
    repository.announced[path_of(VERSION)] = len(content) + 1
    with pytest.raises(EngineSetupError, match=r"3 attempts.*PROKOS_MAVEN_REPOSITORY.*PROKOS_ENGINE_HOME"):
        ensure_distribution(VERSION)
    assert repository.requested.count(path_of(VERSION)) == 3
    assert visible(cache) == []


def test_a_repository_that_is_busy_is_asked_again(repository: Repository, cache: Path) -> None:
    repository.publish(distribution())
    repository.refusals = [503, 502]  # on 429 the library itself waits
    ensure_distribution(VERSION)
    assert repository.requested.count(path_of(VERSION)) == 3
    assert visible(cache) == [VERSION]


def test_says_which_mirror_cannot_be_reached_without_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROKOS_MAVEN_REPOSITORY", "http://me:secret@127.0.0.1:1/maven")
    with pytest.raises(EngineSetupError, match=r"http://127\.0\.0\.1:1/maven") as error:
        ensure_distribution(VERSION)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no tarball", id="no tarball"),
        pytest.param(tarball({"../outside": b"evil"}), id="a member outside"),
        pytest.param(tarball({"camunda/README": b"hello"}), id="no bin and lib"),
        pytest.param(distribution(ballast=100_000)[:50_000], id="cut off"),
    ],
)
def test_refuses_what_is_no_distribution(repository: Repository, cache: Path, content: bytes) -> None:
    repository.publish(content)
    with pytest.raises(EngineSetupError, match="is no distribution of the engine"):
        ensure_distribution(VERSION)
    assert visible(cache) == []
    assert not (cache / "outside").exists()


@pytest.mark.parametrize("version", ["", "8.6", "../8.6.0", "8.6.0/x", "latest"])
def test_refuses_what_is_no_version(version: str) -> None:
    with pytest.raises(EngineSetupError, match="is no version"):
        ensure_distribution(version)


def test_a_download_killed_half_way_leaves_nothing_that_is_taken_for_a_distribution(
    repository: Repository, cache: Path
) -> None:
    repository.publish(distribution(ballast=100_000))
    repository.hold.clear()
    process = subprocess.Popen([sys.executable, "-c", INSTALL, VERSION])
    assert repository.sending.wait(30)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cache / VERSION).exists()
    assert len(visible(cache)) == 1, "the unfinished download, to be removed by the next"

    repository.hold.set()
    assert ensure_distribution(VERSION) == cache / VERSION
    assert visible(cache) == [VERSION]


async def test_a_cancelled_download_ends_and_leaves_nothing(repository: Repository, cache: Path) -> None:
    repository.publish(distribution(ballast=100_000))
    repository.hold.clear()
    download = asyncio.create_task(obtain_distribution(VERSION))
    assert await asyncio.to_thread(repository.sending.wait, 30)
    download.cancel()
    with pytest.raises(asyncio.CancelledError):
        await download
    repository.hold.set()
    async with asyncio.timeout(30):
        while visible(cache):
            await asyncio.sleep(0.02)
    assert not (cache / VERSION).exists()


def test_two_processes_that_start_together_download_once(repository: Repository, cache: Path) -> None:
    repository.publish(distribution(ballast=100_000))
    repository.hold.clear()
    command = [sys.executable, "-c", INSTALL, VERSION]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert repository.sending.wait(30)
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    repository.hold.set()
    for process in (first, second):
        output, _ = process.communicate(timeout=300)
        assert output.strip().endswith(str(cache / VERSION))
    assert repository.requested.count(path_of(VERSION)) == 1


def test_takes_the_distribution_that_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "mine"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "broker").touch()
    (home / "lib").mkdir()
    (home / "lib" / "engine.jar").touch()
    monkeypatch.setenv("PROKOS_ENGINE_HOME", str(home))
    assert ensure_distribution("8.6.0") == home


def test_says_what_the_named_directory_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROKOS_ENGINE_HOME", str(tmp_path))
    with pytest.raises(EngineSetupError) as error:
        ensure_distribution("8.6.0")
    assert f"PROKOS_ENGINE_HOME={tmp_path} is no distribution" in str(error.value)
    assert "no bin/broker and no lib/*.jar" in str(error.value)
