"""Settings of executors of type `script`."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from prokos.resources.base import Model
from prokos.resources.secrets import SecretName


class ScriptSettings(Model):
    """A script or any command.

    Input arrives as JSON on standard input and in the file `$PROKOS_INPUT`; the result is JSON in the file
    `$PROKOS_OUTPUT`, a business error is `{"code", "message", "variables"}` in the file `$PROKOS_ERROR`.
    """

    language: Literal["python", "shell"] | None = Field(
        None, description="`python` calls the script's `main(input)`; `shell` is `/bin/sh -e`."
    )
    source: str | None = Field(None, description="The script's text, for `language`.")
    command: list[str] | None = Field(
        None,
        min_length=1,
        description="Program and arguments, instead of a script; runs in the executor's work directory.",
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables; the worker's own are not passed on."
    )
    secret_env: dict[str, SecretName] = Field(
        default_factory=dict, description="Environment variable to the name of one of the executor's secrets."
    )
    max_output_bytes: int = Field(1_000_000, ge=1, description="Longest result, and longest log that is kept.")

    @model_validator(mode="after")
    def _script_or_command(self) -> Self:
        for name in (*self.env, *self.secret_env):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("PROKOS_"):
                raise ValueError(f"{name!r} cannot be an environment variable here: letters, digits and _, no PROKOS_")
        if twice := self.env.keys() & self.secret_env.keys():
            raise ValueError(f"{min(twice)} is in env and in secretEnv")
        if (self.source is None) == (self.command is None):
            raise ValueError("give either source (with language) or command")
        if (self.source is None) != (self.language is None):
            raise ValueError("language goes with source: python or shell")
        return self
