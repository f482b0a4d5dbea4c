"""Variables from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer


def read_variables(pairs: list[str], file: str | None) -> dict[str, Any]:
    """Variables from `--vars FILE` (JSON, `-` is standard input) and `--var NAME=VALUE`, which wins.

    A value that is JSON is taken as such (`42`, `true`, `{"a": 1}`), any other as text.

    Raises:
        typer.BadParameter: Something is not readable; the message says what.
    """
    variables: dict[str, Any] = {}
    if file is not None:
        variables = _read_file(file)
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"--var {pair!r}: write NAME=VALUE")
        try:
            variables[name] = json.loads(text)
        except ValueError:
            variables[name] = text
        except RecursionError:
            raise typer.BadParameter(f"--var {name}: nested too deeply") from None
    return variables


def read_json(option: str, text: str) -> Any:
    """A JSON value from the command line.

    Raises:
        typer.BadParameter: It is none; the message says where.
    """
    from prokos.tde.json_text import parse_json

    try:
        return parse_json(text.encode())
    except ValueError as error:
        raise typer.BadParameter(f"{option}: not JSON: {error}") from error


def _read_file(file: str) -> dict[str, Any]:
    try:
        text = typer.get_text_stream("stdin").read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise typer.BadParameter(f"--vars {file}: {error.strerror}") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--vars {file}: not JSON: {error}") from error
    except RecursionError:
        raise typer.BadParameter(f"--vars {file}: nested too deeply") from None
    if not isinstance(content, dict):
        raise typer.BadParameter(f"--vars {file}: a JSON object is needed, this is a {type(content).__name__}")
    return content
