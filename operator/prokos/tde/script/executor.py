"""TDE type `script`: a Python, Node or shell script or any command, in a process group of its own.

The contract with the program, the same for every language:

- Input: JSON on standard input, and in the file `$PROKOS_INPUT`.
- Result: JSON in the file `$PROKOS_OUTPUT`. No file, or an empty one, is an empty result.
- Failure: JSON in the file `$PROKOS_ERROR`, which decides whatever the exit code is. With `code` (and `message`,
  `variables`) it is a business error; with `fatal: true` an incident; otherwise the task is tried again, after
  `retryAfterSeconds` if given.
- Without that file, exit code 78 (EX_CONFIG of sysexits.h) is an incident, and any other end but exit code 0 is
  tried again.
- A program that exceeds a limit is ended, and the task becomes an incident.

`$HOME` and `$TMPDIR` are a directory that exists as long as the task. It is the working directory of a script; a
command runs in the worker's, `$PROKOS_WORKDIR`.
"""

from __future__ import annotations

import asyncio
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prokos.resources.script_settings import size_in_bytes
from prokos.tde.cancellation import finish
from prokos.tde.contract import Executor, FatalFailure, RetryableFailure
from prokos.tde.redaction import Redactor
from prokos.tde.sandbox import Sandbox
from prokos.tde.sandbox_server import PreloadError, SandboxError, Setup
from prokos.tde.script.program import build_program
from prokos.tde.script.result import raise_error, read_result
from prokos.tde.script.workspace import make_workspace, sweep

if TYPE_CHECKING:
    from prokos.resources.script_settings import ScriptLimits, ScriptSettings
    from prokos.tde.contract import Context, Environment
    from prokos.tde.sandbox import Ended, Program
    from prokos.tde.script.workspace import Workspace

EX_CONFIG = 78
"""Exit code of a failure that no further attempt can mend; from sysexits.h."""
SCRIPTS = Path("/var/run/prokos/script")
"""Where a pod finds the script of `configMapRef`, a file with the name of its key."""
PR_SET_DUMPABLE = 4

LIMITS = {
    "memory": ("memory", "limits.memory"),
    "cpu": ("processor time", "limits.cpu"),
    "processes": ("processes and threads", "limits.processes"),
    "disk": ("room on the disk", "limits.disk"),
    "file_size": ("room in one file", "limits.fileSize"),
}
"""What is limited, and by which setting."""


class ScriptExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Runs one program per attempt."""

    settings: ScriptSettings

    def __init__(self, settings: ScriptSettings, environment: Environment) -> None:
        super().__init__(settings, environment)
        self._redactor = Redactor(environment.secrets, settings.secret_names)
        self._source = settings.source
        if settings.config_map_ref is not None:
            self._source = _read(SCRIPTS / settings.config_map_ref.key, "spec.script.configMapRef")
        self._sandbox = Sandbox(self._setup(), self._redactor)

    def _setup(self) -> Setup:
        settings = self.settings
        python = None
        if settings.file is not None:
            text = _read(Path(settings.file), "spec.script.file")
            python = text if settings.language == "python" else None
        elif settings.language == "python":
            python = self._source
        return Setup(sandbox_limits(settings.limits), python, settings.file or "script.py", settings.preload)

    async def start(self) -> None:
        """Start the server that starts the programs, and tidy up after a worker that was killed."""
        await asyncio.to_thread(sweep)
        try:
            await self._sandbox.server.start()
        except PreloadError as error:
            raise FatalFailure(f"spec.script.preload: {error}") from error
        if self.settings.secret_names:
            # Programs of the same user could otherwise read this worker's environment and memory in /proc.
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)

    async def close(self) -> None:
        """End it."""
        await self._sandbox.server.close()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Run the program once."""
        secrets = self.environment.secrets
        workspace = make_workspace({name: secrets[secret] for name, secret in self.settings.secret_files.items()})
        try:
            program = build_program(self.settings, self._source, data, context, self.environment, workspace)
            return self._outcome(await self._run(program, context), workspace)
        finally:
            await finish(asyncio.to_thread(workspace.remove))

    async def _run(self, program: Program, context: Context) -> Ended:
        def log(stream: str, line: str) -> None:
            context.log.info("script output", stream=stream, line=line)

        limit = self.settings.limits.log
        try:
            return await self._sandbox.run(
                program, log, self.settings.max_output_bytes if limit is None else size_in_bytes(limit)
            )
        except (SandboxError, PreloadError) as error:
            raise RetryableFailure(f"the script was not run: {error}") from error

    def _outcome(self, ended: Ended, workspace: Workspace) -> dict[str, Any]:
        if ended.limit is not None:
            raise FatalFailure(self._exceeded(ended.limit) + (f": {ended.tail}" if ended.tail else ""))
        limit = self.settings.max_output_bytes
        raise_error(workspace.scratch / "error.json", limit, self._redactor)
        if ended.code == 0:
            return read_result(workspace.scratch / "output.json", limit, self._redactor)
        message = f"the script {ended.reason}" + (f": {ended.tail}" if ended.tail else "")
        if ended.code == EX_CONFIG:
            raise FatalFailure(message)
        raise RetryableFailure(message)

    def _exceeded(self, limit: str) -> str:
        what, setting = LIMITS[limit]
        limits = self.settings.limits.model_dump(mode="json")
        return f"the script was ended: it needs more {what} than spec.script.{setting} allows ({limits[limit]})"


def sandbox_limits(limits: ScriptLimits) -> dict[str, float | None]:
    """The limits as the sandbox takes them, in bytes, seconds and numbers."""
    return {
        "memory": size_in_bytes(limits.memory),
        "cpu": None if limits.cpu is None else limits.cpu.total_seconds(),
        "processes": limits.processes,
        "open_files": limits.open_files,
        "file_size": size_in_bytes(limits.file_size),
        "disk": size_in_bytes(limits.disk),
    }


def _read(path: Path, field: str) -> str:
    """Read a script.

    Raises:
        FatalFailure: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FatalFailure(f"{field}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
