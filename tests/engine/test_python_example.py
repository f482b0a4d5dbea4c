"""The example `python`, run as its README says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prokos.dev.testing import embedded_system

EXAMPLE = Path(__file__).parents[2] / "examples" / "python"


def test_its_own_tests_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", EXAMPLE],
        env={**os.environ, "PYTHONPATH": str(EXAMPLE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_quotes() -> None:
    with embedded_system(EXAMPLE / "executors.yaml", EXAMPLE / "quote.bpmn") as system:
        made = system.run("quote", {"lines": [{"article": "pot", "pieces": 2}]})
        assert (made["total"], made["discount"]) == ("108.00", "12.00")
        assert system.run("quote", {"lines": [{"article": "cup", "pieces": 1}]})["unknown"] == ["cup"]
