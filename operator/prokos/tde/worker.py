"""The worker of one executor: takes the jobs of its TDEs, runs Input -> Execute -> Output, reports."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pydantic
import structlog

from prokos.engine import EngineError, JobSource, NotFoundError, RejectedError, Slots, WrongStateError
from prokos.resources.names import TDE_ATTEMPTS, TDE_RESULT_ELEMENT, tde_job_type
from prokos.tde.callback import await_callback, brought
from prokos.tde.contract import AwaitCallback, Context, FatalFailure, TaggedTask
from prokos.tde.lease import TDE_LEASE, LeaseLostError, TaskGoneError, keep, must_verify
from prokos.tde.mappings import Mapper, UnmappedError
from prokos.tde.metrics import WorkerMetrics
from prokos.tde.next_attempt import Waits, split_wait
from prokos.tde.outcome import Awaiting, Completed, Errored, Failed, attempt_number, from_exception, retries_left
from prokos.tde.pace import PacedSlots
from prokos.tde.redaction import Redactor
from prokos.tde.report import (
    ASK_AGAIN,
    ASKS,
    INPUT_VARIABLE,
    TASK_VARIABLE,
    Parent,
    end_tde,
    renew_parent,
    report,
    report_to_parent,
)
from prokos.tde.schema import compile_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from prokos.engine import EngineClient, Job
    from prokos.resources import TaskExecutor
    from prokos.tde.contract import Executor
    from prokos.tde.hints import HintSender
    from prokos.tde.outcome import Outcome

POLL_INTERVAL = 5.0
"""Seconds between polls beside the stream."""


class TdeWorker:
    """Runs the TDEs of one executor, `concurrency` at a time; with `single_use` one task, and then it ends."""

    def __init__(
        self,
        client: EngineClient,
        resource: TaskExecutor,
        executor: Executor[Any, Any],
        *,
        worker: str,
        hints: HintSender | None = None,
        metrics: WorkerMetrics | None = None,
        lease: float = TDE_LEASE,
        single_use: bool = False,
    ) -> None:
        self.client = client
        self.name = resource.metadata.name
        self.spec = resource.spec
        self.executor = executor
        self.worker = worker
        self.hints = hints
        self.metrics = metrics or WorkerMetrics(self.name)
        self.lease = lease
        self.single_use = single_use
        self.log = structlog.get_logger("prokos.tde").bind(executor=self.name)
        self._check_input = compile_schema(self.spec.input_schema, "inputSchema")
        self._check_output = compile_schema(self.spec.output_schema, "outputSchema")
        self._inputs = Mapper(self.name, "inputs", self.spec.inputs)
        self._outputs = Mapper(self.name, "outputs", self.spec.outputs)
        secrets = executor.environment.secrets
        self._redactor = Redactor(secrets, secrets.names)
        self._attempts: set[asyncio.Task[None]] = set()
        self._working: set[tuple[int, int]] = set()
        """Keys of the jobs that are worked on, each with the attempts it had left."""
        self._waits = Waits(client, lease)
        self._used = asyncio.Event()
        """The one task of a worker that is used once has ended."""

    async def run(self, stop: asyncio.Event, grace: float, ready: Callable[[], None] = lambda: None) -> None:
        """Work until `stop` is set or a single use is over, then let running attempts end.

        Args:
            stop: Set to end the work.
            grace: Seconds running attempts have to end; then they are stopped and their jobs go to other workers.
            ready: Called when the executor has started.
        """
        await self.executor.start()
        ready()
        try:
            rate = self.spec.rate_limit
            slots = PacedSlots(self.spec.concurrency, rate) if rate else Slots(self.spec.concurrency)
            source = asyncio.create_task(self._serve(slots))
            ends = [asyncio.create_task(end.wait()) for end in (stop, self._used)]
            await asyncio.wait([source, *ends], return_when=asyncio.FIRST_COMPLETED)
            for one in (source, *ends):
                one.cancel()
            ended = await asyncio.gather(source, *ends, return_exceptions=True)
            if self._attempts:
                self.log.info("waiting for running tasks", running=len(self._attempts), grace=grace)
                await asyncio.wait(self._attempts, timeout=grace)
            for attempt in self._attempts:
                attempt.cancel()
            await asyncio.gather(*self._attempts, self._waits.hand_back(), return_exceptions=True)
            for result in ended:
                if isinstance(result, Exception):
                    raise result
        finally:
            await self.executor.close()

    async def _serve(self, slots: Slots) -> None:
        source = JobSource(
            self.client,
            tde_job_type(self.name),
            worker=self.worker,
            lease=self.lease,
            slots=slots,
            poll_interval=POLL_INTERVAL,
            # What a stream brings beyond the one task would wait here for nothing.
            stream=not self.single_use,
        )

        async def start(job: Job) -> asyncio.Task[None] | None:
            # The next attempt may be here before the engine's answer to the report of the one before.
            attempted = job.key, job.retries
            if attempted in self._working:
                # Offered again while we were held up, or by an engine that died and forgot that it had been.
                self.log.info("a job that is worked on already came again", tde_job=job.key)
                slots.release()
                return None
            self._working.add(attempted)
            attempt = asyncio.create_task(self._execute_job(job))
            self._attempts.add(attempt)

            def ended(done: asyncio.Task[None]) -> None:
                self._attempts.discard(done)
                self._working.discard(attempted)
                if not self._used.is_set():
                    slots.release()
                if not done.cancelled() and (error := done.exception()):
                    self.log.error("attempt broke off; its lease brings it back", tde_job=job.key, exc_info=error)

            attempt.add_done_callback(ended)
            return attempt

        await source.run(start)

    async def _execute_job(self, job: Job) -> None:
        job, wait = split_wait(job)
        if not self._waits.is_due(job, wait):
            self._waits.keep(job, wait, "the wait before the next attempt is over")
            return
        variables = job.variables
        task = _tagged(variables)
        log = self.log.bind(**_tags(task, job))
        resumes = job.element_id == TDE_RESULT_ELEMENT
        if task and (resumes or must_verify(task, job, self.lease)):
            parent = await renew_parent(self.client, task)
            if parent is Parent.UNLEASED and not resumes and not self._waits.is_due(job, ASK_AGAIN, ASKS):
                self._waits.keep(job, ASK_AGAIN, "the task's lease was over; it is asked for again")
                return
            # A result that has come is reported, whatever PDO has the task just now.
            if parent is Parent.GONE or (parent is Parent.UNLEASED and not resumes):
                await self._give_up(job, task, log, f"the task does not wait for this TDE: it is {parent.value}")
                return
            if time.monotonic() >= job.leased_at + self.lease:
                log.warning("attempt not begun", reason="the engine was silent for longer than the TDE's lease")
                return
        started = time.monotonic()
        ending = "stopped"
        self.metrics.started()
        try:
            ending = await self._work(job, variables, task, log)
        finally:
            self.metrics.ended(ending, time.monotonic() - started)
            if self.single_use:  # also by an attempt that broke off: the next task must not meet what it left
                self._used.set()

    async def _work(
        self, job: Job, variables: dict[str, Any], task: TaggedTask | None, log: FilteringBoundLogger
    ) -> str:
        """Execute, report, and say in a word how it ended."""
        started = time.monotonic()
        try:
            outcome = await self._attempt(job, task, variables)
        except TaskGoneError as gone:
            await self._give_up(job, task, log, str(gone))
            return "gone"
        except LeaseLostError as lost:
            log.warning("attempt stopped", reason=str(lost))
            return "stopped"
        except asyncio.CancelledError:
            if self.client.losses.doubts(job):
                log.warning("attempt stopped", reason="the connection was lost; the engine may not know this TDE")
            else:
                await self._hand_back(job, log)
            raise
        reported = await self._report(job, task, outcome)
        return self._ended(job, task, reported, time.monotonic() - started, log)

    def _ended(
        self,
        job: Job,
        task: TaggedTask | None,
        reported: Outcome | None,
        seconds: float,
        log: FilteringBoundLogger,
    ) -> str:
        """Tell the log and the PDO how a task ended, and say it in a word."""
        if reported is None:
            reason = "nobody waits for its outcome any more"
            log.info("attempt stopped", reason=reason)
            self._hint(task, "gone", reason, 0)
            return "gone"
        retries = task.retries if task else job.retries
        exhausted = isinstance(reported, Failed) and retries_left(retries, reported) == 0
        ending = "incident" if exhausted else reported.kind
        level = log.info if isinstance(reported, Completed | Awaiting) else log.warning
        level("task ended", outcome=ending, message=reported.message or None, seconds=round(seconds, 4))
        self._hint(task, ending, reported.message, seconds)
        return ending

    async def _attempt(self, job: Job, task: TaggedTask | None, variables: dict[str, Any]) -> Outcome:
        """Execute under the time-out while the leases are kept; ends at once when the task is gone."""
        execution = asyncio.create_task(self._execute(job, task, variables))
        keeper = asyncio.create_task(keep(self.client, job, task, self.lease, self._hint_executing))
        try:
            await asyncio.wait([execution, keeper], return_when=asyncio.FIRST_COMPLETED)
            if not execution.done():
                keeper.result()
            return await execution
        finally:
            for side in (keeper, execution):
                side.cancel()
            await asyncio.gather(keeper, execution, return_exceptions=True)

    async def _execute(self, job: Job, task: TaggedTask | None, variables: dict[str, Any]) -> Outcome:
        context = Context(
            idempotency_key=str(task.job_key if task else job.key),
            attempt=_attempt_number(job, task),
            timeout=self.spec.timeout,
            log=self.log.bind(**_tags(task, job)),
            task=task,
        )
        timeout = asyncio.timeout(self.spec.timeout.total_seconds())
        given = _given(variables, task)
        try:
            if job.element_id == TDE_RESULT_ELEMENT:
                work = self.executor.resume(brought(variables), context)
            else:
                data = await self._inputs.values(self.client, given) if self._inputs else given
                self._check_input(data)
                work = self.executor.execute(self._parse(data), context)
            async with timeout:
                output = await work
            result = self.executor.dump_output(output)
            self._check_output(result)
            self._redactor.refuse(result, "the result")
            if self._outputs:
                result = await self._outputs.values(self.client, {**given, INPUT_VARIABLE: given, **result})
        except AwaitCallback as awaited:
            return Awaiting(awaited.token, awaited.timeout.total_seconds())
        except UnmappedError:
            # The attempt breaks off, as where its report is lost.
            raise
        except TimeoutError as error:
            if timeout.expired():
                seconds = self.spec.timeout.total_seconds()
                return Failed(f"the executor did not end within {seconds:g} s (spec.timeout)", retryable=True)
            return self._ended_by(error)
        except SystemExit as error:
            # A task must not end the worker, and with it the tasks beside it.
            return Failed(self._redactor.text(f"the executor tried to exit: {error.code}"), retryable=True)
        except BaseException as error:
            # Whatever an executor raises is an outcome of its task, but for the end that we ask of it.
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            return self._ended_by(error)
        return Completed(result)

    def _ended_by(self, error: BaseException) -> Errored | Failed:
        """The outcome of what an executor raised, cleared of secrets."""
        outcome = from_exception(error, self.executor.environment.secrets)
        if isinstance(outcome, Errored):
            try:
                self._redactor.refuse([outcome.code, outcome.variables], "the business error")
            except FatalFailure as refused:
                return Failed(str(refused), retryable=False)
        return replace(outcome, message=self._redactor.text(outcome.message))

    def _parse(self, data: Any) -> Any:
        try:
            return self.executor.parse_input(data)
        except pydantic.ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'input'}: {problem['msg']}" for problem in error.errors()[:5]
            )
            raise FatalFailure(f"the input does not fit the executor: {problems}") from error

    async def _report(self, job: Job, task: TaggedTask | None, outcome: Outcome) -> Outcome | None:
        """Report an outcome; None when nobody waits for it any more."""
        if task is None:
            return await self._report_to_caller(job, outcome)
        if isinstance(outcome, Awaiting):
            if await await_callback(self.client, job, task, outcome):
                return outcome
            outcome = Failed("the task ended before its callback was awaited", retryable=False)
        if isinstance(outcome, Failed):
            # The next attempt may start as soon as this one is reported, and a TDE that has not ended would block it.
            await end_tde(self.client, job, outcome)
            return await report_to_parent(self.client, task, outcome, self.spec.backoff)
        reported = await report_to_parent(self.client, task, outcome, self.spec.backoff)
        await end_tde(self.client, job, reported or outcome)
        return reported

    async def _report_to_caller(self, job: Job, outcome: Outcome) -> Outcome | None:
        """Give the outcome to the TDE's own job: a process called it directly."""
        with contextlib.suppress(NotFoundError, WrongStateError):
            attempt = _attempt_number(job, None)
            return await report(self.client, job.key, job.retries, attempt, outcome, self.spec.backoff)
        return None

    async def _give_up(self, job: Job, task: TaggedTask | None, log: Any, reason: str) -> None:
        log.info("attempt stopped", reason=reason)
        with contextlib.suppress(NotFoundError, RejectedError):
            await self.client.cancel_instance(job.process_instance_key)
        self._hint(task, "gone", reason, 0)

    async def _hand_back(self, job: Job, log: Any) -> None:
        """A worker that must stop gives its job to the next one, without using up an attempt."""
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(2):
                await self.client.fail_job(job.key, "the worker was stopped", retries=job.retries)
            log.info("task handed back")

    def _hint_executing(self, task: TaggedTask) -> None:
        if self.hints:
            whose = {"job": task.job_key, "retries": task.retries, "process": task.process_id}
            self.hints.send({**whose, "executor": self.name, "executing": self.lease})

    def _hint(self, task: TaggedTask | None, kind: str, message: str, seconds: float) -> None:
        if self.hints and task:
            attempt = {"job": task.job_key, "retries": task.retries}
            self.hints.send({**attempt, "outcome": kind, "message": message[:500], "seconds": round(seconds, 4)})


def _given(variables: dict[str, Any], task: TaggedTask | None) -> Any:
    """The task's variables: what the dispatcher packed, or the caller's."""
    if task:
        return variables[TASK_VARIABLE].get(INPUT_VARIABLE, {})
    return {name: value for name, value in variables.items() if name != TASK_VARIABLE}


def _tagged(variables: dict[str, Any]) -> TaggedTask | None:
    value = variables.get(TASK_VARIABLE)
    return TaggedTask.from_variable(value) if value else None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _attempt_number(job: Job, task: TaggedTask | None) -> int:
    """0 for the first attempt; of a TDE that a process called itself, by the attempts of its own job."""
    return attempt_number(task) if task else max(TDE_ATTEMPTS - job.retries, 0)


def _tags(task: TaggedTask | None, job: Job) -> dict[str, Any]:
    """Where a task belongs; one that a process called is known as the step of the TDE that it is."""
    whose = task or job
    return {
        "process": whose.process_id,
        "instance": whose.process_instance_key,
        "element": whose.element_id,
        "job": task.job_key if task else job.key,
        "tde": job.process_instance_key,
    }
