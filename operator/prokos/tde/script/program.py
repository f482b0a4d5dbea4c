"""What is run for one task: command line, environment and files, from the settings and the task's input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prokos.resources.script_settings import REFERENCE, size_in_bytes
from prokos.tde.contract import FatalFailure
from prokos.tde.sandbox import Program

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from prokos.resources.script_settings import ScriptSettings
    from prokos.tde.contract import Context, Environment
    from prokos.tde.script.workspace import Workspace

MAX_ARGUMENT = 128 * 1024 - 1
"""Longest argument in bytes: the kernel's MAX_ARG_STRLEN without the NUL."""
NODE_SHARE = 0.75
"""Part of the memory that V8 may use for objects, so that it tidies up before the limit is met."""
NODE_RUNNER = Path(__file__).with_name("node.cjs")


def build_program(
    settings: ScriptSettings,
    source: str | None,
    data: Mapping[str, Any],
    context: Context,
    environment: Environment,
    workspace: Workspace,
) -> Program:
    """Write the files that the program of one task reads, and say how it is run.

    Args:
        settings: The executor's.
        source: Text of the script, unless it is a file or a command.
        data: The task's input.
        context: The attempt's.
        environment: The worker's.
        workspace: The task's directories.

    Raises:
        FatalFailure: An argument needs a field that the input does not have.
    """
    scratch = workspace.scratch
    stdin = scratch / "input.json"
    stdin.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    arguments = [build_argument(argument, data) for argument in settings.arguments]
    script = Path(settings.file) if settings.file else scratch / "script"
    if source is not None:
        script.write_text(source, encoding="utf-8")
    return Program(
        argv=_command_line(settings, script, arguments),
        python=script if settings.language == "python" else None,
        arguments=arguments,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(workspace.home),
            "TMPDIR": str(workspace.home),
            **settings.env,
            **{name: environment.secrets[secret] for name, secret in settings.secret_env.items()},
            **context_variables(context, environment),
            **({"PROKOS_SECRETS_DIR": str(workspace.secrets)} if workspace.secrets else {}),
            "PROKOS_INPUT": str(stdin),
            "PROKOS_OUTPUT": str(scratch / "output.json"),
            "PROKOS_ERROR": str(scratch / "error.json"),
        },
        cwd=environment.workdir if settings.command else workspace.home,
        directories=workspace.directories,
        stdin=stdin,
    )


def _command_line(settings: ScriptSettings, script: Path, arguments: list[str]) -> list[str]:
    match settings.language:
        case "python":
            return []
        case "shell":
            return ["/bin/sh", "-e", str(script), *arguments]
        case "node":
            heap = int(size_in_bytes(settings.limits.memory) * NODE_SHARE / 2**20)
            return ["node", f"--max-old-space-size={heap}", str(NODE_RUNNER), str(script), *arguments]
        case None:
            return [*(settings.command or ()), *arguments]


def build_argument(argument: str, data: Mapping[str, Any]) -> str:
    """Put fields of the input in place of `$(a.b)`. The result is one argument, whatever the fields hold.

    Raises:
        FatalFailure: The input has no such field, or one that no argument can hold.
    """

    def expand(reference: re.Match[str]) -> str:
        if reference.group() == "$$(":
            return "$("
        return _text(_field(data, reference.group(1), argument), argument)

    built = REFERENCE.sub(expand, argument)
    if "\0" in built:
        raise FatalFailure(f"spec.script.arguments: {argument!r} would hold the character NUL")
    if (size := len(built.encode(errors="surrogatepass"))) > MAX_ARGUMENT:
        raise FatalFailure(
            f"spec.script.arguments: {argument!r} would have {size} bytes; Linux takes {MAX_ARGUMENT}. "
            "Read the field from $PROKOS_INPUT"
        )
    return built


def _field(data: Mapping[str, Any], name: str, argument: str) -> Any:
    """Find a field of the input: by its name, else by its path `a.b`."""
    if name in data:
        return data[name]
    value: Any = data
    for step in name.split("."):
        if not isinstance(value, dict) or step not in value:
            raise FatalFailure(
                f"spec.script.arguments: {argument!r} needs the field {name!r}, which the input does not have"
            )
        value = value[step]
    return value


def _text(value: Any, argument: str) -> str:
    if value is None:
        raise FatalFailure(f"spec.script.arguments: a field that {argument!r} needs is null")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
