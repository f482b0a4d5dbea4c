"""The tests that `prokos executor new` writes pass, the one with an engine included."""

from __future__ import annotations

import subprocess
import sys

from prokos.cli.scaffold import new_executor


def test_a_new_executor_passes_its_own_tests(tmp_path):
    new_executor("score", tmp_path / "score")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(argv, cwd=tmp_path / "score", capture_output=True, text=True, timeout=500, check=False)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
