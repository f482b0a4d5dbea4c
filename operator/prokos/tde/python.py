"""TDE type `python`: a class of the user's, a subclass of `prokos.tde.Executor`."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

import pydantic
from pydantic_core import PydanticSerializationError

from prokos.tde.contract import Executor, FatalFailure

if TYPE_CHECKING:
    from pathlib import Path

    from prokos.resources.python_settings import PythonSettings
    from prokos.tde.contract import Context, Environment

PROBLEMS = 5
"""Most problems of an input that one message names."""


class PythonExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Loads the user's class and lets it do the work, with its own types of input and output."""

    settings: PythonSettings

    def __init__(self, settings: PythonSettings, environment: Environment) -> None:
        super().__init__(settings, environment)
        self._inner = load_class(settings, environment.workdir)(settings.settings, environment)

    async def start(self) -> None:
        """Start the user's executor."""
        await self._inner.start()

    async def close(self) -> None:
        """Close it."""
        await self._inner.close()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Validate the input, let the user's executor work, and turn its output into variables."""
        try:
            parsed = self._inner.parse_input(data)
        except pydantic.ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'input'}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False)[:PROBLEMS]
            )
            raise FatalFailure(f"the input does not fit {self.settings.executor}: {problems}") from None
        output = await self._inner.execute(parsed, context)
        try:
            return self._inner.dump_output(output)
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise FatalFailure(f"the output of {self.settings.executor} cannot be written as JSON: {error}") from error


def load_class(settings: PythonSettings, workdir: Path) -> type[Executor[Any, Any]]:
    """Import the class that `package.module:Class` names.

    Args:
        settings: The name, and the directory to import from.
        workdir: What that directory is relative to.

    Raises:
        LookupError: There is no such module or class, or it is no executor; the message says what to correct.
    """
    where = f"spec.python.executor {settings.executor!r}"
    module_name, _, class_name = settings.executor.partition(":")
    if settings.path is not None:
        directory = (workdir / settings.path).resolve()
        if not directory.is_dir():
            raise LookupError(f"spec.python.path: there is no directory {directory}")
        if str(directory) not in sys.path:
            sys.path.insert(0, str(directory))
            importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            place = settings.path or "the installed packages (spec.python.path is not set)"
            raise LookupError(f"{where}: there is no module {error.name!r} in {place}") from error
        raise LookupError(f"{where}: it imports {error.name!r}, which is not installed") from error
    found = getattr(module, class_name, None)
    if found is None:
        raise LookupError(f"{where}: module {module_name!r} has no {class_name!r}")
    if not (isinstance(found, type) and issubclass(found, Executor)):
        raise LookupError(f"{where} is not a subclass of prokos.tde.Executor")
    if inspect.isabstract(found) or not inspect.iscoroutinefunction(found.execute):
        raise LookupError(f"{where} needs a method `async def execute(self, data, context)`")
    return found
