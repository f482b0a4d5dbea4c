"""The registry as files, one document each: the embedded home's store.

Every write replaces a whole file, so a reader in another process sees the old document or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
import yaml
from pydantic import ValidationError

from prokos.registry.model import RegisteredProcess, Registry
from prokos.resources import ProkOSSpec, TaskExecutor, TaskRoute
from prokos.resources.base import Model

if TYPE_CHECKING:
    from pathlib import Path

M = TypeVar("M", bound=Model)

log = structlog.get_logger(__name__)


class FileRegistry:
    """A directory with `executors/`, `processes/`, `routes/` and `system.json`. Implements `prokos.registry.Store`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for kind in ("executors", "processes", "routes"):
            (directory / kind).mkdir(parents=True, exist_ok=True)

    def signature(self) -> tuple[tuple[str, int, int, int], ...]:
        """Changes whenever a document does: every write makes a new file, even within one tick of the clock."""
        found = []
        for path in sorted(self.directory.rglob("*")):
            if path.suffix in {".json", ".yaml"}:
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                found.append((str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def load(self) -> Registry:
        """Read everything; a document that cannot be read is named in the log and left out."""
        executors = self._read_all("executors", TaskExecutor)
        processes = self._read_all("processes", RegisteredProcess)
        system = self._read(self.directory / "system.json", ProkOSSpec) or ProkOSSpec()
        return Registry(
            executors={executor.metadata.name: executor for executor in executors},
            processes={process.process_id: process for process in processes},
            routes=tuple(self._read_all("routes", TaskRoute)),
            system=system,
        )

    async def put_system(self, system: ProkOSSpec) -> None:
        """Record the system's settings."""
        _write(self.directory / "system.json", _to_json(system))

    async def put_executor(self, executor: TaskExecutor) -> None:
        """Record an executor that is deployed."""
        _write(self._path("executors", executor.metadata.name), _to_json(executor))

    async def remove_executor(self, name: str) -> None:
        """Forget an executor."""
        self._path("executors", name).unlink(missing_ok=True)

    async def put_process(self, process: RegisteredProcess) -> None:
        """Record a process that is deployed."""
        _write(self._path("processes", process.process_id), _to_json(process))

    async def remove_process(self, process_id: str) -> None:
        """Forget a process."""
        self._path("processes", process_id).unlink(missing_ok=True)

    async def put_route(self, route: TaskRoute) -> None:
        """Record a routing decision as the document a person can read, edit and pin in Git."""
        document = route.model_dump(mode="json", by_alias=True, exclude_none=True)
        _write(self._route_path(route.metadata.name), yaml.safe_dump(document, sort_keys=False, allow_unicode=True))

    async def remove_route(self, name: str) -> None:
        """Forget a decision."""
        self._route_path(name).unlink(missing_ok=True)

    def _route_path(self, name: str) -> Path:
        return self.directory / "routes" / f"{name}.yaml"

    def _path(self, kind: str, name: str) -> Path:
        # A BPMN id may hold characters that a file name may not, and be longer.
        safe = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "_" for char in name)[:80]
        if safe != name:
            safe = f"{safe}.{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        return self.directory / kind / f"{safe}.json"

    def _read_all(self, kind: str, model: type[M]) -> list[M]:
        paths = sorted((self.directory / kind).iterdir())
        found = (self._read(path, model) for path in paths if path.suffix in {".json", ".yaml"})
        return [document for document in found if document is not None]

    def _read(self, path: Path, model: type[M]) -> M | None:
        try:
            text = path.read_text()
            content: Any = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
            return model.model_validate(content)
        except FileNotFoundError:
            return None
        except (ValidationError, yaml.YAMLError, ValueError, OSError) as error:
            log.error("registry document is not readable and is left out", file=str(path), error=str(error))
            return None


def _to_json(document: Model) -> str:
    return document.model_dump_json(by_alias=True, exclude_none=True, indent=1)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
