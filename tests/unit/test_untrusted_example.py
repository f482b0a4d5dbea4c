"""The example `untrusted`: valid, and its limits hold what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prokos.processes import check_manifests
from prokos.resources import TaskExecutor
from prokos.tde import FatalFailure
from unit.script_bench import context, executing, marker, scratch_root

__all__ = ["marker", "scratch_root"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "untrusted"


async def does(program: str, **data: Any) -> dict[str, Any]:
    """What the example makes of a program."""
    (one,) = check_manifests([EXAMPLE]).loaded.only(TaskExecutor)
    assert one.spec.script is not None
    async with executing(one.spec.script.model_dump(exclude_unset=True)) as executor:
        return await executor.execute({"program": program, **data}, context())


def test_the_example_has_no_errors_and_no_warnings() -> None:
    assert list(check_manifests([EXAMPLE]).problems) == []


async def test_a_program_computes_what_it_is_asked() -> None:
    text = (EXAMPLE / "README.md").read_text()
    program = text.partition("'program=")[2].partition("'\n```")[0]
    assert await does(program, number=12) == {"square": 144}


@pytest.mark.parametrize(
    ("program", "limit"),
    [
        ("import signal\nx = bytearray(200_000_000)\nsignal.pause()", "memory"),
        ("import os\nfor _ in range(100): os.fork()", "processes"),
        ("while True: pass", "cpu"),
    ],
)
async def test_a_program_that_takes_more_than_its_share_is_told_so(program: str, limit: str) -> None:
    with pytest.raises(FatalFailure, match=f"spec.script.limits.{limit}"):
        await does(program)
