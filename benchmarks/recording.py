"""The executor of the benchmarks: it notes that it was called, and returns. Imported by workers of type `python`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.records import RecordWriter
from prokos.tde import BusinessError, Executor, RetryableFailure

if TYPE_CHECKING:
    from prokos.tde import Context, Environment


class RecordingExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Notes the execution. It lasts as many seconds as the variable `lasts` says, and fails as `fail` says."""

    def __init__(self, settings: dict[str, Any], environment: Environment) -> None:
        super().__init__(settings, environment)
        self._records = RecordWriter(Path(settings["records"]))

    async def close(self) -> None:
        """Close the file."""
        self._records.close()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Do the work of one task."""
        element = context.task.element_id if context.task else "called"
        self._records.write(data["number"], element)
        if lasts := data.get("lasts"):
            await asyncio.sleep(lasts)
        if data.get("fail") == "once" and context.attempt == 0:
            raise RetryableFailure("the first attempt fails, as the benchmark wants it")
        if data.get("fail") == "error":
            raise BusinessError("REFUSED", "a business error, as the benchmark wants it")
        return {"done": data["number"]}
