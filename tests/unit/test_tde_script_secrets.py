"""Secrets of scripts: planted, and then looked for in everything that comes out."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import stat
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from prokos.resources.script_settings import ScriptSettings
from prokos.tde import BusinessError, FatalFailure, RetryableFailure, Secrets
from prokos.tde.script import workspace as script_workspace
from unit.script_bench import context, eventually, executing, marker, processes, scratch_root

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["marker", "scratch_root"]

PLANTED = {
    "password": "correct-horse-battery",
    "quoted": 'say "friend"\\and/enter\tit',
    "umlaut": "schlüßel-ünter-der-matte",
    "key": "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQC7\n-----END KEY-----",
    "part": "correct-horse",
}
SECRETS = Secrets(PLANTED)
ENV = {"PASSWORD": "password", "QUOTED": "quoted", "UMLAUT": "umlaut", "KEY": "key", "PART": "part"}
FILES = {"password": "password", "quoted": "quoted", "umlaut": "umlaut", "tls.key": "key", "part": "part"}
TELLTALES = ["horse", "friend", "matte", "MIIEv", "AASCB"]
"""A piece of each secret."""

READ = """
import json, os, sys, time
secrets = {**{name: os.environ[name] for name in ("PASSWORD", "QUOTED", "UMLAUT", "KEY", "PART")}}
for name in os.listdir(os.environ["PROKOS_SECRETS_DIR"]):
    secrets[name] = open(os.path.join(os.environ["PROKOS_SECRETS_DIR"], name)).read()
"""

LEAKS: dict[str, str] = {
    "plain": "for value in secrets.values(): print(value); print('x' + value + 'y', file=sys.stderr)",
    "json": "print(json.dumps(secrets)); print(json.dumps(secrets, ensure_ascii=False))",
    "representation": "print(secrets['PASSWORD'].split(), [secrets['KEY']])",
    "long lines": "sys.stdout.write(''.join(f'{n}{value}' for n in range(2000) for value in secrets.values()))",
    "cut lines": """
for before in range(8150, 8200):
    for value in (secrets["PASSWORD"], secrets["UMLAUT"]):
        sys.stdout.write("x" * before + value + "\\n")
        sys.stderr.write("z" * before + value)
        sys.stderr.flush()
""",
    "bit by bit": """
for letter in secrets["PASSWORD"] + "\\n":
    sys.stdout.write(letter)
    sys.stdout.flush()
    time.sleep(0.01)
