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
from prokos.engine.feel_numbers import BEYOND_FEEL, changed_number_of
from prokos.resources.names import TDE_ATTEMPTS, TDE_RESULT_ELEMENT, tde_job_type, tde_output_job_type
from prokos.tde.callback import await_callback, brought
from prokos.tde.contract import AwaitCallback, Context, FatalFailure, TaggedTask
from prokos.tde.lease import TDE_LEASE, LeaseLostError, TaskGoneError, keep, must_verify
from prokos.tde.metrics import WorkerMetrics
from prokos.tde.next_attempt import Waits, split_wait
from prokos.tde.outcome import Awaiting, Completed, Errored, Failed, attempt_number, from_exception, retries_left
from prokos.tde.pace import PacedSlots
from prokos.tde.redaction import Redactor
from prokos.tde.report import (
    ASK_AGAIN,
    ASKS,
    INPUT_VARIABLE,
    OUTCOME_VARIABLE,
    OUTPUT_VARIABLE,
    TASK_VARIABLE,
    Parent,
    Unreported,
    end_tde,
    not_accepted,
    renew_parent,
    report,
    report_to_parent,
)
from prokos.tde.schema import compile_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from structlog.typing import FilteringBoundLogger

    from prokos.engine import EngineClient, Job
    from prokos.resources import TaskExecutor
    from prokos.tde.contract import Executor
    from prokos.tde.hints import HintSender
    from prokos.tde.outcome import Outcome

RESERVED = frozenset({TASK_VARIABLE, OUTCOME_VARIABLE})

POLL_INTERVAL = 5.0
"""Seconds between polls beside the stream."""

