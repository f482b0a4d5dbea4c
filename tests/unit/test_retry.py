from __future__ import annotations

import asyncio
import time

import pytest

from helpers import wait_until
from prokos.engine import BackpressureError, EngineError, EngineUnavailableError, RejectedError, RetryPolicy

QUICK = RetryPolicy(initial=0.0001, maximum=0.001)


class Command:
    """Fails as it is told to, then succeeds; counts its attempts."""

    def __init__(self, *failures: Exception, forever: Exception | None = None) -> None:
        self.failures = list(failures)
        self.forever = forever
        self.attempts = 0

    async def __call__(self) -> str:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        if self.forever:
            raise self.forever
        return "done"


async def test_repeats_a_command_the_engine_was_too_busy_for():
    command = Command(*[BackpressureError()] * 5)
    assert await QUICK.run(command, idempotent=False) == "done"
    assert command.attempts == 6


async def test_repeats_an_idempotent_command_whose_answer_was_lost():
    command = Command(EngineUnavailableError(), EngineUnavailableError())
    assert await QUICK.run(command, idempotent=True) == "done"


async def test_does_not_repeat_another_command_whose_answer_was_lost():
    command = Command(EngineUnavailableError())
    with pytest.raises(EngineUnavailableError):
        await QUICK.run(command, idempotent=False)
    assert command.attempts == 1


async def test_a_lost_answer_after_backpressure_still_ends_a_command_that_is_not_idempotent():
    command = Command(BackpressureError(), EngineUnavailableError())
    with pytest.raises(EngineUnavailableError):
        await QUICK.run(command, idempotent=False)
    assert command.attempts == 2


@pytest.mark.parametrize("error", [RejectedError("no"), EngineError("no"), ValueError("no")])
async def test_does_not_repeat_what_repeating_cannot_mend(error):
    command = Command(error)
    with pytest.raises(type(error)):
        await QUICK.run(command, idempotent=True)
    assert command.attempts == 1


async def test_without_patience_there_is_one_attempt():
    command = Command(forever=BackpressureError())
    with pytest.raises(BackpressureError):
        await RetryPolicy(patience=0).run(command, idempotent=True)
    assert command.attempts == 1


async def test_gives_up_with_the_last_error_when_patience_is_over():
    command = Command(BackpressureError("busy"), forever=EngineUnavailableError("away"))
    started = time.monotonic()
    with pytest.raises(EngineUnavailableError, match="away"):
        await RetryPolicy(initial=0.001, maximum=0.01, patience=1.0).run(command, idempotent=True)
    assert command.attempts > 2
    assert 1.0 <= time.monotonic() - started < 60


async def test_without_an_end_to_its_patience_only_cancellation_ends_it():
    command = Command(forever=EngineUnavailableError())
    asking = asyncio.create_task(QUICK.run(command, idempotent=True))
    await wait_until(lambda: command.attempts > 5)
    assert not asking.done()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
