"""How a kernel that runs follows what is wanted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from prokos.kernel import Desired, Kernel, kernel
from prokos.registry import FileRegistry
from unit.builders import executor
from unit.fake_engine import FakeEngine

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_registration_is_asked_for_again_when_the_resource_changes_or_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(kernel, "time", SimpleNamespace(monotonic=lambda: now))
    wanted = {"payer": executor("payer")}
    engine = FakeEngine()
    home = SimpleNamespace(desired=lambda: Desired(executors=wanted))
    one = Kernel(engine, home, FileRegistry(tmp_path))  # type: ignore[arg-type]
    asked = []

    async def looks() -> int:
        await one.follow()
        asked.append(len(engine.named("publish")))
        return asked[-1]

    assert [await looks(), await looks()] == [1, 1]
    first, wanted["payer"] = wanted["payer"], executor("payer", timeout="5s")
    assert [await looks(), await looks()] == [2, 2]
    wanted["payer"] = first
    assert [await looks(), await looks()] == [3, 3], "what is wanted again may be registered otherwise by now"
    one.steps.refusals["TaskExecutor", "payer"] = "the engine refuses it"
    assert [await looks(), await looks()] == [3, 3]
    now += kernel.ASK_AGAIN
    assert [await looks(), await looks()] == [4, 4]
