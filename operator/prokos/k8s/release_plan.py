"""What to do about a Helm release, from its history and what is wanted. Pure.

The history is all the memory there is: each revision carries the digest of the desired state it was made from as a
label, so an operator that has just started knows what was tried and how it ended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from prokos.resources.helm_settings import CAMUNDA_CHART, CAMUNDA_OF_CHART, chart_major

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from prokos.k8s.helm import Revision

SYSTEM_LABEL = "prokos.io/system"
"""Label of a revision: the ProkOS whose release it is."""

DIGEST_LABEL = "prokos.io/digest"
"""Label of a revision: what desired state it was made from."""

FIRST_RETRY = timedelta(seconds=15)
LAST_RETRY = timedelta(minutes=10)
"""Waits between attempts to make a release that has no revision to go back to; each is twice the one before."""

CANCELLED = "context canceled"
"""In Helm's description of a revision whose upgrade it was asked to end."""

Verb = Literal["Install", "Upgrade", "Rollback", "Uninstall", "Wait", "Refuse", "Nothing"]

REPORTS: frozenset[Verb] = frozenset({"Wait", "Refuse", "Nothing"})
"""Steps that change nothing."""


@dataclass(frozen=True, slots=True)
class WantedRelease:
    """A release as it shall be.

    Attributes:
        system: Name of the ProkOS.
        chart: Name of the chart.
        version: Version of the chart, or a constraint.
        digest: Tells this desired state from others.
        named: The resource names the release, so whatever is there may be taken over.
        version_given: The resource says the version, so another major version may be made this one.
        settled: The last revision that was seen ready.
        timeout: How long a revision may take to be ready.
    """

    system: str
    chart: str
    version: str | None
    digest: str
    named: bool
    version_given: bool
    settled: int | None
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class SeenRelease:
    """A release as it is.

    Attributes:
        history: Its revisions, oldest first; at least one.
        chart: Name of the newest revision's chart.
        version: Version of that.
        labels: Labels of the newest revision.
        digest_before: Digest of the revision before it.
        manager: Another tool that keeps the release, if its marks are on it.
        missing: Objects of the newest revision that are not there.
        ready: The workloads run as the newest revision says.
    """

    history: Sequence[Revision]
    chart: str
    version: str
    labels: Mapping[str, str] = field(default_factory=dict)
    digest_before: str | None = None
    manager: str | None = None
    missing: Sequence[str] = ()
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next.

    Attributes:
        revision: For `Rollback`, to which.
        reason: One word that says why.
    """

    verb: Verb
    reason: str = ""
    message: str = ""
    revision: int | None = None


def plan_release(wanted: WantedRelease, seen: SeenRelease | None, now: datetime) -> Step:
    """The next step towards the wanted release; `Nothing` when it is as wanted."""
    if seen is None:
        return Step("Install")
    if refusal := _refusal(wanted, seen):
        return refusal
    top = seen.history[-1]
    if top.status.startswith("pending-") or top.status == "uninstalling":
        return _interrupted(wanted, seen, now)
    if top.status == "uninstalled":
        return Step("Install")
    if top.status == "failed":
        return _failed(wanted, seen, now)
    if seen.labels.get(DIGEST_LABEL) == wanted.digest:
        return _deployed(wanted, seen, now)
    return _outdated(wanted, seen, now)


def _refusal(wanted: WantedRelease, seen: SeenRelease) -> Step | None:
    owner = seen.labels.get(SYSTEM_LABEL)
    if owner != wanted.system and not wanted.named and (other := f"ProkOS {owner}" if owner else seen.manager):
        message = (
            f"there is a release of this name, which {other} keeps; name it in spec.engine.helm.release to take it"
        )
        return Step("Refuse", "ReleaseOfAnother", f"{message} over, or name another")
    if seen.chart != wanted.chart:
        message = f"the release is one of chart {seen.chart}, not {wanted.chart}"
        return Step("Refuse", "OtherChart", f"{message}; name another in spec.engine.helm.release")
    return _version_refusal(wanted, seen) if wanted.chart == CAMUNDA_CHART else None


def _version_refusal(wanted: WantedRelease, seen: SeenRelease) -> Step | None:
    """Camunda is upgraded one minor version at a time, never back, and by nobody's default."""
    before, after = chart_major(seen.version), chart_major(wanted.version or "")
    if before is None or after is None or before == after:
        return None
    installed = f"chart {seen.version} is installed"
    if not wanted.version_given:
        message = f"{installed}; set spec.engine.helm.version to {before} to keep it, or to {after} to upgrade"
        return Step("Refuse", "OtherVersion", message)
    if before not in CAMUNDA_OF_CHART or after != before + 1:
        return Step("Refuse", "OtherVersion", f"{installed}, which cannot become {wanted.version} in one step")
    return None