""",
    "cut tail": "for n in range(300): sys.stderr.write(secrets['UMLAUT'] + 'x' * (n % 7))",
}
ENDINGS = {
    "result": "",
    "exit": "sys.exit(3)",
    "exception": "raise ValueError(json.dumps(secrets), secrets)",
    "message": "sys.exit(secrets['KEY'] + json.dumps(secrets))",
    "retryable": "raise RetryableFailure(json.dumps(secrets) + secrets['KEY'])",
    "fatal": "raise FatalFailure(str(secrets['PASSWORD']))",
    "error": "raise BusinessError('CODE', secrets['PASSWORD'] + secrets['KEY'])",
    "killed": "os.kill(os.getpid(), 9)",
}


async def outcome(source: str, logs: int = 10_000_000) -> Any:
    """What a script that has all secrets ends with, as text that holds everything of it."""
    settings = {"language": "python", "source": READ + source, "secretEnv": ENV, "secretFiles": FILES}
    async with executing({**settings, "maxOutputBytes": logs}, secrets=SECRETS) as executor:
        try:
            return repr(await executor.execute({}, context()))
        except (BusinessError, RetryableFailure, FatalFailure) as error:
            return repr((str(error), vars(error), error.args))


@pytest.mark.parametrize(
    ("leak", "ending"),
    [(leak, ending) for leak in LEAKS for ending in (ENDINGS if leak in ("plain", "cut tail") else ("result", "exit"))],
)
async def test_no_secret_comes_out(leak: str, ending: str) -> None:
    with capture_logs() as logs:
        said = await outcome(f"{LEAKS[leak]}\n{ENDINGS[ending]}")
    assert any(entry["event"] == "script output" for entry in logs)
    everything = said + json.dumps(logs, ensure_ascii=False, default=repr)
    assert [piece for piece in TELLTALES if piece in everything] == []
    assert "<secret " in everything


@pytest.mark.parametrize("limit", [9_000, 10_000, 10_240, 11_111])
async def test_no_secret_comes_out_where_the_log_is_cut(limit: int) -> None:
    with capture_logs() as logs:
        said = await outcome("for n in range(100): print('x' * n, *secrets.values())\nsys.exit(1)", logs=limit)
    everything = said + json.dumps(logs, ensure_ascii=False)
    assert "the output is cut here" in everything
    assert [piece for piece in TELLTALES if piece in everything] == []


@pytest.mark.parametrize(
    "source",
    [
        "output = secrets['PASSWORD']",
        "output = {'a': ['x' + secrets['QUOTED']]}",
        "output = {secrets['UMLAUT']: 1}",
        "output = secrets['KEY'].splitlines()",
        "raise BusinessError('CODE', 'message', {'seen': secrets['KEY']})",
        "raise BusinessError(secrets['PASSWORD'])",
    ],
)
async def test_no_secret_becomes_a_variable(source: str) -> None:
    said = await outcome(source)
    assert "which must not become a variable" in said
    assert [piece for piece in TELLTALES if piece in said] == []


async def test_a_short_secret_is_no_reason_to_refuse_a_result() -> None:
    settings = {"language": "python", "source": "output = 'a 1234 b'", "secretEnv": {"PIN": "pin"}}
    async with executing(settings, secrets=Secrets({"pin": "1234"})) as executor:
        assert await executor.execute({}, context()) == {"result": "a 1234 b"}


# Files


async def test_secret_files_are_for_the_script_alone() -> None:
    source = """
        import os, pathlib, stat
        directory = pathlib.Path(os.environ["PROKOS_SECRETS_DIR"])
        output = {
            "mode": oct(stat.S_IMODE(directory.stat().st_mode)),
            "files": {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in directory.iterdir()},
            "ends": [(directory / "password").read_text()[-4:], (directory / "tls.key").read_text()[-6:]],
        }
    """
    settings = {"language": "python", "source": source, "secretFiles": FILES}
    async with executing(settings, secrets=SECRETS) as executor:
        output = await executor.execute({}, context())
    assert output["mode"] == "0o700"
    assert output["files"] == dict.fromkeys(FILES, "0o600")
    assert output["ends"] == ["tery", "-----\n"]


async def test_secret_files_never_reach_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    shared_memory = Path("/dev/shm")
    if not os.access(shared_memory, os.W_OK):
        pytest.skip("there is no /dev/shm")
    monkeypatch.setattr(script_workspace, "MEMORY_FILES", shared_memory)
    source = 'df --output=fstype "$PROKOS_SECRETS_DIR" | tail -1; echo "$PROKOS_SECRETS_DIR" >&2; exit 1'
    settings = {"language": "shell", "source": source, "secretFiles": FILES}
    async with executing(settings, secrets=SECRETS) as executor:
        with capture_logs() as logs, pytest.raises(RetryableFailure):
            await executor.execute({}, context())
    lines = {entry["stream"]: entry["line"] for entry in logs}
    assert lines["stdout"] == "tmpfs"
    assert not Path(lines["stderr"]).exists()


async def test_without_secret_files_there_is_no_directory() -> None:
    async with executing({"language": "python", "source": "import os\noutput = dict(os.environ)"}) as executor:
        assert "PROKOS_SECRETS_DIR" not in await executor.execute({}, context())


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".hidden", "a b", "a\n"])
def test_refuses_names_of_files_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be a file of secretFiles"):
        ScriptSettings(command=["true"], secret_files={name: "token"})


# Processes


def found_in_proc(file: str, piece: str) -> set[int]:
    """The processes of this machine whose environment or command line holds a piece of a secret."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if piece.encode() in Path(f"/proc/{process.pid}/{file}").read_bytes():
                found.add(process.pid)
    return found


def sessions(marker: str) -> set[int]:
    """Of the processes: each script has one of its own."""
    found = set()
    for process in processes(marker):
        with contextlib.suppress(ProcessLookupError):
            found.add(os.getsid(process.pid))
    return found


