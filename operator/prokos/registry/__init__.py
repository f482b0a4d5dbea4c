"""What is registered: executors, processes with all their deployed versions, routes, and the system's settings.

The kernel's registration processes write it; the PDO and the router read it.
"""

from prokos.registry.files import FileRegistry
from prokos.registry.model import RegisteredProcess, RegisteredTask, RegisteredVersion, Registry
from prokos.registry.opened import open_registry
from prokos.registry.store import Store

__all__ = [
    "FileRegistry",
    "RegisteredProcess",
    "RegisteredTask",
    "RegisteredVersion",
    "Registry",
    "Store",
    "open_registry",
]
