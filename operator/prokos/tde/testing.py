"""Trying an executor out without an engine: input and output are checked as a worker checks them."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from prokos.tde.contract import Context, Environment, Secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.tde.contract import Executor

IDEMPOTENCY_KEY = "2251799813685249"
"""Idempotency key of the task, unless a test says another."""


def execute_once(
    executor: type[Executor[Any, Any]],
    data: Mapping[str, Any],
    *,
    settings: Any = None,
    secrets: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    idempotency_key: str = IDEMPOTENCY_KEY,
    attempt: int = 0,
) -> dict[str, Any]:
    """Run one attempt of one task.

    Args:
        executor: The class.
        data: The task's input, as JSON has it.
        settings: What `spec.python.settings` would give.
        secrets: Values of the secrets it uses, by name.
        timeout: Seconds the attempt may take.
        idempotency_key: The same in all attempts of a task.
        attempt: 0 for the first.

    Returns:
        The variables that the task would complete with.

    Raises:
        BusinessError, RetryableFailure, FatalFailure: The executor ended so.
        pydantic.ValidationError: The input does not fit.
        TimeoutError: The time was over.
    """

    async def run(workdir: Path) -> dict[str, Any]:
        made = executor(settings or {}, Environment("test", workdir, 1, Secrets(secrets or {})))
        context = Context(idempotency_key, timedelta(seconds=timeout), structlog.get_logger("test"), None, attempt)
        await made.start()
        try:
            async with asyncio.timeout(timeout):
                output = await made.execute(executor.parse_input(data), context)
        finally:
            await made.close()
        return executor.dump_output(output)

    with tempfile.TemporaryDirectory(prefix="prokos-test-") as directory:
        return asyncio.run(run(Path(directory)))
