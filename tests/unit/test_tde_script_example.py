"""The example `script`: valid, and each of its scripts does what its README says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from prokos.processes import check_manifests
from prokos.resources import TaskExecutor
from prokos.tde import BusinessError, Secrets
from unit.script_bench import context, executing, marker, scratch_root

__all__ = ["marker", "scratch_root"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "script"


async def does(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """What an executor of the example makes of an input."""
    found = {one.metadata.name: one for one in check_manifests([EXAMPLE]).loaded.only(TaskExecutor)}
    settings = found[name].spec.script
    assert settings is not None
    async with executing(settings.model_dump(exclude_unset=True), secrets=Secrets({"seal-key": "a-key"})) as executor:
        return await executor.execute(data, context())


def test_the_example_has_no_errors_and_no_warnings() -> None:
    assert list(check_manifests([EXAMPLE]).problems) == []


async def test_a_letter_is_written_named_and_sealed() -> None:
    task = {"name": "Ada", "subject": "the Café"}
    letter = (await does("letter-writer", task))["letter"]
    assert letter == "Dear Ada,\n\nabout the Café: yes.\n"
    assert await does("file-namer", task) == {"file": "the-cafe.txt"}
    with capture_logs() as logs:
        sealed = await does("sealer", {"text": letter, "file": "the-cafe.txt"})
    assert sealed == await does("sealer", {"text": letter, "file": "another.txt"})
    assert len(sealed["seal"]) == 16
    assert [entry["line"] for entry in logs if "line" in entry] == ["sealing the-cafe.txt"]


async def test_a_letter_to_nobody_is_a_business_error() -> None:
    with pytest.raises(BusinessError, match="NO_NAME"):
        await does("letter-writer", {"name": "", "subject": "x"})
