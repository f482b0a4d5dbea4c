"""The PDO at work: scan, tag, route, dispatch, while its heartbeat runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from prokos.engine import EngineError, JobSource, NotFoundError, PayloadTooLargeError, RejectedError, Slots
from prokos.engine.taken import Taken
from prokos.pdo.dispatch import start_tde
from prokos.pdo.executing import Executing
from prokos.pdo.flight import InFlight
from prokos.pdo.journal import Journal
from prokos.pdo.tagging import element_of, tag
from prokos.router import ROUTE_MESSAGE, Decision, Element, Refused, decide, element_variable
from prokos.tde.next_attempt import HAND_BACK, Waits, split_wait, wait_before

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from prokos.engine import EngineClient, Job
    from prokos.registry import Registry, Store
    from prokos.tde import TaggedTask

log = structlog.get_logger(__name__)

TRANSIENT = 60.0
"""Seconds for which an outcome holds that was made because the router's model gave no answer."""

DISPATCH_CONCURRENCY = 64
"""Dispatches under way at a time: enough to keep a broker busy, few enough not to be refused all the time."""

ASK_AGAIN = 10.0
"""Seconds after which a route that tasks still wait for is requested again: a request, or its outcome, may be lost."""

START_AGAIN = 2.0
"""Seconds before a task is offered again whose TDE the engine would not have started."""

HELD_SHARE = 3
"""A wait between attempts that is longer than a lease divided by this takes no slot."""

STOPPED = "the PDO was stopped"
"""Why a task is offered again that was not dispatched yet."""

SHARD_KEPT = 15.0
"""Seconds a shard is scanned after its last beat here: its next beat may be served by another replica."""


@dataclass(slots=True)
class _Waiting:
    """A task whose route is being decided."""

    job: Job
    task: TaggedTask


@dataclass(slots=True)
class _Shard:
    """The job types this PDO scans for one shard."""

    scanned_until: float
    alone_since: float
    """Since when no other replica has served a beat of this shard; times are on the monotonic clock."""
    beat: int = -1
    scans: dict[str, asyncio.Task[None]] = field(default_factory=dict)


