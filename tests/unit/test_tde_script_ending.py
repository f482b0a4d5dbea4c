"""How scripts are ended, with all they started: by a time-out, a cancelled task, a killed worker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prokos.tde import RetryableFailure
from unit.script_bench import context, eventually, executing, marker, processes, python, scratch_root, shell

__all__ = ["marker", "scratch_root"]


async def cancelled(
    source: str, marker: str, count: int, *, language: str = "shell", running: Callable[[], bool] | None = None
) -> float:
    """Run a script until `count` of its processes run, cancel it, and return how long it took to end, in seconds.

    Where processes come and go too fast to be counted, `running` tells that they run.
    """
    async with executing({"language": language, "source": textwrap.dedent(source)}) as executor:
        task = asyncio.create_task(executor.execute({}, context()))
        await eventually(running or (lambda: len(processes(marker)) >= count))
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        took = time.monotonic() - started
        assert processes(marker) == []
    return took


async def test_cancelling_ends_a_script_that_never_ends(marker: str) -> None:
    await cancelled(f"exec sh -c 'while :; do sleep 1; done' {marker}", marker, 1)


async def test_cancelling_kills_children_that_ignore_sigterm(marker: str) -> None:
    source = f"""
        trap '' TERM
        for i in 1 2 3; do sh -c 'trap "" TERM; while :; do sleep 1; done' {marker} & done
        wait
    """
    await cancelled(source, marker, 3)


async def test_cancelling_kills_children_that_detached(marker: str) -> None:
    source = f"""
        setsid sh -c 'trap "" TERM; while :; do sleep 1; done' {marker} > /dev/null 2>&1 &
        (setsid nohup sh -c 'while :; do sleep 1; done' {marker} > /dev/null 2>&1 &)
        sleep 1000
    """
    await cancelled(source, marker, 2)


async def test_cancelling_catches_a_process_that_forks_and_ends_all_the_time(marker: str, tmp_path: Path) -> None:
    hops = tmp_path / "hops"
    hopping = f'import os\nos.mkdir("{hops}")\nwhile True:\n    if os.fork():\n        os._exit(0)'
    source = f"{sys.executable} -c '{hopping}' {marker} & wait; sleep 1000"
    await cancelled(source, marker, 1, running=hops.exists)


async def test_cancelling_lets_a_script_tidy_up(tmp_path: Path) -> None:
    ready, tidied = tmp_path / "ready", tmp_path / "tidied"
    source = f"trap 'echo done > {tidied}; exit 0' TERM\necho > {ready}\nwhile :; do sleep 0.05; done"
    async with executing({"language": "shell", "source": source}) as executor:
        executor._sandbox.grace = 20
        task = asyncio.create_task(executor.execute({}, context()))
        await eventually(ready.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert tidied.read_text() == "done\n"


async def test_a_second_cancellation_does_not_stop_the_tidying(marker: str, scratch_root: Path) -> None:
    source = f"trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 1; done' {marker}"
    async with executing({"language": "shell", "source": source}) as executor:
        task = asyncio.create_task(executor.execute({}, context()))
        await eventually(lambda: bool(processes(marker)))
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert processes(marker) == []
        assert not any(scratch_root.iterdir())


async def test_a_time_out_around_execute_still_counts_as_one(marker: str) -> None:
    async with executing({"language": "shell", "source": f"sh -c 'sleep 1000' {marker}; true"}) as executor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await executor.execute({}, context())


async def test_background_processes_end_with_their_script(marker: str) -> None:
    source = f"""
        setsid sh -c 'trap "" TERM; while :; do sleep 1; done' {marker} &
        echo '{{"a": 1}}' > $PROKOS_OUTPUT
    """
    assert await shell(source) == {"a": 1}
    assert processes(marker) == []


async def test_kill_0_in_a_script_reaches_only_itself() -> None:
    with pytest.raises(RetryableFailure, match="ended by SIGTERM"):
        await shell("sleep 100 & kill 0; wait")


async def test_a_script_that_kills_its_guardian_is_tried_again_and_gone(marker: str) -> None:
    with pytest.raises(RetryableFailure, match="together with the process that watches it"):
        await shell(f"kill -KILL $PPID; exec sh -c 'while :; do sleep 1; done' {marker}")


async def test_the_server_is_started_anew_when_it_dies() -> None:
    async with executing({"language": "shell", "source": "echo '{}' > $PROKOS_OUTPUT"}) as executor:
        assert await executor.execute({}, context()) == {}
        server = executor._sandbox.server._process
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        assert await executor.execute({}, context()) == {}


async def test_scripts_run_at_the_same_time() -> None:
    source = """
        import os, pathlib, time
        def main(input):
            here = pathlib.Path(input['meeting'])
            (here / str(os.getpid())).touch()
            while len(list(here.iterdir())) < 4:
                time.sleep(0.01)
    """
    with tempfile.TemporaryDirectory() as meeting:
        async with executing({"language": "python", "source": textwrap.dedent(source)}) as executor:
            runs = (executor.execute({"meeting": meeting}, context()) for _ in range(4))
            assert await asyncio.gather(*runs) == [{}] * 4


async def test_a_directory_the_script_locked_is_removed() -> None:
    await shell("mkdir -p a/b && touch a/b/c && chmod 000 a/b a")
    await python("import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')")


WORKER = """
import asyncio, sys, tempfile
from datetime import timedelta
from pathlib import Path
import structlog
from prokos.resources.script_settings import ScriptSettings
from prokos.tde import Context, Environment
from prokos.tde.script.executor import ScriptExecutor

async def main():
    tempfile.tempdir = sys.argv[1]
    executor = ScriptExecutor(ScriptSettings(language="shell", source=sys.argv[2]), Environment("x", Path(), 1))
    await executor.start()
    await executor.execute({}, Context("1", timedelta(60), structlog.get_logger()))

asyncio.run(main())
"""


async def test_a_killed_worker_leaves_no_script_and_no_directory(marker: str, scratch_root: Path) -> None:
    source = f"""
        setsid sh -c 'trap "" TERM; while :; do sleep 1; done' {marker}-detached &
        exec sh -c 'trap "" TERM; while :; do sleep 1; done' {marker}-script
    """
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, str(scratch_root), source)
    await eventually(lambda: len(processes(f"{marker}-")) == 3)  # the worker's own command line has the marker too
    worker.kill()
    await worker.wait()
    await eventually(lambda: not processes(marker))
    await eventually(lambda: not any(scratch_root.iterdir()))


async def test_the_input_is_not_in_the_command_line_or_environment() -> None:
    source = "import os\noutput = [open('/proc/self/cmdline').read(), json.dumps(dict(os.environ))]"
    output = await python("import json\n" + source, {"card": "4111-1111"})
    assert "4111" not in json.dumps(output)
