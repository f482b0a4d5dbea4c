"""Keeping a system's engine: the Helm release or an engine elsewhere, and whether it answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from prokos.engine import EngineClient, EngineError
from prokos.k8s.conditions import Statement
from prokos.k8s.helm_errors import HelmError
from prokos.kube import KubeError
from prokos.resources.helm_settings import HelmEngine
from prokos.resources.status import EngineStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from prokos.engine import Connection
    from prokos.k8s.engine_release import EngineRelease, ReleaseState
    from prokos.k8s.secrets import SecretReader
    from prokos.resources.engine_settings import EngineSettings, ExternalEngine

LOOK = 5.0
"""Seconds between looks at the engine."""

PATIENCE = 30.0
"""Seconds for which an engine that answered may be silent before that counts: a broker that is moved takes as long."""

READY = "EngineReady"

log = structlog.get_logger("prokos.k8s")


@dataclass(frozen=True)
class EngineState:
    """The engine as it is.

    Attributes:
        engine: How pods reach it; None until there is one.
        connection: How we reach it.
        ready: The condition.
        status: What the resource's status says of it.
    """

    engine: ExternalEngine | None = None
    connection: Connection | None = None
    ready: Statement = field(default_factory=lambda: Statement(READY, "Unknown", "Starting", "not looked at yet"))
    status: EngineStatus = field(default_factory=EngineStatus)


class EngineKeeper:
    """Makes the engine be as `spec.engine` says, again and again.

    Args:
        release: The system's Helm release, for an engine that is one.
        secrets: Reads the Secrets of its namespace.
        settings: Gives `spec.engine` as it is now.
        changed: Called when the state is another one.
        say: Told of what is worth an event: type, reason, message.
    """

    def __init__(
        self,
        release: EngineRelease,
        secrets: SecretReader,
        settings: Callable[[], EngineSettings],
        changed: Callable[[], None],
        say: Callable[[str, str, str], None],
    ) -> None:
        self.state = EngineState()
        self.wake = asyncio.Event()
        self._release = release
        self._say = say
        self._secrets = secrets
        self._settings = settings
        self._changed = changed
        self._answered = 0.0
        """When it last answered, on the monotonic clock."""

    async def run(self) -> None:
        """Keep the engine until cancelled."""
        while True:
            self.wake.clear()
            state = await self._look()
            if state != self.state:
                if state.ready != self.state.ready:
                    log.info("engine", ready=state.ready.status, reason=state.ready.message)
                self.state = state
                self._changed()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), LOOK)

    async def _look(self) -> EngineState:
        settings = self._settings()
        try:
            if settings.external is not None:
                return await self._reach(settings.external, EngineStatus())
            if settings.embedded is not None:
                return self._unready("Invalid", "a cluster has no embedded engine; use helm or external")
            release = await self._release.reconcile(settings.helm or HelmEngine())
            for event in release.events:
                self._say(event.type, event.reason, event.message)
            return await self._reach_release(release)
        except HelmError as error:
            return self._unready("ReleaseFailed", str(error))
        except EngineError as error:
            return self._unready("AccessFailed", str(error))
        except KubeError as error:
            return replace(self.state, ready=Statement(READY, "Unknown", "ClusterSilent", str(error), transient=True))
        except Exception as error:
            # The next look may find it mended; who keeps the system must not end for it.
            log.exception("the engine could not be looked at")
            # What it says may hold a value that must not be shown.
            return self._unready("LookFailed", f"{type(error).__name__}; the operator's log says more")

    async def _reach_release(self, release: ReleaseState) -> EngineState:
        status = EngineStatus(
            release=release.release,
            revision=release.revision,
            chart=release.chart,
            address=release.engine.address,
            settled_revision=release.settled,
        )
        if not release.ready and self.state.connection is None:
            unlike = Statement(READY, "False", release.reason, release.message, release.transient)
            return EngineState(release.engine, None, unlike, status)
        state = await self._reach(release.engine, status)
        if release.ready and (release.current or state.ready.status != "True"):
            return state
        # What was reached before goes on being used, and stays ready for as long as it answers.
        transient = release.transient and self._answers()
        return replace(state, ready=Statement(READY, "False", release.reason, release.message, transient))

    async def _reach(self, engine: ExternalEngine, status: EngineStatus) -> EngineState:
        connection = await self._secrets.connection(engine)
        status = status.model_copy(update={"address": engine.address})
        async with EngineClient(connection) as client:
            try:
                topology = await client.topology()
            except EngineError as error:
                message = f"the engine at {engine.address} does not answer: {error}"
                return EngineState(engine, connection, self._silent("EngineUnreachable", message), status)
        status = status.model_copy(update={"version": topology.gateway_version})
        if not topology.ready:
            message = f"{topology.leaders} of {topology.partitions} partitions have a leader"
            return EngineState(engine, connection, self._silent("NoLeader", message), status)
        self._answered = time.monotonic()
        ready = Statement(READY, "True", "Answering", f"Camunda {topology.gateway_version} at {engine.address}")
        return EngineState(engine, connection, ready, status)

    def _silent(self, reason: str, message: str) -> Statement:
        return Statement(READY, "False", reason, message, transient=self._answers())

    def _answers(self) -> bool:
        """Whether it answers, or is silent for no longer than it may be."""
        return time.monotonic() - self._answered < PATIENCE

    def _unready(self, reason: str, message: str) -> EngineState:
        """What was reached before goes on being used: an upgrade that fails takes nothing away."""
        return replace(self.state, ready=Statement(READY, "False", reason, message))