@pytest.mark.parametrize("language", ["python", "shell"])
async def test_secrets_are_in_no_other_process(language: str, marker: str) -> None:
    wait = f"exec sh -c 'while :; do sleep 100; done' {marker}"
    source = wait if language == "shell" else f"import subprocess\nsubprocess.run({wait!r}, shell=True, env={{}})"
    settings = {"language": language, "source": source, "secretEnv": ENV, "secretFiles": FILES}
    # Other programs of the machine are looked at too, so the piece is one that none of them has by chance.
    piece = uuid.uuid4().hex
    secrets = Secrets({name: value + piece for name, value in PLANTED.items()})
    async with executing(settings, secrets=secrets) as executor:
        task = asyncio.create_task(executor.execute({}, context()))
        sibling = asyncio.create_task(executor.execute({}, context()))
        await eventually(lambda: len(sessions(marker)) == 2)
        with_environment, with_arguments = found_in_proc("environ", piece), found_in_proc("cmdline", piece)
        scripts = processes(marker) if language == "shell" else []
        own = {process.pid for script in scripts for process in (script, *script.children(recursive=True))}
        for one in (task, sibling):
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
    assert with_arguments == set()
    assert with_environment <= own
    assert language == "python" or with_environment, "the search finds what is there"


async def test_a_worker_with_secrets_and_its_server_hide_from_their_programs() -> None:
    get_dumpable = 3
    libc = ctypes.CDLL(None)
    async with executing({"command": ["true"], "secretEnv": {"A": "password"}}, secrets=SECRETS) as executor:
        assert libc.prctl(get_dumpable, 0, 0, 0, 0) == 0
        server = executor._sandbox.server._process
        assert server is not None
        # The kernel gives the files of such a process to root, whoever runs it.
        assert Path(f"/proc/{server.pid}/environ").stat().st_uid == 0
        if os.geteuid() != 0:
            with pytest.raises(PermissionError):
                Path(f"/proc/{server.pid}/environ").read_bytes()


WORKER = """
import asyncio, sys, tempfile
from datetime import timedelta
from pathlib import Path
import structlog
from prokos.resources.script_settings import ScriptSettings
from prokos.tde import Context, Environment, Secrets
from prokos.tde.script import workspace as script_workspace
from prokos.tde.script.executor import ScriptExecutor

async def main():
    tempfile.tempdir = sys.argv[1]
    script_workspace.MEMORY_FILES = Path(sys.argv[2])
    settings = ScriptSettings(language="shell", source=sys.argv[3], secret_files={"a": "password"})
    executor = ScriptExecutor(settings, Environment("x", Path(), 1, Secrets({"password": sys.stdin.read()})))
    await executor.start()
    await executor.execute({}, Context("1", timedelta(60), structlog.get_logger()))

asyncio.run(main())
"""


async def test_a_killed_worker_leaves_no_secret(marker: str, scratch_root: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    source = f"chmod 000 $PROKOS_SECRETS_DIR; exec sh -c 'while :; do sleep 1; done' {marker}-script"
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, str(scratch_root), str(memory), source), stdin=subprocess.PIPE
    )
    assert worker.stdin is not None
    worker.stdin.write(PLANTED["password"].encode())
    worker.stdin.close()
    await eventually(lambda: bool(processes(f"{marker}-script")) and any(memory.iterdir()))
    await eventually(lambda: stat.S_IMODE(next(memory.iterdir()).stat().st_mode) == 0)
    worker.kill()
    await worker.wait()
    gone: Callable[[], bool] = lambda: not any([*scratch_root.iterdir(), *memory.iterdir()])  # noqa: E731
    await eventually(gone)
    assert processes(marker) == []


async def test_nothing_of_a_secret_is_on_a_disk_but_in_its_file(scratch_root: Path, tmp_path: Path) -> None:
    ready, go = tmp_path / "ready", tmp_path / "go"
    source = f"touch {ready}; while [ ! -e {go} ]; do sleep 0.02; done"
    settings = {"language": "shell", "source": source, "secretEnv": ENV, "secretFiles": FILES}
    async with executing(settings, secrets=SECRETS) as executor:
        task = asyncio.create_task(executor.execute({"customer": 1}, context()))
        await eventually(ready.exists)
        files = [Path(parent, name) for parent, _, names in os.walk(tempfile.gettempdir()) for name in names]
        texts = {file.name: file.read_text() for file in files}
        go.touch()
        await task
    assert "input.json" in texts
    assert [name for name, text in texts.items() if any(piece in text for piece in TELLTALES)] == []
