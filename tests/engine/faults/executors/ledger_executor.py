"""An executor that writes down each of its executions, for tests that check what was executed from outside ProkOS."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import time
from typing import TYPE_CHECKING, Any

from prokos.tde import Executor

if TYPE_CHECKING:
    from prokos.tde import Context, TaggedTask


class LedgerExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Works for a random time; its result adds the execution's token to the list `tokens` of the instance.

    Settings: `ledger` (file that lines are appended to), `shortest` and `longest` (seconds of work), `seed`. An
    instance with the variable `work` works that many seconds at each task instead, or at the tasks that it names.
    """

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        task = context.task
        assert task is not None, "the ledger is about dispatched tasks"
        token = secrets.token_hex(6)
        tokens = list(data.get("tokens", []))
        written = {
            "execution": token,
            "job": task.job_key,
            "retries": task.retries,
            "process": task.process_id,
            "element": task.element_id,
            "instance": task.process_instance_key,
            "run": data.get("run", ""),
            "pid": os.getpid(),
        }
        self._write("start", {**written, "tokens": tokens})
        try:
            await asyncio.sleep(self._duration(task, data))
        except asyncio.CancelledError:
            self._write("stopped", written)
            raise
        self._write("end", written)
        return {"tokens": [*tokens, token]}

    def _duration(self, task: TaggedTask, data: dict[str, Any]) -> float:
        work = data.get("work", {})
        seconds = work.get(task.element_id) if isinstance(work, dict) else work
        if seconds is not None:
            return float(seconds)
        chosen = random.Random(f"{self.settings['seed']}-{task.job_key}")
        return chosen.uniform(self.settings["shortest"], self.settings["longest"])

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        # The monotonic clock is one for all processes of a machine; a short line that is appended is written whole.
        line = json.dumps({"event": event, "monotonic": time.monotonic(), "time": time.time(), **fields}) + "\n"
        descriptor = os.open(self.settings["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
