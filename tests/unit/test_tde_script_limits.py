"""What a script may use: the limits of memory, processor, files and disk, each met by a real program.

Limits of processes are in `test_hostile_script`.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from prokos.tde import FatalFailure, RetryableFailure
from unit.script_bench import fails, marker, python, run, scratch_root, shell

__all__ = ["marker", "scratch_root"]


async def test_memory_beyond_the_limit_ends_a_script() -> None:
    source = "import time\nx = bytearray(b'x') * 150_000_000\ntime.sleep(100)"
    await fails(source, r"more memory than spec.script.limits.memory allows \(100Mi\)", limits={"memory": "100Mi"})


async def test_memory_far_beyond_the_limit_is_refused_at_once() -> None:
    with pytest.raises(RetryableFailure, match="MemoryError"):
        await python("x = bytearray(1_300_000_000)", limits={"memory": "100Mi"})


async def test_memory_of_several_processes_is_added_up() -> None:
    source = """
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                taken = bytearray(os.urandom(1024)) * 30_000
                time.sleep(100)
        time.sleep(100)
    """
    await fails(source, r"more memory than spec.script.limits.memory allows \(100Mi\)", limits={"memory": "100Mi"})


async def test_memory_that_processes_share_counts_once() -> None:
    source = """
        import os, time
        def main(input):
            taken = bytearray(os.urandom(1024)) * 30_000
            children = []
            for _ in range(8):
                child = os.fork()
                if child == 0:
                    time.sleep(1)
                    os._exit(0)
                children.append(child)
            return [os.waitpid(child, 0)[1] for child in children]
    """
    assert await python(source, limits={"memory": "100Mi"}) == {"result": [0] * 8}


async def test_processor_time_beyond_the_limit_ends_a_script() -> None:
    await fails("while True: pass", r"more processor time than .*limits.cpu allows \(1s\)", limits={"cpu": "1s"})


async def test_processor_time_of_several_processes_is_added_up() -> None:
    source = """
        import os, time
        for _ in range(4):
            if os.fork() == 0:
                while time.process_time() < 0.4:
                    pass
                os._exit(0)
        while True:
            time.sleep(1)
    """
    await fails(source, r"limits.cpu allows \(1s\)", limits={"cpu": "1s"})


async def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    command = ["dd", "if=/dev/zero", "of=large", "bs=1M", "count=3"]
    with pytest.raises(FatalFailure, match=r"more room in one file than spec.script.limits.fileSize allows \(1Mi\)"):
        await run(command=command, workdir=tmp_path, limits={"fileSize": "1Mi"})
    with pytest.raises(RetryableFailure, match="File too large"):
        await python("open('large', 'wb').write(bytes(3_000_000))", limits={"fileSize": "1Mi"})


async def test_an_output_file_beyond_the_limit_of_files_is_no_result() -> None:
    with pytest.raises((FatalFailure, RetryableFailure)):
        await shell("head -c 3000000 /dev/zero > $PROKOS_OUTPUT", limits={"fileSize": "1Mi"})


@pytest.mark.parametrize(
    "fill",
    [
        "open(f'{number}', 'wb').write(bytes(10_000))",
        "open(f'{number}', 'w').close()",
        "os.mkdir('d'); os.chdir('d')",
    ],
    ids=["content", "names", "depth"],
)
async def test_a_script_that_fills_its_directory_is_ended(fill: str) -> None:
    source = f"""
        import itertools, os, time
        for number in range(3000):
            {fill}
        time.sleep(100)
    """
    await fails(source, r"more room on the disk than spec.script.limits.disk allows \(8Mi\)", limits={"disk": "8Mi"})


async def test_descriptors_run_out_for_the_script_alone() -> None:
    source = "kept = []\nwhile True:\n    kept.append(open('/dev/null'))"
    with pytest.raises(RetryableFailure, match="Too many open files"):
        await python(source, limits={"openFiles": 64})


def test_signals_of_the_limits_are_distinct() -> None:
    from prokos.tde.script.limits import SIGNALS

    assert len(set(SIGNALS.values())) == len(SIGNALS)
    assert signal.SIGTERM not in SIGNALS.values()