class Pdo:
    """Scans the job types of the shards whose beats it serves."""

    def __init__(self, client: EngineClient, store: Store, *, worker: str) -> None:
        self.client = client
        self.store = store
        self.worker = worker
        # In this order: what is written in between is seen as a change later.
        self._signature = store.signature()
        self.registry: Registry = store.load()
        self.settings = self.registry.system.pdo
        self.lease = self.settings.lease.total_seconds()
        self.journal = Journal()
        self.flights = InFlight(self.journal, self.lease)
        self.executing = Executing()
        self.shards: dict[int, _Shard] = {}
        self._routes: dict[Element, tuple[Decision | Refused, float | None]] = {}
        self._waiting: dict[Element, list[_Waiting]] = {}
        self._requested: dict[Element, float] = {}
        self._taken = Taken[int](time.monotonic())
        self._waits = Waits(client, self.lease)
        self._limit = asyncio.Semaphore(DISPATCH_CONCURRENCY)
        self._dispatches: set[asyncio.Task[None]] = set()
        self._held: set[asyncio.Task[None]] = set()
        """Tasks that wait here in their slots."""

    # --- the registry -----------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Take over what was registered since; forgets decisions, and lets waiting tasks be decided anew."""
        signature = self.store.signature()
        if signature == self._signature:
            return
        self._signature = signature
        self.registry = self.store.load()
        self._routes.clear()
        for element in list(self._waiting):
            outcome = decide(element, self.registry)
            if isinstance(outcome, Decision):
                self.settled(element, outcome)
        log.info("registry loaded", executors=len(self.registry.executors), job_types=len(self.registry.job_types))

    # --- scan -------------------------------------------------------------------------------------------------

    def beat(self, shard: int, number: int) -> _Shard:
        """A beat of a shard is served here: scan its job types, from now until beats stop coming."""
        self.reload()
        self._ask_again()
        now = time.monotonic()
        state = self.shards.setdefault(shard, _Shard(now, now))
        state.scanned_until = now + self.settings.beat_interval.total_seconds() + SHARD_KEPT
        if number not in {state.beat, state.beat + 1}:
            state.alone_since = now
        state.beat = number
        self._follow(shard, state)
        return state

    def _follow(self, shard: int, state: _Shard) -> None:
        shards = self.settings.shards
        wanted = {name for name in self.registry.job_types if shard_of(name, shards) == shard}
        for job_type in set(state.scans) - wanted:
            state.scans.pop(job_type).cancel()
        for job_type, scan in list(state.scans.items()):
            if scan.done():
                log.error("a scan broke off and starts again", job_type=job_type, exc_info=scan.exception())
                del state.scans[job_type]
        for job_type in wanted - set(state.scans):
            state.scans[job_type] = asyncio.create_task(self._scan(job_type, state))

    async def stop_idle_shards(self) -> None:
        """Stop scanning for shards whose beats are served elsewhere. Runs until cancelled."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for shard in [number for number, state in self.shards.items() if state.scanned_until < now]:
                log.warning("no beat of this shard for a while; it is scanned elsewhere, or not at all", shard=shard)
                self._stop(self.shards.pop(shard))

    def stop(self) -> None:
        """Stop scanning. What is dispatched stays with its TDE."""
        for state in self.shards.values():
            self._stop(state)
        self.shards.clear()

    async def hand_back(self) -> None:
        """Offer what is not dispatched yet to other replicas, or to the PDO that comes next."""
        for task in self._held:
            task.cancel()
        waiting = [each.job for tasks in self._waiting.values() for each in tasks]
        self._waiting.clear()
        routing = [self._waits.offer(job, 0.0, STOPPED) for job in waiting]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_BACK):
                await asyncio.gather(*routing, *self._held, self._waits.hand_back(), return_exceptions=True)

    def _stop(self, state: _Shard) -> None:
        for scan in state.scans.values():
            scan.cancel()

    async def _scan(self, job_type: str, state: _Shard) -> None:
        slots = Slots(self.settings.window)
        source = JobSource(
            self.client,
            job_type,
            worker=self.worker,
            lease=self.lease,
            slots=slots,
            poll_interval=poll_interval(self.settings.scan_interval.total_seconds(), len(state.scans)),
        )

        async def take(job: Job) -> asyncio.Task[None] | None:
            await self._limit.acquire()
            if self.client.losses.doubts(job):
                self._limit.release()
                slots.release()
                return None
            try:
                # From here on the task is ours, until it ends or its lease is over.
                job, wait = split_wait(job)
                task = self._take(job, slots, state)
            except Exception:
                # One that cannot be read must not take a place for ever, nor end the scan of the others.
                self._limit.release()
                slots.release()
                log.exception("a task could not be taken; its lease brings it back", job=job.key)
                return None
            due = self._handle(job, task) if self._waits.is_due(job, wait) else self._postpone(job, task, wait)
            dispatch = self._start(due)
            dispatch.add_done_callback(lambda _: self._limit.release())
            return dispatch

        await source.run(take)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._dispatches.add(task)
        task.add_done_callback(self._dispatched)
        return task

    def _dispatched(self, done: asyncio.Task[None]) -> None:
        self._dispatches.discard(done)
        if not done.cancelled() and (error := done.exception()):
            log.error("a dispatch broke off; the task's lease brings it back", exc_info=error)

    # --- tag, route, dispatch ---------------------------------------------------------------------------------

    def _take(self, job: Job, slots: Slots, state: _Shard) -> TaggedTask:
        task = tag(job, self.registry, self.lease, verify=self._may_have_started(job, state))
        self.flights.add(task, slots)
        self._taken.add(job.key, time.monotonic())
        self.journal.seen(task, state.beat)
        return task

    async def _postpone(self, job: Job, task: TaggedTask, wait: float) -> None:
        """Keep the wait before an attempt: a short one in its slot, a longer one beside."""
        self.journal.waits(task.job_key, wait)
        if wait <= self.lease / HELD_SHARE:
            # Apart from what is dispatched now, of which there may be only so much at a time.
            held = self._start(self._later(job, task, wait))
            self._held.add(held)
            held.add_done_callback(self._held.discard)
            return
        self.flights.remove(task.job_key)
        self._waits.keep(job, wait, "the wait before the next attempt is over")

    async def _later(self, job: Job, task: TaggedTask, wait: float) -> None:
        due = time.monotonic() + wait
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            await self._waits.offer(job, due - time.monotonic(), STOPPED)
            raise
        async with self._limit:
            if self.flights.holds(task) and not self.client.losses.doubts(job):
                await self._handle(job, task)

    async def _handle(self, job: Job, task: TaggedTask) -> None:
        element = element_of(job, self.registry)
        outcome = self._route(element)
        if outcome is None:
            await self._await_route(element, _Waiting(job, task))
        else:
            await self._proceed(job, task, outcome)

    def _may_have_started(self, job: Job, state: _Shard) -> bool:
        """Whether a TDE of this task may have been started before: by us, or by a replica that is or was there.

        A replica shows itself by beats that are missing here; what one that died had taken is offered again within
        a lease.
        """
        return job.key in self._taken or time.monotonic() - state.alone_since < self.lease + SHARD_KEPT

    async def _proceed(self, job: Job, task: TaggedTask, outcome: Decision | Refused) -> None:
        try:
            if isinstance(outcome, Decision):
                await self._dispatch(job, task, outcome)
            else:
                await self._refuse(task, outcome)
        except Exception:
            # It takes no slot any more; when its lease is over, the engine offers the task again.
            self.flights.remove(task.job_key)
            raise

    def _route(self, element: Element) -> Decision | Refused | None:
        known = self._routes.get(element)
        if known is not None and (known[1] is None or time.monotonic() < known[1]):
            return known[0]
        outcome = decide(element, self.registry)
        if isinstance(outcome, Refused):
            self.reload()  # what it lacks may have been registered since the last beat
            outcome = decide(element, self.registry)
        if isinstance(outcome, Decision | Refused):
            self._routes[element] = (outcome, None)
            return outcome
        return None

    async def _dispatch(self, job: Job, task: TaggedTask, decision: Decision) -> None:
        if decision.executor not in self.registry.executors:
            gone = f"the executor {decision.executor!r} was removed; add it again, or route the task elsewhere, "
            await self._refuse(task, Refused(f"{gone}then retry the task"))
            return
        self.flights.assign(task, decision.executor)
        self.journal.update(task.job_key, "dispatched", decision=decision)
        try:
            await start_tde(self.client, task, decision.executor, job.raw_variables)
        except PayloadTooLargeError as error:
            size = f"the task's variables ({len(job.raw_variables)} characters) are too large to be passed to its"
            await self._reject(task, f"{size} executor: {error}. Map only what it needs with zeebe:input")
        except EngineError as error:
            self.flights.remove(task.job_key)
            self.journal.update(task.job_key, "failed", message=str(error))
            # Nothing is wrong with the task: it comes again with all its attempts. (A start for a TDE that is not
            # deployed is no error to the engine; the task comes again when its lease is over.)
            self._waits.keep(job, START_AGAIN, f"cannot start the TDE of {decision.executor}: {error}")

    async def _reject(self, task: TaggedTask, message: str) -> None:
        """Make an incident of a task that its executor cannot be given, however often it is tried."""
        self.flights.remove(task.job_key)
        self.journal.update(task.job_key, "incident", message=message)
        await self._fail(task, message, retries=0)

    async def _await_route(self, element: Element, waiting: _Waiting) -> None:
        first = element not in self._waiting
        self._waiting.setdefault(element, []).append(waiting)
        self.journal.update(waiting.task.job_key, "routing")
        if first:
            await self._request_route(element)

    async def _request_route(self, element: Element) -> None:
        self._requested[element] = time.monotonic()
        variables = {"element": element_variable(element)}
        try:
            # Nothing comes of it when the element's route is being decided already.
            await self.client.publish_message(ROUTE_MESSAGE, element.route_name, variables)
        except EngineError as error:
            log.warning("cannot request a route; a later beat tries again", element=str(element), error=str(error))

    def _ask_again(self) -> None:
        """Request routes anew that tasks have waited for too long: requests get lost, and so do their outcomes."""
        now = time.monotonic()
        for element, tasks in list(self._waiting.items()):
            tasks[:] = [waiting for waiting in tasks if self.flights.holds(waiting.task)]
            if not tasks:
                del self._waiting[element]
            elif now - self._requested[element] > ASK_AGAIN:
                self._start(self._request_route(element))

    def settled(self, element: Element, outcome: Decision | Refused) -> None:
        """An element's route was decided: its waiting tasks go on."""
        expiry = time.monotonic() + TRANSIENT if outcome.transient else None
        self._routes[element] = (outcome, expiry)
        for waiting in self._waiting.pop(element, []):
            self._start(self._go_on(waiting, outcome))

    async def _go_on(self, waiting: _Waiting, outcome: Decision | Refused) -> None:
        async with self._limit:
            if self.flights.holds(waiting.task) and not self.client.losses.doubts(waiting.job):
                await self._proceed(waiting.job, waiting.task, outcome)

    async def _refuse(self, task: TaggedTask, refused: Refused) -> None:
        self.flights.remove(task.job_key)
        # A model that gives no answer may give one later; a missing executor needs a person.
        left = max(task.retries - 1, 0) if refused.transient else 0
        self.journal.update(task.job_key, "failed" if left else "refused", message=refused.message)
        log.warning("task has no route", job=task.job_key, element=task.element_id, reason=refused.message)
        await self._fail(task, refused.message, retries=left, wait=TRANSIENT)

    async def _fail(self, task: TaggedTask, message: str, *, retries: int, wait: float = 2.0) -> None:
        try:
            await self.client.fail_job(task.job_key, message, retries=retries, variables=wait_before(retries, wait))
        except (NotFoundError, RejectedError):
            log.info("task is gone", job=task.job_key)


def shard_of(job_type: str, shards: int) -> int:
    """The shard a job type belongs to; the same in every process and version of Python."""
    return zlib.crc32(job_type.encode()) % shards


def poll_interval(configured: float, job_types: int) -> float:
    """Seconds between polls of one type. With many types they are stretched to 20 polls a second in all."""
    return max(configured, job_types / 20)
