"""The process of a worker, where it ends before it reaches an engine."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from unit.builders import executor

if TYPE_CHECKING:
    from pathlib import Path

PLANTED = 'correct-"horse"\\battery'
PIECES = ("horse", "battery")

MODULE = """
import logging
import structlog
from prokos.tde import Executor, FatalFailure

class Careless(Executor):
    async def start(self):
        planted = self.environment.secrets["planted"]
        structlog.get_logger("mine").info(f"I have {planted}", also=[planted])
        logging.getLogger("mine").warning("and %r", planted)
        try:
            int(planted)
        except ValueError:
            logging.getLogger("mine").exception("which is no number")
        logging.getLogger("mine").warning("%d", planted)
        raise {error}(f"{planted} is no good")

    async def execute(self, data, context):
        return {}
"""


def ended(directory: Path, **spec: Any) -> subprocess.CompletedProcess[str]:
    """A worker that has run until its end."""
    (directory / "executor.json").write_text(executor("careless", **spec).model_dump_json(by_alias=True))
    environment = {
        "PROKOS_EXECUTOR_FILE": str(directory / "executor.json"),
        "PROKOS_WORKDIR": str(directory),
        "PROKOS_ENGINE_ADDRESS": "127.0.0.1:1",
        "PLANTED": PLANTED,
    }
    worker = [sys.executable, "-m", "prokos.tde"]
    return subprocess.run(worker, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("error", "code"), [("FatalFailure", 78), ("RuntimeError", 1)])
def test_a_secret_is_in_nothing_that_a_worker_says(tmp_path: Path, error: str, code: int) -> None:
    (tmp_path / "careless.py").write_text(MODULE.replace("{error}", error))
    secrets, settings = [{"name": "planted", "env": "PLANTED"}], {"executor": "careless:Careless", "path": "."}
    worker = ended(tmp_path, type="python", python=settings, script=None, secrets=secrets)
    assert worker.returncode == code, worker.stderr
    assert worker.stdout == ""
    assert worker.stderr.count("<secret planted>") >= 5, worker.stderr
    assert not [piece for piece in PIECES if piece in worker.stderr]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"script": {"command": ["true"], "secretFiles": {"a": "unknown"}}}, "secret 'unknown' is not declared"),
        ({"secrets": [{"name": "lost", "env": "NOWHERE"}]}, "environment variable NOWHERE is not set"),
    ],
)
def test_a_secret_that_is_missing_stops_the_worker_before_any_task(tmp_path: Path, spec: Any, reason: str) -> None:
    worker = ended(tmp_path, **spec)
    assert worker.returncode == 78
    assert reason in worker.stderr
    assert "worker started" not in worker.stderr