LINGER = 10.0
"""Seconds a worker that is used once waits for an Output job, its task's or that of another such worker."""


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
        secrets = executor.environment.secrets
        self._redactor = Redactor(secrets, secrets.names)
        self._attempts: set[asyncio.Task[None]] = set()
        self._working: set[int] = set()
        """Keys of the jobs that are worked on."""
        self._waits = Waits(client, lease)
        self._used = asyncio.Event()
        """The one task of a worker that is used once has ended."""
        self._mapping = asyncio.Event()
        """The engine maps the output of that task."""

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
            sources = [asyncio.create_task(self._serve(tde_job_type(self.name), self._execute_job, slots))]
            if self.spec.outputs:
                sources.append(asyncio.create_task(self._serve_outputs()))
            ends = [asyncio.create_task(end.wait()) for end in (stop, self._used)]
            await asyncio.wait([*sources, *ends], return_when=asyncio.FIRST_COMPLETED)
            for source in (*sources, *ends):
                source.cancel()
            ended = await asyncio.gather(*sources, *ends, return_exceptions=True)
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

    async def _serve_outputs(self) -> None:
        if self.single_use:
            # Each takes one Output job after it has made one, so that none is left when the last of them ends.
            await self._mapping.wait()
        await self._serve(tde_output_job_type(self.name), self._output_job, Slots(self.spec.concurrency))

    async def _serve(self, job_type: str, work: Callable[[Job], Coroutine[Any, Any, None]], slots: Slots) -> None:
        source = JobSource(
            self.client,
            job_type,
            worker=self.worker,
            lease=self.lease,
            slots=slots,
            poll_interval=POLL_INTERVAL,
            # What a stream brings beyond the one task would wait here for nothing.
            stream=not self.single_use,
        )

        async def start(job: Job) -> asyncio.Task[None] | None:
            if job.key in self._working:
                # Offered again while we were held up, or by an engine that died and forgot that it had been.
                self.log.info("a job that is worked on already came again", tde_job=job.key)
                slots.release()
                return None
            self._working.add(job.key)
            attempt = asyncio.create_task(work(job))
            self._attempts.add(attempt)

            def ended(done: asyncio.Task[None]) -> None:
                self._attempts.discard(done)
                self._working.discard(job.key)
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
        started = time.monotonic()
        ending: str | None = "stopped"
        self.metrics.started()
        try:
            ending = await self._work(job, variables, task, log)
        finally:
            self.metrics.ended(ending, time.monotonic() - started)
        if self.single_use:
            if ending is None:
                self._mapping.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._used.wait(), LINGER)
            self._used.set()

    async def _work(
        self, job: Job, variables: dict[str, Any], task: TaggedTask | None, log: FilteringBoundLogger
    ) -> str | None:
        """Execute, report, and say in a word how it ended; None when the Output step is to say it."""
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
        duration = time.monotonic() - started
        if reported is Unreported.MAPPED:
            log.debug("the engine maps the output", seconds=round(duration, 4))
            return None
        return self._ended(job, task, reported, duration, log)

    def _ended(
        self,
        job: Job,
        task: TaggedTask | None,
        reported: Outcome | Unreported,
        seconds: float,
        log: FilteringBoundLogger,
    ) -> str:
        """Tell the log and the PDO how a task ended, and say it in a word."""
        if isinstance(reported, Unreported):
            reason = "nobody waits for its outcome any more"
            log.info("attempt stopped", reason=reason)
            self._hint(task, reported.value, reason, 0)
            return reported.value
        retries = task.retries if task else job.retries
        exhausted = isinstance(reported, Failed) and retries_left(retries, reported) == 0
        ending = "incident" if exhausted else reported.kind
        level = log.info if isinstance(reported, Completed | Awaiting) else log.warning
        level("task ended", outcome=ending, message=reported.message or None, seconds=round(seconds, 4))
        self._hint(task, ending, reported.message, seconds)
        return ending

    def _input(self, variables: dict[str, Any], task: TaggedTask | None) -> Any:
        """What the executor gets: what the dispatcher or the mappings packed, or the caller's variables."""
        if task and INPUT_VARIABLE in variables[TASK_VARIABLE]:
            return variables[TASK_VARIABLE][INPUT_VARIABLE]
        if INPUT_VARIABLE in variables and (task or self.spec.inputs):
            return variables[INPUT_VARIABLE]
        return {name: value for name, value in variables.items() if name != TASK_VARIABLE}

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
        try:
            if job.element_id == TDE_RESULT_ELEMENT:
                work = self.executor.resume(brought(variables), context)
            else:
                data = self._input(variables, task)
                self._check_input(data)
                work = self.executor.execute(self._parse(data), context)
            async with timeout:
                output = await work
            result = self.executor.dump_output(output)
            self._check_output(result)
            self._check_mapped(result)
            self._redactor.refuse(result, "the result")
        except AwaitCallback as awaited:
            return Awaiting(awaited.token, awaited.timeout.total_seconds())
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

    def _check_mapped(self, result: dict[str, Any]) -> None:
        """With `outputs` mappings the result passes through the TDE's own variables, and through FEEL."""
        if not self.spec.outputs:
            return
        if taken := sorted(RESERVED & result.keys()):
            raise FatalFailure(f"the output has a variable {taken[0]!r}, a name that ProkOS needs; call it otherwise")
        if path := changed_number_of(result, [mapping.source for mapping in self.spec.outputs]):
            raise FatalFailure(f"the engine's FEEL would change the output's number {path}: {BEYOND_FEEL}")

    async def _report(self, job: Job, task: TaggedTask | None, outcome: Outcome) -> Outcome | Unreported:
        """Report an outcome, and say what became of it."""
        if task is None:
            called = await self._report_to_caller(job, outcome)
            return Unreported.MAPPED if self.spec.outputs and isinstance(called, Completed) else called
        if isinstance(outcome, Awaiting):
            if await await_callback(self.client, job, task, outcome):
                return outcome
            outcome = Failed("the task ended before its callback was awaited", retryable=False)
        if self.spec.outputs and isinstance(outcome, Completed):
            # The engine maps the output before it is reported, as a job of its own.
            try:
                await end_tde(self.client, job, outcome, outcome.variables)
            except (RejectedError, ValueError) as error:
                outcome = not_accepted(outcome, error)
            else:
                return Unreported.MAPPED
        if isinstance(outcome, Failed):
            # The next attempt may start as soon as this one is reported, and a TDE that has not ended would block it.
            await end_tde(self.client, job, outcome)
            reported = await report_to_parent(self.client, task, outcome, self.spec.backoff)
        else:
            reported = await report_to_parent(self.client, task, outcome, self.spec.backoff)
            await end_tde(self.client, job, reported or outcome)
        return reported or Unreported.GONE

    async def _report_to_caller(self, job: Job, outcome: Outcome) -> Outcome | Unreported:
        """Give the outcome to the TDE's own job: a process called it directly."""
        with contextlib.suppress(NotFoundError, WrongStateError):
            attempt = _attempt_number(job, None)
            return await report(self.client, job.key, job.retries, attempt, outcome, self.spec.backoff)
        return Unreported.GONE

    async def _output_job(self, job: Job) -> None:
        """The Output step of an executor with `outputs`: report what the engine has mapped."""
        started, variables = time.monotonic(), job.variables
        task = _tagged(variables)
        log = self.log.bind(**_tags(task, job))
        output = Completed(variables.get(OUTPUT_VARIABLE) or {})
        reported: Outcome | Unreported | None = None
        if task is None:
            reported = await self._report_to_caller(job, output)
        elif (variables.get(OUTCOME_VARIABLE) or {}).get("kind") == Completed.kind:
            reported = await report_to_parent(self.client, task, output, self.spec.backoff) or Unreported.GONE
        if reported:
            self.metrics.mapped(self._ended(job, task, reported, time.monotonic() - started, log))
        if task:
            with contextlib.suppress(NotFoundError):
                await self.client.complete_job(job.key)
        if self.single_use:
            self._used.set()

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
