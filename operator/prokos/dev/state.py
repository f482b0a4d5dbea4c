"""The state directory of an embedded system, and the file that says where its parts listen."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

STATE_VARIABLE = "PROKOS_STATE"
DEFAULT_STATE = ".prokos"


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Where everything of one embedded system is kept."""

    root: Path

    @classmethod
    def find(cls, chosen: Path | None = None) -> Self:
        """The chosen directory, or `PROKOS_STATE`, or `.prokos` here."""
        return cls((chosen or Path(os.environ.get(STATE_VARIABLE, DEFAULT_STATE))).absolute())

    @property
    def engine(self) -> Path:
        """The engine's data."""
        return self.root / "engine"

    @property
    def registry(self) -> Path:
        """What is registered."""
        return self.root / "registry"

    @property
    def manifests(self) -> Path:
        """What was applied by `prokos apply`."""
        return self.root / "manifests"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What lives only while the system runs."""
        return self.root / "run"

    @property
    def runtime_file(self) -> Path:
        """Where the parts listen."""
        return self.run / "runtime.json"

    def work(self, executor: str) -> Path:
        """The working directory of an executor's workers."""
        return self.root / "work" / executor

    def create(self) -> None:
        """Make the directories; what is in them is for their owner alone."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.registry, self.manifests, self.logs, self.run):
            directory.mkdir(parents=True, exist_ok=True)
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where the parts of a running system listen."""

    pid: int
    engine: dict[str, str]
    """Variables from which an engine connection is made; no secrets, those stay in the environment."""
    pdo: str
    """host:port of the PDO's status API."""
    kernel: str
    """host:port of the kernel's status API."""
    manifests: list[str]

    def write(self, state: StateDirectory) -> None:
        """Record it; the file is only readable by its owner."""
        temporary = state.runtime_file.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.chmod(0o600)
        temporary.replace(state.runtime_file)

    @classmethod
    def read(cls, state: StateDirectory) -> Self | None:
        """The running system of a state directory; None when there is none."""
        try:
            runtime = cls(**json.loads(state.runtime_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        try:
            os.kill(runtime.pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return runtime
