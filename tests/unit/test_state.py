from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prokos.dev.state import Runtime, StateDirectory

RUNTIME = Runtime(
    pid=os.getpid(),
    engine={"PROKOS_ENGINE_ADDRESS": "127.0.0.1:26500"},
    pdo="127.0.0.1:1",
    kernel="127.0.0.1:2",
    manifests=["/manifests"],
)


@pytest.fixture
def state(tmp_path):
    made = StateDirectory(tmp_path / "state")
    made.create()
    return made


def test_the_state_is_where_it_is_told_to_be(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROKOS_STATE", raising=False)
    assert StateDirectory.find().root == tmp_path / ".prokos"
    monkeypatch.setenv("PROKOS_STATE", "elsewhere")
    assert StateDirectory.find().root == tmp_path / "elsewhere"
    assert StateDirectory.find(Path("chosen")).root == tmp_path / "chosen"


def test_the_state_is_for_its_owner_alone_and_not_for_git(state):
    assert state.root.stat().st_mode & 0o777 == 0o700
    assert (state.root / ".gitignore").read_text() == "*\n"


def test_making_the_state_again_changes_nothing(state):
    (state.root / ".gitignore").write_text("mine\n")
    state.create()
    assert (state.root / ".gitignore").read_text() == "mine\n"


def test_finds_a_system_that_runs(state):
    RUNTIME.write(state)
    assert Runtime.read(state) == RUNTIME
    assert state.runtime_file.stat().st_mode & 0o777 == 0o600


def test_a_system_whose_process_is_gone_does_not_run(state):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    Runtime(gone.pid, {}, "", "", []).write(state)
    assert Runtime.read(state) is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"pid": 1, "unknown": 2}'])
def test_a_file_that_says_nothing_of_use_is_no_system(state, content):
    if content is not None:
        state.runtime_file.write_text(content)
    assert Runtime.read(state) is None
