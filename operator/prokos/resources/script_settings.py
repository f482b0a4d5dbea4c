"""Settings of executors of type `script`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from prokos.resources.base import ITEMS_MAX, Duration, Model
from prokos.resources.cel import Rule, beyond_cel, cel, one_of
from prokos.resources.config_maps import ConfigMapRef
from prokos.resources.secrets import SecretName

if TYPE_CHECKING:
    from collections.abc import Iterator

Size = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,12}(Ki|Mi|Gi|k|M|G)?$")]
"""A number of bytes as Kubernetes writes it: `512Mi`, `100M`, `4096`."""

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
REFERENCE = re.compile(r"\$\$\(|\$\(([^()]*)\)")
"""`$(FIELD)` within an argument; `$$(` is the text `$(`. The notation of a Kubernetes container's arguments."""


def size_in_bytes(size: str) -> int:
    """How many bytes a `Size` is."""
    number = size.rstrip("KMGik")
    return int(number) * _UNITS[size.removeprefix(number)]


class ScriptLimits(Model):
    """What the program of one task may use. One that uses more is ended, and the task becomes an incident."""

    memory: Size = Field("512Mi", description="Memory, of each process and of all together.")
    cpu: Duration | None = Field(None, description="Processor time of all processes; default: `timeout` alone limits.")
    processes: int = Field(256, ge=1, description="Processes and threads that exist at a time.")
    open_files: int = Field(1024, ge=16, description="Open files of each process.")
    file_size: Size = Field("100Mi", description="Length of each file that is written.")
    disk: Size = Field("1Gi", description="All that lies in the task's directory.")
    log: Size | None = Field(None, description="Output that is logged, in bytes; default: `maxOutputBytes`.")


class ScriptSettings(Model):
    """A script or any command.

    Input arrives as JSON on standard input and in the file `$PROKOS_INPUT`; the result is JSON in the file
    `$PROKOS_OUTPUT`, a business error is `{"code", "message", "variables"}` in the file `$PROKOS_ERROR`.
    """

    language: Literal["python", "shell", "node"] | None = Field(
        None, description="`python` and `node` call the script's `main(input)`; `shell` is `/bin/sh -e`."
    )
    source: str | None = Field(None, description="The script's text, for `language`.")
    config_map_ref: ConfigMapRef | None = Field(None, description="Key of a ConfigMap that holds the script's text.")
    file: str | None = Field(None, description="Absolute path of a script that is there where the worker runs.")
    command: list[str] | None = Field(
        None,
        min_length=1,
        description="Program and arguments, instead of a script; runs in the executor's work directory.",
    )
    arguments: list[str] = Field(
        default_factory=list,
        max_length=ITEMS_MAX,
        description="Arguments of the script or further ones of the command; `$(a.b)` is a field of the input.",
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        max_length=ITEMS_MAX,
        description="Environment variables; the worker's own are not passed on.",
    )
    secret_env: dict[str, SecretName] = Field(
        default_factory=dict,
        max_length=ITEMS_MAX,
        description="Environment variable to the name of one of the executor's secrets.",
    )
    secret_files: dict[str, SecretName] = Field(
        default_factory=dict,
        max_length=ITEMS_MAX,
        description="File in `$PROKOS_SECRETS_DIR` to the name of one of the executor's secrets.",
    )
    preload: list[str] = Field(
        default_factory=list,
        max_length=ITEMS_MAX,
        description="Python modules that are imported once, before any task, for `python`.",
    )
    limits: ScriptLimits = Field(default_factory=ScriptLimits)
    max_output_bytes: int = Field(1_000_000, ge=1, description="Longest result, and longest log that is kept.")

    def secret_references(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Every mention of a secret, with its path below `script`."""
        for field, secrets in (("secretEnv", self.secret_env), ("secretFiles", self.secret_files)):
            yield from (((field, name), secret) for name, secret in secrets.items())

    @property
    def secret_names(self) -> set[str]:
        """The executor's secrets that the program gets."""
        return {*self.secret_env.values(), *self.secret_files.values()}

    @model_validator(mode="after")
    @cel(
        Rule(
            one_of("source", "configMapRef", "file", "command"),
            "give either a script (source, configMapRef or file, with language) or command",
        ),
        Rule(
            "has(self.command) != has(self.language)",
            "language goes with source, configMapRef and file: python, shell or node",
            ".language",
        ),
        Rule("!has(self.file) || self.file.startsWith('/')", "file must be an absolute path", ".file"),
    )
    def _one_program(self) -> Self:
        scripts = [self.source, self.config_map_ref, self.file]
        if sum(given is not None for given in (*scripts, self.command)) != 1:
            raise ValueError("give either a script (source, configMapRef or file, with language) or command")
        if (self.command is None) == (self.language is None):
            raise ValueError("language goes with source, configMapRef and file: python, shell or node")
        if self.file is not None and not self.file.startswith("/"):
            raise ValueError(f"file {self.file!r} must be an absolute path, such as /opt/scripts/{self.file}")
        return self

    @model_validator(mode="after")
    @cel(
        Rule(
            "!has(self.env) || self.env.all(name, !(name in self.?secretEnv.orValue({})))",
            "a name must not be in env and in secretEnv",
            ".env",
        ),
        *(
            Rule(
                f"!has(self.{field}) || self.{field}.all(name, !name.startsWith('PROKOS_'))",
                f"names in {field} must not start with PROKOS_",
                f".{field}",
            )
            for field in ("env", "secretEnv")
        ),
    )
    @beyond_cel(
        "names in `script.env` and `script.secretEnv` that environment variables cannot have, names in "
        "`script.secretFiles` that lead elsewhere"
    )
    def _valid_environment(self) -> Self:
        for name in (*self.env, *self.secret_env):
            if not _ENVIRONMENT_NAME.fullmatch(name) or name.startswith("PROKOS_"):
                raise ValueError(f"{name!r} cannot be an environment variable here: letters, digits and _, no PROKOS_")
        if twice := self.env.keys() & self.secret_env.keys():
            raise ValueError(f"{min(twice)} is in env and in secretEnv")
        for name in self.secret_files:
            if not _FILE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a file of secretFiles: letters, digits, _, - and ., no directory")
        return self

    @model_validator(mode="after")
    @beyond_cel("the character NUL in commands, arguments and variables of scripts, `$()` without a field")
    def _valid_arguments(self) -> Self:
        for text in (*self.arguments, *(self.command or ()), *self.env.values()):
            if "\0" in text:
                raise ValueError("a command, its arguments and environment variables cannot hold the character NUL")
        for argument in self.arguments:
            for reference in REFERENCE.finditer(argument):
                if reference.group(1) == "":
                    raise ValueError(f"argument {argument!r}: name a field of the input within $(), or write $$()")
        return self

    @model_validator(mode="after")
    @cel(
        Rule(
            "!has(self.preload) || self.preload.size() == 0 || self.?language.orValue('') == 'python'",
            "preload goes with language python",
            ".preload",
        )
    )
    @beyond_cel("names in `script.preload` that no module can have")
    def _preloads_python(self) -> Self:
        if self.preload and self.language != "python":
            raise ValueError("preload goes with language python: only its scripts share imported modules")
        for name in self.preload:
            if not _MODULE_NAME.fullmatch(name):
                raise ValueError(f"preload: {name!r} is no name of a module")
        return self
