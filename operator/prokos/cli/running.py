"""Reaching a running system: its engine, its PDO, its kernel."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from prokos.cli.output import NOT_RUNNING, print_error
from prokos.dev.state import Runtime, StateDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from prokos.engine import Connection

STATUS_TIMEOUT = 15.0
"""Seconds to wait for a status API. The kernel's asks the PDO (2 s each time) and the engine (5 s) in its turn."""


def runtime_or_exit(state: Path | None) -> Runtime:
    """The running embedded system, or one line and exit code 3."""
    directory = StateDirectory.find(state)
    runtime = Runtime.read(directory)
    if runtime is None:
        print_error(f"nothing runs in {directory.root}; start it with: prokos dev")
        raise SystemExit(NOT_RUNNING)
    return runtime


def pdo_address(state: Path | None) -> str | None:
    """Where the PDO answers: in its own pod as `PROKOS_PDO_ADDRESS` says, else of the running embedded system."""
    if address := os.environ.get("PROKOS_PDO_ADDRESS"):
        # It is the address the PDO listens on, which is any of its pod's.
        return address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - nothing is bound here
    runtime = Runtime.read(StateDirectory.find(state))
    return runtime.pdo if runtime else None


def pdo_or_exit(state: Path | None) -> str:
    """Where the PDO answers, or one line and exit code 3."""
    return pdo_address(state) or runtime_or_exit(state).pdo


def connection_or_exit(state: Path | None) -> Connection:
    """The engine named by `PROKOS_ENGINE_ADDRESS`, else that of the running embedded system."""
    from prokos.engine.connection import from_environment

    connection = from_environment()
    if connection is None:
        connection = from_environment({**os.environ, **runtime_or_exit(state).engine})
    if connection is None:
        print_error("the running system did not say where its engine is")
        raise SystemExit(NOT_RUNNING)
    return connection


def get_json(address: str, path: str, timeout: float = STATUS_TIMEOUT) -> Any:
    """GET a document of a status API; None when it does not answer within so many seconds."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=timeout) as response:
            return json.loads(response.read())
    except (urllib.error.URLError, OSError, ValueError):
        return None


def get_or_exit(address: str, path: str, part: str) -> Any:
    """GET a document, or one line and exit code 3."""
    document = get_json(address, path)
    if document is None:
        print_error(f"the {part} at {address} does not answer; see: prokos status, prokos logs {part}")
        raise SystemExit(NOT_RUNNING)
    return document
