"""`prokos executor new`, and the executor it writes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prokos.processes import check_manifests


def prokos(*arguments, cwd):
    argv = [sys.executable, "-m", "prokos", *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["score", "score-card", "3d-print", "true", "json"])
def test_what_is_written_is_valid_and_passes_its_tests(tmp_path, name):
    assert prokos("executor", "new", name, cwd=tmp_path).returncode == 0
    checked = check_manifests([tmp_path / name])
    assert [str(problem) for problem in checked.errors] == []
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not worker", "."]
    done = subprocess.run(argv, cwd=tmp_path / name, capture_output=True, text=True, timeout=60, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "score").mkdir()
    (tmp_path / "score" / "README.md").write_text("mine")
    done = prokos("executor", "new", "score", cwd=tmp_path)
    assert done.returncode == 1
    assert "README.md is there already" in done.stderr
    assert [path.name for path in (tmp_path / "score").iterdir()] == ["README.md"]


@pytest.mark.parametrize("name", ["Score", "-x", "a_b", "x" * 48, "pdo"])
def test_a_name_that_cannot_be_is_refused(tmp_path, name):
    done = prokos("executor", "new", "--", name, cwd=tmp_path)
    assert done.returncode == 2
    assert name in done.stderr
    assert list(tmp_path.iterdir()) == []
