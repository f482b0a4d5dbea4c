"""Servers for tests, out of Debian's packages: unpacked into the cache, not installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache" / "prokos" / "debian"


@dataclass(frozen=True)
class Programs:
    """A tree of unpacked packages, or `/` if they are installed."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the programs need to find their libraries."""
        if self.root == Path("/"):
            return dict(os.environ)
        libraries = sorted({str(file.parent) for file in self.root.rglob("*.so*")})
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}

    def find(self, pattern: str) -> Path:
        found = sorted(self.root.glob(pattern))
        assert found, f"{self.root} has no {pattern}"
        return found[-1]


def programs(package: str, program: str, without: str = "^$") -> Programs:
    """Find a package's programs, or fetch them.

    Args:
        package: The package; what it depends on comes with it.
        program: Pattern of the path of a program that is in it, relative to the root.
        without: Regular expression of packages that are not needed although they are dependencies.
    """
    if list(Path("/").glob(program)):
        return Programs(Path("/"))
    root = CACHE / package
    if not root.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.skip(f"needs {package}, which is not installed, and this is no Debian that it could come from")
        _fetch(package, root, re.compile(without))
    return Programs(root)


def _fetch(package: str, root: Path, without: re.Pattern[str]) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".fetching-") as directory:
        fetching = Path(directory)
        (fetching / "debs").mkdir()
        try:
            _download(package, fetching / "debs", without, [])
        except subprocess.CalledProcessError:
            # The machine's own lists are empty or old. They stay as they are; ours are a copy apart.
            (fetching / "lists" / "partial").mkdir(parents=True)
            (fetching / "cache" / "archives" / "partial").mkdir(parents=True)
            options = [f"Dir::State::Lists={fetching}/lists", f"Dir::Cache={fetching}/cache"]
            _apt(["update"], options, fetching)
            _download(package, fetching / "debs", without, options)
        for deb in (fetching / "debs").glob("*.deb"):
            subprocess.run(["dpkg", "-x", deb, fetching / "root"], check=True)
        try:
            (fetching / "root").rename(root)
        except OSError:  # another test run was quicker
            assert root.exists()


def _download(package: str, target: Path, without: re.Pattern[str], options: list[str]) -> None:
    plan = _apt(["install", "--simulate", "--no-install-recommends", package], options, target)
    names = re.findall(r"^Inst (\S+) ", plan, re.MULTILINE)
    _apt(["download", *(name for name in names if not without.search(name))], options, target)


def _apt(arguments: list[str], options: list[str], directory: Path) -> str:
    set_options = [
        word for option in [*options, "Debug::NoLocking=1", "APT::Sandbox::User="] for word in ("-o", option)
    ]
    command = ["apt-get", "--quiet", *set_options, *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr)
        done.check_returncode()
    return done.stdout
