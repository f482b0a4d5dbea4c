"""Scripts that mean harm: nothing of them survives as a hang, a leak or a crash of the worker.

Each test ends with the checks of `scratch_root`: no directory, process or descriptor is left. Programs that would take
the machine with them if a limit failed stop by themselves first.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import psutil
import pytest

from prokos.tde import FatalFailure, RetryableFailure, sandbox, sandbox_server
from unit.script_bench import (
    context,
    eventually,
    executing,
    fails,
    marker,
    processes,
    python,
    scratch_root,
    shell,
)

__all__ = ["marker", "scratch_root"]

SAFETY = 2000
"""Processes or threads after which a bomb stops by itself."""

BOMB = """
import os, sys, threading, time
made = os.open(sys.argv[1], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
def burst():
    while os.fstat(made).st_size < int(sys.argv[2]):
        os.write(made, b".")
        try:
            start()
        except (OSError, RuntimeError):
            pass
    time.sleep(100)
def fork():
    os.fork()
def fork_and_leave_the_session():
    if os.fork() == 0:
        os.setsid()
def fork_twice():
    if os.fork() == 0 and os.fork():
        os._exit(0)
def thread():
    threading.Thread(target=burst).start()
start = globals()[sys.argv[3]]
burst()
"""


# Processes


@pytest.mark.parametrize("style", ["fork", "fork_and_leave_the_session", "fork_twice", "thread"])
async def test_a_bomb_is_ended_at_the_limit(style: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    limit = {"processes": 64}
    await fails(BOMB, "limits.processes allows .64.", arguments=[str(made), str(SAFETY), style], limits=limit)
    assert made.stat().st_size < SAFETY


@pytest.fixture
def kernel_without_fork_notifications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in gVisor: the server's look at all processes is all there is."""
    files = tmp_path / "harness"
    files.mkdir()
    for file in sandbox_server.HARNESS.parent.glob("*.py"):
        shutil.copy(file, files)
    forks = files / "forks.py"
    forks.write_text(forks.read_text() + "\n\ndef supported() -> bool:\n    return False\n")
    monkeypatch.setattr(sandbox_server, "HARNESS", files / "harness.py")


@pytest.mark.usefixtures("kernel_without_fork_notifications")
@pytest.mark.parametrize("style", ["fork", "thread"])
async def test_a_bomb_is_ended_on_a_kernel_that_does_not_ask(style: str, tmp_path: Path) -> None:
    made = str(tmp_path / "made")
    await fails(BOMB, "limits.processes allows .64.", arguments=[made, "300", style], limits={"processes": 64})


async def test_as_many_processes_as_allowed_may_run() -> None:
    source = """
        import subprocess
        def main(input):
            for _ in range(40):  # one after the other: those that have ended do not count
                subprocess.run(["true"], check=True)
            children = [subprocess.Popen(["sleep", "100"]) for _ in range(15)]
            return len(children)
    """
    assert await python(source, limits={"processes": 16}) == {"result": 15}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a call that only this processor has")
async def test_the_32_bit_way_of_forking_is_limited_too(tmp_path: Path) -> None:
    made = str(tmp_path / "made")
    source = """
        import ctypes, mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, 2 (fork); int 0x80; ret
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        if call() == -38:  # ENOSYS: this kernel has no 32-bit calls
            raise FatalFailure("limits.processes allows (8), in vain")
    """
    burst = BOMB.replace("start = globals()[sys.argv[3]]", "start = call")
    await fails(
        "\n".join([*(line[8:] for line in source.splitlines()), burst]),
        r"limits.processes allows \(8\)",
        arguments=[made, str(SAFETY), "-"],
        limits={"processes": 8},
    )


async def test_zombies_and_daemons_are_gone_with_their_script(marker: str) -> None:
    source = f"""
        import os, subprocess, time
        def main(input):
            for _ in range(5):
                if os.fork() == 0:
                    os._exit(0)  # nobody waits for it
            for _ in range(3):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.chdir("/")
                        for descriptor in range(3):
                            os.close(descriptor)
                        os.execvp("sh", ["sh", "-c", "trap '' TERM HUP; while :; do sleep 1; done", "{marker}"])
                    os._exit(0)
            while len(list(filter(None, subprocess.getoutput("pgrep -f {marker}").splitlines()))) < 3:
                time.sleep(0.01)
            return "daemons run"
    """
    assert await python(source) == {"result": "daemons run"}
    assert processes(marker) == []


async def test_a_daemon_that_keeps_the_output_open_holds_up_nothing(marker: str) -> None:
    started = time.monotonic()
    await shell(f"setsid sh -c 'trap \"\" TERM; while :; do echo x; done' {marker} &")
    assert time.monotonic() - started < 60


async def test_a_script_that_stops_itself_is_ended_by_the_time_out(marker: str) -> None:
    source = f"exec sh -c 'kill -STOP $$' {marker}"
    async with executing({"language": "shell", "source": source}) as executor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await executor.execute({}, context())
        assert processes(marker) == []


async def test_a_script_that_stops_its_guardian_is_ended_by_the_time_out(
    marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "LAST_WORDS", 1.0)
    source = f"""
        setsid sh -c 'trap "" TERM; while :; do sleep 1; done' {marker} &
        kill -STOP $PPID
        exec sh -c 'trap "" TERM; while :; do sleep 1; done' {marker}
    """
    async with executing({"language": "shell", "source": source}) as executor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await executor.execute({}, context())
        await eventually(lambda: processes(marker) == [])


async def test_what_a_script_leaves_that_killed_its_guardian_is_ended(marker: str) -> None:
    source = f"""
        setsid sh -c 'trap "" TERM; while :; do sleep 1; done' {marker} &
        (setsid setsid sh -c 'while :; do sleep 1; done' {marker} &)
        kill -KILL $PPID
    """
    async with executing({"language": "shell", "source": source}) as executor:
        with pytest.raises(RetryableFailure, match="together with the process that watches it"):
            await executor.execute({}, context())
        await eventually(lambda: processes(marker) == [])


@pytest.mark.parametrize("name", ["STOP", "KILL"])
async def test_a_script_that_stops_or_kills_the_server_delays_the_next_task_only(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_server, "ANSWER", 1.0)
    source = f"""
        import os, signal
        def main(input):
            if input:
                guardian = open(f"/proc/{{os.getppid()}}/stat").read()
                os.kill(int(guardian.rpartition(")")[2].split()[1]), signal.SIG{name})
            return "ran"
    """
    async with executing({"language": "python", "source": source}) as executor:
        server = executor._sandbox.server._process
        assert server is not None
        assert await executor.execute({"attack": True}, context()) == {"result": "ran"}
        assert await executor.execute({}, context()) == {"result": "ran"}
        await eventually(lambda: not psutil.pid_exists(server.pid))


async def test_many_hostile_scripts_at_a_time_leave_nothing() -> None:
    source = """
        import os, signal, subprocess, sys
        def main(input):
            subprocess.Popen(["sleep", "100"], start_new_session=True)
            match input["n"] % 4:
                case 0: os.kill(os.getpid(), signal.SIGKILL)
                case 1: os.kill(os.getppid(), signal.SIGKILL)
                case 2: sys.exit(78)
                case 3: return "x"
    """
    async with executing({"language": "python", "source": source}) as executor:
        tasks = (executor.execute({"n": number}, context()) for number in range(40))
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one).__name__ for one in ended[:4]] == ["RetryableFailure"] * 2 + ["FatalFailure", "dict"]


@pytest.mark.parametrize("language", ["python", "shell"])
async def test_ten_thousand_rows_are_data_like_any_other(language: str) -> None:
    rows = [{"id": number, "text": "x" * 50} for number in range(10_000)]
    source = {
        "python": "def main(input):\n    return {'rows': input['rows']}",
        "shell": 'cat "$PROKOS_INPUT" > "$PROKOS_OUTPUT"',
    }[language]
    async with executing({"language": language, "source": source}) as executor:
        assert await executor.execute({"rows": rows}, context()) == {"rows": rows}
    async with executing({"language": language, "source": source, "maxOutputBytes": 100_000}) as executor:
        with pytest.raises(FatalFailure, match="maxOutputBytes"):
            await executor.execute({"rows": rows}, context())
