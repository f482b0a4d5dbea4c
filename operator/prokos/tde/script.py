"""TDE type `script`: a Python script, a shell script or any command, in a process group of its own.

The contract with the program, the same for every language:

- Input: JSON on standard input, and in the file `$PROKOS_INPUT`.
- Result: JSON in the file `$PROKOS_OUTPUT`. No file, or an empty one, is an empty result.
- Failure: JSON in the file `$PROKOS_ERROR`, which decides whatever the exit code is. With `code` (and `message`,
  `variables`) it is a business error; with `fatal: true` an incident; otherwise the task is tried again, after
  `retryAfterSeconds` if given.
- Without that file, exit code 78 (EX_CONFIG of sysexits.h) is an incident, and any other end but exit code 0 is
  tried again.

`$HOME` and `$TMPDIR` are a directory that exists as long as the task. It is the working directory of a script; a
command runs in the worker's, `$PROKOS_WORKDIR`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from prokos.tde.cancellation import finish
from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.json_text import parse_json
from prokos.tde.sandbox import Program, Sandbox, SandboxError

if TYPE_CHECKING:
    from prokos.resources.script_settings import ScriptSettings
    from prokos.tde.contract import Context, Environment
    from prokos.tde.sandbox import Ended

EX_CONFIG = 78
"""Exit code of a failure that no further attempt can mend; from sysexits.h."""


class ScriptExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Runs one program per attempt."""

    settings: ScriptSettings

    def __init__(self, settings: ScriptSettings, environment: Environment) -> None:
        super().__init__(settings, environment)
        self._sandbox = Sandbox()

    async def start(self) -> None:
        """Start the server that starts the programs."""
        await self._sandbox.start()

    async def close(self) -> None:
        """End it."""
        await self._sandbox.close()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Run the program once."""
        scratch = Path(tempfile.mkdtemp(prefix="prokos-"))
        try:
            ended = await self._run(self._program(data, context, scratch), context)
            return self._outcome(ended, scratch)
        finally:
            await finish(asyncio.to_thread(_remove, scratch))

    def _program(self, data: dict[str, Any], context: Context, scratch: Path) -> Program:
        settings, environment = self.settings, self.environment
        (scratch / "input.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        (scratch / "home").mkdir(mode=0o700)
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(scratch / "home"),
            "TMPDIR": str(scratch / "home"),
            **settings.env,
            **{name: environment.secrets[secret] for name, secret in settings.secret_env.items()},
            **context_variables(context, environment),
            "PROKOS_INPUT": str(scratch / "input.json"),
            "PROKOS_OUTPUT": str(scratch / "output.json"),
            "PROKOS_ERROR": str(scratch / "error.json"),
        }
        script = None
        argv = settings.command or []
        if settings.source is not None:
            script = scratch / "script"
            script.write_text(settings.source, encoding="utf-8")
            argv = ["/bin/sh", "-e", str(script)] if settings.language == "shell" else []
        return Program(
            argv=argv,
            python=script if settings.language == "python" else None,
            env=env,
            cwd=environment.workdir if settings.command else scratch / "home",
            scratch=scratch,
            stdin=scratch / "input.json",
        )

    async def _run(self, program: Program, context: Context) -> Ended:
        def log(stream: str, line: str) -> None:
            context.log.info("script output", stream=stream, line=self._redact(line))

        try:
            return await self._sandbox.run(program, log, self.settings.max_output_bytes)
        except SandboxError as error:
            raise RetryableFailure(f"the script was not run: {error}") from error

    def _outcome(self, ended: Ended, scratch: Path) -> dict[str, Any]:
        error = self._read(scratch / "error.json", "$PROKOS_ERROR")
        if error is not None:
            self._raise(error)
        if ended.code == 0:
            result = _parse(self._read(scratch / "output.json", "$PROKOS_OUTPUT") or b"{}", "$PROKOS_OUTPUT")
            return result if isinstance(result, dict) else {"result": result}
        tail = self._redact(ended.tail)
        message = f"the script {ended.reason}" + (f": {tail}" if tail else "")
        if ended.code == EX_CONFIG:
            raise FatalFailure(message)
        raise RetryableFailure(message)

    def _read(self, path: Path, name: str) -> bytes | None:
        """Read a file the program wrote, which may be anything."""
        limit = self.settings.max_output_bytes
        try:
            # Neither follow a link out of the directory nor wait for a writer to a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FatalFailure(f"{name} cannot be read: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FatalFailure(f"{name} is not a regular file")
            if status.st_size > limit:
                raise FatalFailure(
                    f"{name} has {status.st_size} bytes, which exceeds spec.script.maxOutputBytes ({limit})"
                )
            return file.read(limit).strip() or None

    def _raise(self, data: bytes) -> NoReturn:
        error = _parse(data, "$PROKOS_ERROR")
        if not isinstance(error, dict):
            raise FatalFailure(f"$PROKOS_ERROR must hold a JSON object, not {data[:100]!r}")
        code, variables, after = (error.get(key) for key in ("code", "variables", "retryAfterSeconds"))
        message = self._redact(str(error.get("message") or "the script gave no message"))
        if code is not None:
            if not isinstance(code, str) or not code:
                raise FatalFailure(f"code in $PROKOS_ERROR must be a text that is not empty, not {code!r}")
            if not isinstance(variables or {}, dict):
                raise FatalFailure("variables in $PROKOS_ERROR must be a JSON object")
            raise BusinessError(code, message, variables)
        if error.get("fatal") is True:
            raise FatalFailure(message)
        try:
            raise RetryableFailure(message, None if after is None else timedelta(seconds=max(after, 0)))
        except (TypeError, OverflowError):
            raise FatalFailure(f"retryAfterSeconds in $PROKOS_ERROR must be seconds, not {after!r}") from None

    def _redact(self, text: str) -> str:
        """Clear a text of secrets, also of the single lines of those that have several, such as keys."""
        secrets = self.environment.secrets
        text = secrets.redact(text)
        for name in self.settings.secret_env.values():
            for line in secrets[name].splitlines():
                if len(line) >= _TELLING:
                    text = text.replace(line, f"<secret {name}>")
        return text


_TELLING = 8
"""Shortest line of a secret, in characters, that is looked for by itself."""


def context_variables(context: Context, environment: Environment) -> dict[str, str]:
    """What a program may know about its attempt, as environment variables."""
    variables = {
        "PROKOS_EXECUTOR": environment.name,
        "PROKOS_WORKDIR": str(environment.workdir.resolve()),
        "PROKOS_IDEMPOTENCY_KEY": context.idempotency_key,
        "PROKOS_TIMEOUT_SECONDS": f"{context.timeout.total_seconds():g}",
    }
    if context.task is not None:
        names = (
            *("process_id", "process_version", "process_instance_key", "element_id", "element_name"),
            *("element_instance_key", "job_key", "job_type", "retries", "tenant_id"),
        )
        for name in names:
            variables[f"PROKOS_{name.upper()}"] = str(getattr(context.task, name))
    return variables


def _parse(data: bytes, name: str) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise FatalFailure(f"{name} does not hold JSON: {error}") from None


def _remove(scratch: Path) -> None:
    """Remove a directory, also where its owner has locked it or nested it beyond Python's stack."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(scratch, ignore_errors=True)
    if scratch.exists():  # these tools follow no links, however the tree was made
        subprocess.run(["chmod", "-R", "u+rwx", "--", str(scratch)], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", "--", str(scratch)], capture_output=True, check=False)
