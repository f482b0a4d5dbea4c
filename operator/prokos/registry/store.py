"""Where the registry is kept: what the kernel, the PDO and the router ask of files and of a cluster alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

    from prokos.registry.model import RegisteredProcess, Registry
    from prokos.resources import ProkOSSpec, TaskExecutor, TaskRoute


class Store(Protocol):
    """A registry that others may write too. Reading waits for nothing; what was written here is read at once."""

    def signature(self) -> Hashable:
        """Changes whenever a document does."""
        ...

    def load(self) -> Registry:
        """Everything that is registered. A document that cannot be read is named in the log and left out."""
        ...

    async def put_system(self, system: ProkOSSpec) -> None:
        """Record the system's settings."""
        ...

    async def put_executor(self, executor: TaskExecutor) -> None:
        """Record an executor that is deployed."""
        ...

    async def remove_executor(self, name: str) -> None:
        """Forget an executor."""
        ...

    async def put_process(self, process: RegisteredProcess) -> None:
        """Record a process that is deployed."""
        ...

    async def put_route(self, route: TaskRoute) -> None:
        """Keep a routing decision, as a document a person can read, edit and pin in Git."""
        ...

    async def remove_route(self, name: str) -> None:
        """Forget a decision."""
        ...
