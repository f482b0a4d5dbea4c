"""Runs a user's Python script in the process that its guardian has made for it.

The script defines `main(input)` and returns its result, or assigns `output`; it raises `BusinessError`,
`RetryableFailure` or `FatalFailure`, which are there without an import. Standard library only.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import inspect
import json
import linecache
import os
import sys
import traceback
import types
from typing import Any, NoReturn

INLINE = "script.py"
"""The name in tracebacks of a script that is no file of its own."""
EX_CONFIG = 78
"""Exit code of a failure that no further attempt can mend; from sysexits.h."""


class BusinessError(Exception):
    """The task leaves through the error boundary event that catches `code`."""

    def __init__(self, code: str, message: str = "", variables: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = {"code": code, "message": message, "variables": variables or {}}


class RetryableFailure(Exception):  # noqa: N818 - "failure" is the engine's word for it
    """The task is tried again, after `retry_after_seconds` or the executor's back-off."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.report = {"message": message, "retryAfterSeconds": retry_after_seconds}


class FatalFailure(Exception):  # noqa: N818 - "failure" is the engine's word for it
    """The task becomes an incident at once."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.report = {"message": message, "fatal": True}


FAILURES = (BusinessError, RetryableFailure, FatalFailure)


@functools.cache
def compiled(source: str, name: str) -> tuple[types.CodeType, bool]:
    """Compile a script; whether it defines `main` too.

    What the server has compiled, the processes of the tasks find here when they are forked.

    Raises:
        SyntaxError, ValueError: It is no Python.
    """
    tree = ast.parse(source, name)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    defines_main = any(isinstance(node, functions) and node.name == "main" for node in tree.body)
    return compile(tree, name, "exec"), defines_main


def run(path: str, name: str, arguments: list[str]) -> NoReturn:
    """Run the script, and end this process as an interpreter does when its script ends.

    The interpreter's own end would free every object and so copy every page shared with the process it was forked
    from: 20 to 40 ms for nothing.
    """
    code = 0
    try:
        _run(path, name, arguments)
    except SystemExit as stop:
        if isinstance(stop.code, int):
            code = stop.code
        elif stop.code is not None:
            code = 1
            print(stop.code, file=sys.stderr)  # noqa: T201
    except BaseException as error:  # noqa: BLE001 - it is the script's own, and goes to its log
        code = 1
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        traceback.print_exception(error.with_traceback(frames))
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


def _run(path: str, name: str, arguments: list[str]) -> None:
    """Run the script, and write what it returns, assigns or raises to the files of the contract.

    A script that defines `main` is loaded as module `script`, so that its `if __name__ == "__main__"` does not
    run `main` a first time; any other is run as `__main__`.
    """
    sys.argv = [name, *arguments]
    if name != INLINE:
        sys.path.insert(0, os.path.dirname(path))  # noqa: PTH120 - pathlib would add to every script's start
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # text streams on pipes
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would add to every script's start
        source = file.read()
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        code, defines_main = compiled(source, name)
    except (SyntaxError, ValueError) as error:
        traceback.print_exception(error.with_traceback(None))
        sys.exit(EX_CONFIG)
    module = types.ModuleType("script" if defines_main else "__main__")
    sys.modules[module.__name__] = module
    with open(os.environ["PROKOS_INPUT"], encoding="utf-8") as file:  # noqa: PTH123
        data = json.load(file)
    vars(module).update({failure.__name__: failure for failure in FAILURES}, input=data, __file__=path)
    try:
        _write("PROKOS_OUTPUT", _result(code, module, data))
    except FAILURES as failure:
        _fail(failure)


def _result(code: types.CodeType, module: types.ModuleType, data: Any) -> Any:
    try:
        exec(code, vars(module))  # noqa: S102 - running scripts is what this file is for
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise
    main = getattr(module, "main", None)
    if not callable(main):
        return getattr(module, "output", None)
    result = main(data) if inspect.signature(main).parameters else main()
    if inspect.iscoroutine(result):
        import asyncio

        return asyncio.run(result)
    return result


def _fail(failure: Any) -> None:
    try:
        _write("PROKOS_ERROR", failure.report)
    except FatalFailure as worse:
        _write("PROKOS_ERROR", worse.report)
    sys.exit(1)


def _write(variable: str, value: Any) -> None:
    if value is None:
        return
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        what = "result" if variable == "PROKOS_OUTPUT" else "error"
        raise FatalFailure(f"the script's {what} cannot be written as JSON: {error}") from error
    with open(os.environ[variable], "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
