"""`prokos dev`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prokos.cli.output import (
    FAILED,
    INVALID,
    OutputFormat,
    describe,
    print_error,
    print_note,
    print_problems,
    print_rows,
)
from prokos.cli.run import print_result, run_and_watch
from prokos.cli.running import get_json
from prokos.cli.status import task_row
from prokos.dev.state import StateDirectory
from prokos.dev.system import AlreadyRunningError, BootError, ManifestError, running_system
from prokos.engine import EngineError, NotFoundError
from prokos.engine.distribution import DEFAULT_VERSION, EngineSetupError
from prokos.engine.startup_cache import ensure_startup_cache
from prokos.logs import configure_logging

if TYPE_CHECKING:
    from prokos.dev.system import System


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What was asked for on the command line."""

    manifests: list[Path]
    state: Path | None
    fresh: bool
    ephemeral: bool
    run_process: str | None
    variables: dict[str, Any]
    timeout: float


async def run_dev(options: DevOptions) -> int:
    """Run until interrupted, or until `--run` has its result. Returns the exit code."""
    if missing := [path for path in options.manifests if not path.exists()]:
        print_error(f"{missing[0]} does not exist")
        return INVALID
    with contextlib.ExitStack() as stack:
        state = StateDirectory.find(options.state)
        if options.ephemeral:
            state = StateDirectory(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prokos-"))))
        state.create()
        # The command speaks for itself; its log is one among those of the system's processes.
        configure_logging(stack.enter_context((state.logs / "kernel.log").open("a", buffering=1)))
        main = asyncio.create_task(_main(options, state))
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, Interrupts(main))
        try:
            return await main
        except asyncio.CancelledError:
            print_note("stopped; nothing is left running")
            return 0


async def _main(options: DevOptions, state: StateDirectory) -> int:
    try:
        async with running_system(
            options.manifests,
            state,
            fresh=options.fresh,
            keep_state=not options.ephemeral,
            say=print_note,
            progress=DownloadProgress(),
        ) as system:
            await system.wait_booted()
            _say_what_runs(system)
            if options.run_process is not None:
                return await _run_once(system, options)
            await _improve_start(system)
            await asyncio.Event().wait()
    except ManifestError as error:
        print_problems(error.problems)
        return INVALID
    except (AlreadyRunningError, BootError, EngineSetupError, EngineError) as error:
        print_error(str(error))
        return FAILED
    return 0


def _say_what_runs(system: System) -> None:
    desired = system.home.desired()
    for problem in system.home.problems:
        print_note(describe(problem))
    for (kind, name), message in sorted(system.kernel.steps.refusals.items()):
        print_note(f"refused: {kind} {name}: {message}")
    for name, worker in system.lacking().items():
        print_note(f"executor {name} has no running worker, and is tried again: {worker.message}")
    print_note(
        f"ready: {len(desired.executors)} executors, {len(desired.processes)} processes; state in {system.state.root}"
    )
    print_note("  in another terminal: prokos run PROCESS, prokos status, prokos tasks -f; Ctrl-C here ends it all")


async def _improve_start(system: System) -> None:
    """Make what lets the engine start in half the time from the next start on, with processor time nobody wants."""
    engine = system.home.desired().system.engine
    if engine.external is None:
        version = engine.embedded.version if engine.embedded else DEFAULT_VERSION
        with contextlib.suppress(EngineSetupError):
            await ensure_startup_cache(version, idle=True)


async def _run_once(system: System, options: DevOptions) -> int:
    process = options.run_process or ""
    print_note(f"running {process} ...")
    try:
        result = await run_and_watch(system.client, process, options.variables, options.timeout, system.runtime.pdo)
    except NotFoundError:
        known = sorted(system.kernel.store.load().processes)
        print_error(f"no process {process!r}; there are: {', '.join(known) or 'none'}")
        return INVALID
    failed = isinstance(result, str)
    mine = await _tasks_of(system, None if isinstance(result, str) else str(result.key))
    columns = {"element": "TASK", "executor": "ROUTED TO", "why": "WHY", "state": "STATE", "message": "MESSAGE"}
    print_rows([task_row(task) for task in mine], columns, OutputFormat.TABLE, "no tasks were dispatched")
    print()  # noqa: T201
    if isinstance(result, str):
        print_error(result)
    else:
        print_result(result, OutputFormat.TABLE)
    sys.stdout.flush()
    return FAILED if failed else 0


async def _tasks_of(system: System, instance: str | None) -> list[dict[str, Any]]:
    """The tasks of an instance (None: of all), oldest first; the last one's end may take a moment to be known."""
    for _ in range(20):
        found = await asyncio.to_thread(get_json, system.runtime.pdo, "/tasks?limit=1000") or []
        mine = [task for task in reversed(found) if instance in {None, task["instance"]}]
        if all(task["ended"] for task in mine):
            break
        await asyncio.sleep(0.1)
    return mine


class Interrupts:
    """The first one ends the system in order, the second one at once: its children die with it."""

    def __init__(self, main: asyncio.Task[int]) -> None:
        self._main = main
        self._seen = False

    def __call__(self) -> None:
        """An interrupt came."""
        if self._seen:
            os._exit(128 + signal.SIGINT)
        self._seen = True
        print_note("stopping ...")
        self._main.cancel()


class DownloadProgress:
    """Says how a download gets on: in place on a terminal, every tenth elsewhere."""

    def __init__(self) -> None:
        self._shown: dict[str, int] = {}

    def __call__(self, description: str, done: int, total: int | None) -> None:
        """Take a step: bytes done, bytes in all if known."""
        tenth = int(done * 10 / total) if total else done // 50_000_000
        if self._shown.get(description) == tenth:
            return
        self._shown[description] = tenth
        size = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
        print_note(f"{description}: {size}")
