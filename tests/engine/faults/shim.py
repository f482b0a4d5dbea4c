"""Faults of a machine, put upon a system's processes by a preloaded library: a clock that is set, a slow disk."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("shim.c")

KINDS = ("other", "engine", "pdo", "worker")
"""Kinds of processes, in the order of `enum kind`. `other` is `prokos dev` with the kernel, and the commands."""

SYNC, SYNCS = len(KINDS), len(KINDS) + 1
"""Positions in `struct faults`, whose members are 64-bit integers."""


class Shim:
    """The library, and the file through which it is told what to do."""

    def __init__(self, directory: Path) -> None:
        """Build it. Skips the test where that cannot be done."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if sys.platform != "linux" or compiler is None:
            pytest.skip("needs Linux and a C compiler (cc or gcc) for a library that it preloads")
        library, control = directory / "shim.so", directory / "faults"
        build = [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(build, check=True)
        control.write_bytes(bytes(8 * (SYNCS + 1)))
        with control.open("r+b") as file:
            self._told = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(library), "PROKOS_TEST_FAULTS": str(control)}

    def set_clock(self, seconds: float, *kinds: str) -> None:
        """Set the wall clock of processes of these kinds, of all by default: so far off the machine's clock."""
        for kind in kinds or KINDS:
            self._tell(KINDS.index(kind), int(seconds * 1000))

    def slow_disk(self, seconds: float) -> None:
        """Make the engine wait longer whenever it waits for its disk."""
        self._tell(SYNC, int(seconds * 1000))

    @property
    def syncs(self) -> int:
        """How often the engine has waited longer."""
        (count,) = struct.unpack_from("=q", self._told, 8 * SYNCS)
        return int(count)

    def _tell(self, position: int, value: int) -> None:
        struct.pack_into("=q", self._told, 8 * position, value)
