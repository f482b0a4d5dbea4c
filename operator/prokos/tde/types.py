"""Finding the executor class of a type: an entry point of the group `prokos.executors`.

A package adds a type by declaring an entry point; the kernel need not know it.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from prokos.tde.contract import Executor

GROUP = "prokos.executors"


def executor_class(type_name: str) -> type[Executor[Any, Any]]:
    """Load the class that executes tasks of a type.

    Raises:
        LookupError: No installed package offers the type, or what it needs is not installed.
    """
    found = entry_points(group=GROUP, name=type_name)
    if not found:
        known = ", ".join(sorted(entry.name for entry in entry_points(group=GROUP)))
        raise LookupError(f"no installed package offers executor type {type_name!r}; there are: {known}")
    try:
        loaded = next(iter(found)).load()
    except ModuleNotFoundError as error:
        raise LookupError(
            f"executor type {type_name!r} needs the package {error.name!r}: install prokos[{type_name}]"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Executor)):
        raise LookupError(f"entry point {type_name!r} of {GROUP} is not a subclass of prokos.tde.Executor")
    return loaded
