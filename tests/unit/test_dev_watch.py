"""How `prokos dev` follows its manifests."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

from helpers import background, wait_until
from prokos.dev import system
from prokos.engine import RejectedError

if TYPE_CHECKING:
    import pytest


async def test_what_is_registered_is_compared_without_a_change_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed while another change was being registered shows only when that has ended."""
    monkeypatch.setattr(system, "LOOK", 0.01)
    looks = 0

    async def follow() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise RejectedError("the engine is not in the mood")

    kernel = SimpleNamespace(follow=follow, steps=SimpleNamespace(booted=asyncio.Event()))
    async with background(system._look_again(kernel)):  # type: ignore[arg-type]
        await asyncio.sleep(5 * system.LOOK)
        assert looks == 0, "the boot registers everything"
        kernel.steps.booted.set()
        await wait_until(lambda: looks >= 4)