def _interrupted(wanted: WantedRelease, seen: SeenRelease, now: datetime) -> Step:
    """Something is under way, or was when whoever did it was killed. We do one thing at a time: ours is not alive."""
    top = seen.history[-1]
    if seen.labels.get(SYSTEM_LABEL) != wanted.system and now - top.updated < wanted.timeout:
        return Step("Wait", "Busy", f"somebody else works on the release: revision {top.number} is {top.status}")
    message = f"revision {top.number} was interrupted ({top.status})"
    good = _rollback_target(top) or _last_deployed(seen)
    if top.status == "uninstalling" or good is None:
        return Step("Uninstall", "Interrupted", message)
    return Step("Rollback", "Interrupted", message, good)


def _failed(wanted: WantedRelease, seen: SeenRelease, now: datetime) -> Step:
    top, digest = seen.history[-1], seen.labels.get(DIGEST_LABEL)
    message = f"revision {top.number} failed: {top.description}"
    if wanted.digest not in (digest, seen.digest_before) or CANCELLED in top.description:
        return Step("Upgrade", "Changed" if seen.labels.get(SYSTEM_LABEL) else "Adopted")
    good = _last_deployed(seen)
    if good is not None and digest == wanted.digest:
        return Step("Rollback", "UpgradeFailed", message, good)
    failures = sum(revision.status == "failed" for revision in seen.history)
    time = top.updated + min(FIRST_RETRY * 2 ** (failures - 1), LAST_RETRY)
    if now < time:
        return _wait("InstallFailed", message, time)
    return Step("Upgrade", "Retry", message) if good is None else Step("Rollback", "UpgradeFailed", message, good)


def _deployed(wanted: WantedRelease, seen: SeenRelease, now: datetime) -> Step:
    top = seen.history[-1]
    if seen.missing:
        return Step("Upgrade", "Drift", f"{', '.join(seen.missing)} was gone")
    if seen.ready or wanted.settled is None or wanted.settled >= top.number or _rollback_target(top):
        return Step("Nothing")
    if now - top.updated < wanted.timeout or wanted.settled not in {revision.number for revision in seen.history}:
        return Step("Nothing")
    message = f"revision {top.number} was not ready within {wanted.timeout.total_seconds():.0f} s"
    return Step("Rollback", "NotReadyInTime", message, wanted.settled)


def _outdated(wanted: WantedRelease, seen: SeenRelease, now: datetime) -> Step:
    top = seen.history[-1]
    attempts = _attempts(seen.history)
    if attempts and seen.digest_before == wanted.digest:
        before = seen.history[-2]
        why = before.description if before.status == "failed" else "it was not ready in time"
        message = f"revision {before.number} was rolled back: {why}"
        time = top.updated + wanted.timeout * 2 ** (attempts - 1)
        return _wait("RolledBack", message, time) if now < time else Step("Upgrade", "Retry", message)
    return Step("Upgrade", "Changed" if seen.labels.get(SYSTEM_LABEL) else "Adopted")


def _wait(reason: str, message: str, time: datetime) -> Step:
    return Step("Wait", reason, f"{message}; tried again at {time:%H:%M:%S} UTC, or at once when spec.engine changes")


def _attempts(history: Sequence[Revision]) -> int:
    """How many upgrades in a row were rolled back, the newest of them last. One that was interrupted was none."""
    attempts = 0
    for tried, back in zip(history[-2::-2], history[::-2], strict=False):
        if not _rollback_target(back) or tried.status not in {"failed", "superseded"}:
            break
        attempts += 1
    return attempts


def _rollback_target(revision: Revision) -> int | None:
    """The revision that this one went back to, by Helm's description of it."""
    match = re.fullmatch(r"Rollback to (\d+)", revision.description)
    return int(match[1]) if match else None


def _last_deployed(seen: SeenRelease) -> int | None:
    return next((revision.number for revision in reversed(seen.history) if revision.status == "deployed"), None)
