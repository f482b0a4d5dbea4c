"""An engine in memory, with the commands of `EngineClient` that our services use, and a record of what was asked."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from prokos.engine import EngineError, NotFoundError
from prokos.engine.client import to_json
from prokos.engine.losses import Losses
from prokos.tde.next_attempt import WAIT_VARIABLE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from prokos.engine import Job

Command = tuple[Any, ...]


class FakeEngine:
    """Offers jobs and takes reports.

    A job whose key is in `gone` is not found. An exception in `refusals` answers the command of that name, or of
    that name and key, each time; one in `hiccups` answers the next command of that name, once.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, list[Job]] = defaultdict(list)
        """Jobs that nobody has, oldest first, by type."""
        self.streams: dict[str, list[asyncio.Queue[Job | EngineError | None]]] = defaultdict(list)
        """Open streams by job type."""
        self.opened = 0
        """How many streams were opened so far."""
        self.polls: list[tuple[str, int]] = []
        """Job type and limit of each poll."""
        self.commands: list[Command] = []
        self.gone: set[int] = set()
        self.decisions: list[tuple[str, dict[str, Any]]] = []
        """Id and variables of each evaluation that was asked for."""
        self.values: Any = []
        """What evaluations give."""
        self.refusals: dict[str | tuple[str, int], Exception] = {}
        self.hiccups: dict[str, list[Exception]] = defaultdict(list)
        self.losses = Losses(None)
        """Nobody watches a connection: a test notes the losses."""

    # --- what a test does and sees ----------------------------------------------------------------------------

    def offer(self, *jobs: Job) -> None:
        """The engine has new jobs: they go into an open stream of their type, else they wait."""
        for job in jobs:
            if streams := self.streams[job.type]:
                streams[0].put_nowait(job)
            else:
                self.waiting[job.type].append(job)

    def break_streams(self, job_type: str, error: EngineError | None = None) -> None:
        """End the open streams of a type, with an error or without."""
        for stream in self.streams[job_type]:
            stream.put_nowait(error)

    def named(self, *names: str) -> list[Command]:
        """The commands of these names, in the order they came."""
        return [command for command in self.commands if command[0] in names]

    @property
    def reports(self) -> list[Command]:
        """What was reported of jobs, in the order it came."""
        return self.named("complete", "fail", "error")

    # --- EngineClient -----------------------------------------------------------------------------------------

    async def activate_jobs(
        self, job_type: str, *, worker: str, limit: int, lease: float, wait: float = -1
    ) -> list[Job]:
        self.polls.append((job_type, limit))
        await self._answer("activate", None)
        taken, self.waiting[job_type] = self.waiting[job_type][:limit], self.waiting[job_type][limit:]
        return taken

    async def stream_jobs(self, job_type: str, *, worker: str, lease: float) -> AsyncGenerator[Job, None]:
        stream: asyncio.Queue[Job | EngineError | None] = asyncio.Queue()
        self.streams[job_type].append(stream)
        self.opened += 1
        try:
            while True:
                match await stream.get():
                    case None:
                        return
                    case EngineError() as error:
                        raise error
                    case job:
                        yield job
        finally:
            self.streams[job_type].remove(stream)

    async def complete_job(self, key: int, variables: Mapping[str, Any] | None = None) -> None:
        await self._record("complete", key, json.loads(json.dumps(dict(variables or {}), allow_nan=False)))
        self.gone.add(key)

    async def fail_job(
        self,
        key: int,
        message: str,
        *,
        retries: int,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Records the wait before the next attempt, whoever keeps it."""
        wait = (variables or {}).get(WAIT_VARIABLE, {}).get("seconds", 0)
        await self._record("fail", key, message, retries, wait)

    async def throw_error(
        self, key: int, code: str, message: str = "", variables: Mapping[str, Any] | None = None
    ) -> None:
        await self._record("error", key, code, message, json.loads(to_json(variables or {})))
        self.gone.add(key)

    async def evaluate_decision(self, decision_id: str, variables: Mapping[str, Any]) -> Any:
        await self._answer("evaluate", None)
        self.decisions.append((decision_id, json.loads(to_json(variables))))
        return self.values

    async def extend_lease(self, key: int, lease: float) -> None:
        await self._record("extend", key, lease)

    async def cancel_instance(self, key: int) -> None:
        await self._record("cancel", key)

    async def publish_message(
        self,
        name: str,
        correlation_key: str,
        variables: Mapping[str, Any] | str | None = None,
        *,
        ttl: float = 0,
        message_id: str = "",
        idempotent: bool = True,
    ) -> bool:
        parsed = json.loads(variables) if isinstance(variables, str) else json.loads(json.dumps(dict(variables or {})))
        await self._record("publish", name, correlation_key, parsed, idempotent)
        return True

    async def _record(self, name: str, key: Any, *rest: Any) -> None:
        await self._answer(name, key)
        self.commands.append((name, key, *rest))

    async def _answer(self, name: str, key: Any) -> None:
        # A real command takes a while: others run meanwhile.
        await asyncio.sleep(0)
        if self.hiccups[name]:
            raise self.hiccups[name].pop(0)
        for refusal in (name, (name, key)):
            if refusal in self.refusals:
                raise self.refusals[refusal]
        if key is not None and key in self.gone:
            raise NotFoundError(f"no such job: {key}")
