"""The steps of ProkOS's own processes: each is a job, worked by a plain function.

A step that fails for technical reasons is tried again and never uses up its attempts: the kernel's processes wait,
they do not become incidents.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from prokos.engine.errors import EngineError, NotFoundError, RejectedError
from prokos.engine.source import JobSource, Slots

if TYPE_CHECKING:
    from prokos.engine.client import EngineClient
    from prokos.engine.job import Job

Step = Callable[["Job"], Awaitable[Mapping[str, Any] | None]]
"""Works a job and returns the variables it completes with."""

RETRY_DELAY = 1.0
"""Seconds until a step that failed is tried again."""

log = structlog.get_logger(__name__)


class StepRefusedError(Exception):
    """A step's outcome that its process is modelled for: a BPMN error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StepRunner:
    """Works the jobs of several steps."""

    def __init__(
        self,
        client: EngineClient,
        steps: Mapping[str, Step],
        *,
        worker: str,
        lease: float = 30.0,
        poll_interval: float = 10.0,
        concurrency: int = 8,
    ) -> None:
        self.client = client
        self.steps = steps
        self.worker = worker
        self.lease = lease
        self.poll_interval = poll_interval
        self.concurrency = concurrency

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for job_type, step in self.steps.items():
                tasks.create_task(self._serve(job_type, step))

    async def _serve(self, job_type: str, step: Step) -> None:
        slots = Slots(self.concurrency)
        source = JobSource(
            self.client,
            job_type,
            worker=self.worker,
            lease=self.lease,
            slots=slots,
            poll_interval=self.poll_interval,
        )
        async with asyncio.TaskGroup() as running:

            async def start(job: Job) -> asyncio.Task[None]:
                attempt = running.create_task(self._work(job, step))
                attempt.add_done_callback(lambda _: slots.release())
                return attempt

            await source.run(start)

    async def _work(self, job: Job, step: Step) -> None:
        keeper = asyncio.create_task(self._keep(job))
        try:
            await self._attempt(job, step)
        except (NotFoundError, RejectedError) as error:
            log.warning("step ended elsewhere, or its outcome is refused", step=job.type, job=job.key, error=str(error))
        except EngineError as error:
            log.warning("step's outcome could not be reported", step=job.type, job=job.key, error=str(error))
        except Exception:
            # One outcome that cannot be sent must not end the runner with all its steps.
            log.exception("step broke off; its lease brings it back", step=job.type, job=job.key)
        finally:
            keeper.cancel()

    async def _attempt(self, job: Job, step: Step) -> None:
        try:
            variables = await step(job)
        except StepRefusedError as refused:
            await self.client.throw_error(job.key, refused.code, str(refused), {"refusal": str(refused)})
        except Exception as error:
            # What the engine says needs no traceback; anything else may be a mistake of ours.
            unexpected = not isinstance(error, EngineError)
            log.warning("step failed and is tried again", step=job.type, error=str(error), exc_info=unexpected)
            message = f"{type(error).__name__}: {error}"
            # Not as the engine's back-off: the second one of a job may never end.
            await asyncio.sleep(RETRY_DELAY)
            await self.client.fail_job(job.key, message, retries=job.retries)
        else:
            await self.client.complete_job(job.key, variables)

    async def _keep(self, job: Job) -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            with contextlib.suppress(EngineError):
                await self.client.extend_lease(job.key, self.lease)
