"""How `prokos dev` follows its manifests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from helpers import background, wait_until
from prokos.dev import system

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_what_is_registered_is_compared_without_a_change_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changed while another change was being registered shows only when that has ended."""
    monkeypatch.setattr(system, "LOOK", 20)
    looks = {"reload": 0, "follow": 0}

    def reload() -> list[object]:
        looks["reload"] += 1
        return []

    async def follow() -> None:
        looks["follow"] += 1

    desired = SimpleNamespace(system=SimpleNamespace(engine="embedded"))
    home = SimpleNamespace(manifests=[tmp_path], desired=lambda: desired, reload=reload)
    kernel = SimpleNamespace(follow=follow)
    async with background(system._watch(kernel, home, print)):  # type: ignore[arg-type]
        await wait_until(lambda: looks["follow"] >= 3)
        assert looks["reload"] == 0
        (tmp_path / "new.yaml").touch()
        await wait_until(lambda: looks["reload"] == 1)
