"""The registry as files, one document each: the embedded home's store.

Every write replaces a whole file, so a reader in another process sees the old document or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import structlog
import yaml
from pydantic import ValidationError

from prokos.registry.model import RegisteredProcess, Registry
from prokos.resources import ProkOSSpec, TaskExecutor, TaskRoute
from prokos.resources.base import Model

M = TypeVar("M", bound=Model)

_Stamp = tuple[int, int, int]
_Documents = dict[Path, tuple[_Stamp, Model | None]]

log = structlog.get_logger(__name__)


class FileRegistry:
    """A directory with `executors/`, `processes/`, `routes/` and `system.json`. Implements `prokos.registry.Store`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for kind in ("executors", "processes", "routes"):
            (directory / kind).mkdir(parents=True, exist_ok=True)
        self._documents: _Documents = {}
        """What the last `load` read."""

    def signature(self) -> tuple[tuple[str, _Stamp], ...]:
        """Changes whenever a document does."""
        found = []
        for path in sorted(self.directory.rglob("*")):
            if path.suffix in {".json", ".yaml"}:
                try:
                    found.append((str(path), _stamp(path)))
                except FileNotFoundError:
                    continue
        return tuple(found)

    def load(self) -> Registry:
        """Read what has changed since the last time; a document that cannot be read is logged and left out."""
        known, self._documents = self._documents, {}
        executors = self._read_all("executors", TaskExecutor, known)
        processes = self._read_all("processes", RegisteredProcess, known)
        system = self._read(self.directory / "system.json", ProkOSSpec, known) or ProkOSSpec()
        return Registry(
            executors={executor.metadata.name: executor for executor in executors},
            processes={process.process_id: process for process in processes},
            routes=tuple(self._read_all("routes", TaskRoute, known)),
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

    def _read_all(self, kind: str, model: type[M], known: _Documents) -> list[M]:
        paths = sorted((self.directory / kind).iterdir())
        found = (self._read(path, model, known) for path in paths if path.suffix in {".json", ".yaml"})
        return [document for document in found if document is not None]

    def _read(self, path: Path, model: type[M], known: _Documents) -> M | None:
        try:
            # Before the text: what is written in between is seen as a change the next time.
            stamp = _stamp(path)
            at, document = known.get(path, (None, None))
            if at != stamp:
                document = _parse(path, model)
        except FileNotFoundError:
            return None
        self._documents[path] = (stamp, document)
        return document if isinstance(document, model) else None


def _parse(path: Path, model: type[M]) -> M | None:
    try:
        text = path.read_text()
        content: Any = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
        return model.model_validate(content)
    except FileNotFoundError:
        raise
    except (ValidationError, yaml.YAMLError, ValueError, OSError) as error:
        log.error("registry document is not readable and is left out", file=str(path), error=str(error))
        return None


def _stamp(path: Path) -> _Stamp:
    """What changes with a file: every `_write` makes a new one."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _to_json(document: Model) -> str:
    return document.model_dump_json(by_alias=True, exclude_none=True, indent=1)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    with contextlib.suppress(FileNotFoundError):
        # Within one tick of the file system's clock the new one may get the number that the last but one had.
        later = max(temporary.stat().st_mtime_ns, path.stat().st_mtime_ns + 1)
        os.utime(temporary, ns=(later, later))
    temporary.replace(path)
