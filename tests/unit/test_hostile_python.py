"""Classes that mean harm, or break: whatever they do ends as an outcome of the task, and the worker goes on."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from helpers import wait_until
from prokos.resources.python_settings import PythonSettings
from prokos.tde import Environment, Secrets
from prokos.tde.python import PythonExecutor
from prokos.tde.worker import TdeWorker
from unit.builders import executor, task
from unit.fake_engine import FakeEngine
from unit.tde_bench import TDE, dispatched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = """
    import asyncio, sys
    from prokos.tde import BusinessError, Executor

    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("not even that")
        __repr__ = __str__

    def deep(levels):
        value = {}
        for _ in range(levels):
            value = {"in": value}
        return value

    def around():
        value = {}
        value["self"] = value
        return value

    def recurse():
        return recurse()

    class Hostile(Executor[dict, dict]):
        async def execute(self, data, context):
            way = data["way"]
            if way == "fine":
                return {"fine": data["text"]}
            if way == "rows":
                return {"rows": [{"id": number, "text": "x" * 50} for number in range(10_000)]}
            return eval(way)
"""

FATAL = {
    "{'a': {1, object()}}": "cannot be written as JSON",
    "deep(10_000)": "nested too deeply",
    "around()": "cannot be written as JSON",
    "{'a': b'\\xff\\xfe'}": "cannot be written as JSON",
    "{'a': object()}": "cannot be written as JSON",
    'exec(\'raise BusinessError("C", "m", {"a": object()})\')': "is not JSON serializable",
}
PASSING = {
    "exec('raise BusinessError(404)')": "must be texts, not 404",
    "exec('from prokos.tde import RetryableFailure; raise RetryableFailure(\"m\", 30)')": "must be a timedelta, not 30",
    "1 / 0": "ZeroDivisionError: division by zero",
    "recurse()": "RecursionError",
    "sys.exit(3)": "the executor tried to exit: 3",
    "exec('raise Unspeakable()')": "Unspeakable",
    "exec('raise KeyboardInterrupt()')": "KeyboardInterrupt",
    "exec('raise GeneratorExit()')": "GeneratorExit",
    "exec('raise asyncio.CancelledError()')": "CancelledError",
    "exec('raise BaseExceptionGroup(\"all\", [KeyboardInterrupt()])')": "all",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "hostile.py").write_text(textwrap.dedent(MODULE))
    yield tmp_path
    sys.modules.pop("hostile", None)


async def outcomes(project: Path, *ways: str, name: str = "Hostile", **spec: Any) -> list[tuple[Any, ...]]:
    """What a worker reports of tasks that it gets one after the other, the last of them a harmless one."""
    engine = FakeEngine()
    settings = PythonSettings(executor=f"hostile:{name}", path=".")
    written = PythonExecutor(settings, Environment("payer", project, 4, Secrets({})))
    resource = executor("payer", **{"backoff": {"jitter": 0}, "concurrency": 1, **spec})
    worker, stop = TdeWorker(engine, resource, written, worker="tde-test"), asyncio.Event()  # type: ignore[arg-type]
    running = asyncio.create_task(worker.run(stop, 5))
    try:
        for number, way in enumerate(ways, 1):
            given = dispatched({"way": way, "text": "${7*7} {{7*7}} \x00 =1+1"}, tagged=task(number))
            engine.offer(replace(given, key=TDE + number))
            done = partial(lambda key: running.done() or key in {one[1] for one in engine.reports}, TDE + number)
            await wait_until(done, describe=lambda: engine.commands)
            assert not running.done(), running
    finally:
        stop.set()
        await running
    return [one for one in engine.reports if one[1] < TDE]


@pytest.mark.parametrize(("way", "message"), FATAL.items())
async def test_what_is_no_result_is_an_incident(project: Path, way: str, message: str) -> None:
    (name, _, said, retries, _), fine = await outcomes(project, way, "fine")
    assert (name, retries) == ("fail", 0)
    assert message in said
    assert "when its cause is gone: prokos retry 1" in said
    assert fine == ("complete", 2, {"fine": "${7*7} {{7*7}} \x00 =1+1"})


@pytest.mark.parametrize(("way", "message"), PASSING.items())
async def test_whatever_is_raised_costs_an_attempt_and_no_worker(project: Path, way: str, message: str) -> None:
    (name, _, said, retries, _), fine = await outcomes(project, way, "fine")
    assert (name, retries) == ("fail", 2)
    assert message in said
    assert fine[0] == "complete"


async def test_ten_thousand_rows_are_data_like_any_other(project: Path) -> None:
    ((name, _, result),) = await outcomes(project, "rows")
    assert name == "complete"
    assert len(result["rows"]) == 10_000
