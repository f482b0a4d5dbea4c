"""Keeping the Helm release of a system's engine: look, plan, act, until it is as the resource says.

Nothing here waits for pods. A release that is on its way is reported as such, and the next call looks again.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from prokos.k8s.engine_values import engine_connection, fixed_change
from prokos.k8s.helm import Helm
from prokos.k8s.helm_errors import HelmError, without_secrets
from prokos.k8s.release_look import ReleaseLooker
from prokos.k8s.release_plan import DIGEST_LABEL, REPORTS, SYSTEM_LABEL, Step, plan_release
from prokos.k8s.release_target import build_target, release_name
from prokos.k8s.rollout import has_ready_pods, is_rolled_out
from prokos.resources import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prokos.k8s.release_look import Cluster, Look
    from prokos.k8s.release_target import Target
    from prokos.registry.cluster import SystemRef
    from prokos.resources.engine_settings import ExternalEngine
    from prokos.resources.helm_settings import HelmEngine

CHARTS = Path(os.environ.get("PROKOS_CHARTS", "/usr/share/prokos/charts"))
"""Where the charts are that come with the operator."""

STEPS = 4
"""Most steps at a time: remove what was interrupted, install, fail, go back."""

FIRST_HOLD = 10.0
LAST_HOLD = 300.0
"""Seconds before Helm is asked again for what it refused without a revision; each wait is twice the one before."""

POLL = 1.0
"""Seconds between looks at pods and volumes that are to go."""

INSTANCE_LABEL = "app.kubernetes.io/instance"
"""Label of a release's pods and volumes in all charts that follow Helm's conventions."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done, and is worth an event of the resource.

    Attributes:
        type: `Normal` or `Warning`.
        reason: One CamelCase word.
    """

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """A release after it was looked after.

    Attributes:
        release: Its name.
        engine: How its engine is reached.
        revision: The newest revision; None while there is none.
        chart: Name and version of the installed chart, `camunda-platform-14.8.4`.
        ready: Its workloads run, if perhaps as an older revision says.
        current: It is as the resource says, or on the way there.
        transient: Why it is not ready is likely to pass by itself.
        reason: One word: why it is not ready or not current.
        message: The same for people.
        settled: The last revision that was seen ready.
        events: What was done.
    """

    release: str
    engine: ExternalEngine
    revision: int | None = None
    chart: str | None = None
    ready: bool = False
    current: bool = True
    transient: bool = False
    reason: str = ""
    message: str = ""
    settled: int | None = None
    events: Sequence[Event] = ()


@dataclass(frozen=True, slots=True)
class _Hold:
    """What Helm refused, and when it may be asked again."""

    digest: str
    error: HelmError
    seconds: float
    until: float


class EngineRelease:
    """The release of one system; one `reconcile` at a time.

    Args:
        cluster: The API server.
        system: The ProkOS.
        helm: Runs Helm.
        charts: Where the charts are that come with the operator.
        settled: The last revision that was seen ready, if an operator before this one saw one: where an upgrade that
            does not get ready goes back to.
    """

    def __init__(
        self,
        cluster: Cluster,
        system: SystemRef,
        helm: Helm | None = None,
        charts: Path = CHARTS,
        settled: int | None = None,
    ) -> None:
        self._cluster = cluster
        self._system = system
        self._helm = helm or Helm()
        self._looker = ReleaseLooker(self._helm, cluster, system.namespace)
        self._charts = charts
        self._settled = settled
        self._hold: _Hold | None = None

    async def reconcile(self, settings: HelmEngine) -> ReleaseState:
        """Make the release be as the settings say, as far as that goes without waiting.

        Raises:
            HelmError: There is no Helm, or the cluster does not answer to it.
            KubeError: The API server does not answer.
        """
        target = build_target(self._system.name, settings, self._charts)
        events: list[Event] = []
        while True:
            look = await self._looker.look(target.release)
            if look and look.seen.ready and look.newest.status == "deployed":
                self._settled = look.newest.number
            wanted = replace(target.wanted, settled=self._settled)
            step = plan_release(wanted, look.seen if look else None, datetime.now(UTC))
            # A revision's description is what Helm said when it failed.
            step = replace(step, message=without_secrets(step.message, target.values))
            if step.verb not in REPORTS and look is not None and not look.full:
                # Nothing is done on the word of a history that may have gone on since.
                self._looker.forget()
                continue
            step = await self._checked(step, look, target)
            if step.verb in REPORTS or len(events) == STEPS:
                return await self._state(target, look, step, events)
            events.append(await self._act(step, look, target))

    async def _checked(self, step: Step, look: Look | None, target: Target) -> Step:
        """The step, or why it is not taken: what the history alone does not tell."""
        if step.verb in REPORTS:
            return step
        hold = self._hold
        if hold and hold.digest == target.wanted.digest and time.monotonic() < hold.until:
            return Step("Wait", hold.error.reason, str(hold.error))
        if look is None or step.verb != "Upgrade":
            return step
        owner = look.seen.labels.get(SYSTEM_LABEL)
        if owner not in (None, self._system.name) and await self._lives(owner):
            message = f"ProkOS {owner} keeps the release {target.release}; name another in spec.engine.helm.release"
            return Step("Refuse", "ReleaseOfAnother", message)
        if owner == self._system.name and self._settled is None:
            # An engine that never ran has no data that would hold it.
            return step
        values = await self._helm.values(self._system.namespace, target.release)
        if change := fixed_change(values, target.values):
            return Step("Refuse", "CannotChange", change)
        return step

    async def _lives(self, system: str) -> bool:
        return await self._cluster.get(API_VERSION, "ProkOS", self._system.namespace, system) is not None

    async def _act(self, step: Step, look: Look | None, target: Target) -> Event:
        """Take a step. That it failed is an event, too; the history then tells what to do next."""
        namespace, timeout = self._system.namespace, target.settings.timeout
        before = look and look.newest.number
        why = step.message
        if step.reason == "NotReadyInTime" and look:
            why = f"{why}: {(await self._looker.progress(look))[1]}"
        try:
            if step.verb == "Uninstall":
                await self._helm.uninstall(namespace, target.release, timeout)
                return Event("Warning", "Uninstalled", f"release {target.release}: {why}")
            if step.revision is not None:
                await self._helm.rollback(namespace, target.release, step.revision, timeout)
                message = f"release {target.release} went back to revision {step.revision}: {why}"
                return Event("Warning", step.reason, message)
            labels = {SYSTEM_LABEL: self._system.name, DIGEST_LABEL: target.wanted.digest}
            await self._helm.upgrade(
                namespace, target.release, target.chart, target.values, labels=labels, timeout=timeout
            )
            self._hold = None
            reason = {"Adopted": "Adopted", "Drift": "Repaired"}.get(step.reason, "Upgraded" if look else "Installed")
            chart = " ".join(filter(None, (target.chart.name, target.chart.version)))
            return Event("Normal", reason, f"release {target.release}, chart {chart}" + (f": {why}" if why else ""))
        except HelmError as error:
            if error.reason in {"Unreachable", "HelmMissing"}:
                raise
            history = await self._helm.history(namespace, target.release)
            if (history[-1].number if history else None) == before:
                self._hold_off(target.wanted.digest, error)
            return Event("Warning", error.reason, f"release {target.release}: {error}")
        finally:
            self._looker.forget()

    def _hold_off(self, digest: str, error: HelmError) -> None:
        again = self._hold if self._hold and self._hold.digest == digest else None
        seconds = min(again.seconds * 2, LAST_HOLD) if again else FIRST_HOLD
        self._hold = _Hold(digest, error, seconds, time.monotonic() + seconds)

    async def _state(self, target: Target, look: Look | None, step: Step, events: Sequence[Event]) -> ReleaseState:
        engine = engine_connection(target.settings, target.release, self._system.namespace, target.values)
        state = ReleaseState(target.release, engine, settled=self._settled, events=events)
        if look is not None:
            rolled_out = all(is_rolled_out(workload) for workload in look.workloads)
            running = self._settled is not None and all(has_ready_pods(workload) for workload in look.workloads)
            foreign = step.reason in {"ReleaseOfAnother", "OtherChart"}
            state = replace(
                state,
                revision=look.newest.number,
                chart=look.newest.chart,
                ready=not foreign and not look.seen.missing and (rolled_out or running),
            )
        if step.verb != "Nothing":
            return replace(state, current=False, reason=step.reason, message=step.message)
        if look is None or look.seen.ready:
            return replace(state, reason="Deployed", message=f"revision {state.revision} of {state.release}")
        reason, message = await self._looker.progress(look)
        return replace(state, transient=reason == "Progressing", reason=reason, message=message)


async def remove_release(cluster: Cluster, system: SystemRef, settings: HelmEngine, helm: Helm | None = None) -> None:
    """Remove a system's release as its deletion policy says, and wait until it is gone.

    A release of another is left alone. Safe to repeat: what is gone is gone.

    Raises:
        HelmError: Helm could not uninstall it.
        KubeError: The API server does not answer.
    """
    if settings.deletion_policy == "Orphan":
        return
    helm, name, namespace = helm or Helm(), release_name(system.name, settings), system.namespace
    if history := await helm.history(namespace, name):
        content = await helm.content(namespace, name, history[-1].number)
        if content.labels.get(SYSTEM_LABEL) != system.name:
            return
        if history[-1].status != "uninstalled":
            await helm.uninstall(namespace, name, settings.timeout)
    # A release may bear its system's name, and so may the label of the system's own pods.
    selector = f"{INSTANCE_LABEL}={name},app.kubernetes.io/managed-by!=prokos"
    kinds = ["Pod"]
    if settings.deletion_policy == "Delete":
        kinds.append("PersistentVolumeClaim")
        for claim in await cluster.list_all("v1", "PersistentVolumeClaim", namespace, selector):
            await cluster.delete("v1", "PersistentVolumeClaim", namespace, claim["metadata"]["name"])
    for kind in kinds:
        while await cluster.list_all("v1", kind, namespace, selector):
            await asyncio.sleep(POLL)
