"""Looking at a Helm release: its history, what its newest revision consists of, and what of that lives."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prokos.k8s.release_plan import DIGEST_LABEL, SeenRelease
from prokos.k8s.rollout import WORKLOADS, explain_rollout, is_rolled_out, manager_of, pod_selector, read_objects
from prokos.kube import KubeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prokos.k8s.helm import Content, Helm, Revision
    from prokos.kube import Manifest

RESYNC = 30.0
"""Seconds after which history and objects are looked at again though nothing was to do; workloads are each time."""

FORBIDDEN = 403


class Cluster(Protocol):
    """What is asked of the API server; `prokos.kube.KubeClient` is one."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
        """One object; None when there is none."""

    async def list_all(self, api_version: str, kind: str, namespace: str, selector: str = "") -> list[Manifest]:
        """The objects of a kind that match a label selector."""

    async def delete(self, api_version: str, kind: str, namespace: str, name: str) -> None:
        """Delete an object; one that is not there is as good as deleted."""


@dataclass(frozen=True, slots=True)
class Look:
    """A release as it was found.

    Attributes:
        workloads: Its StatefulSets and Deployments as they live.
        full: The history is as it is now, not as it was up to `RESYNC` ago.
    """

    seen: SeenRelease
    workloads: Sequence[Manifest]
    full: bool

    @property
    def newest(self) -> Revision:
        """The newest revision."""
        return self.seen.history[-1]


class ReleaseLooker:
    """Looks at the release of one system.

    Args:
        helm: Runs Helm.
        cluster: The API server.
        namespace: Where the release is.
    """

    def __init__(self, helm: Helm, cluster: Cluster, namespace: str) -> None:
        self._helm = helm
        self._cluster = cluster
        self._namespace = namespace
        self._history: tuple[str, Sequence[Revision], float] | None = None
        self._contents: dict[tuple[str, Revision], Content] = {}

    def forget(self) -> None:
        """Look at everything next time."""
        self._history = None

    async def look(self, release: str) -> Look | None:
        """The release as it is; None when there is none.

        Raises:
            HelmError: The cluster does not answer to Helm.
            KubeError: The API server does not answer.
        """
        full = self._history is None or self._history[0] != release or time.monotonic() > self._history[2] + RESYNC
        if full:
            self._history = (release, await self._helm.history(self._namespace, release), time.monotonic())
        assert self._history is not None  # noqa: S101 - mypy does not see that `full` says so
        history = self._history[1]
        if not history:
            self.forget()
            return None
        contents = [await self._content(release, revision) for revision in history[-2:]]
        self._contents = {(release, revision): self._contents[release, revision] for revision in history[-2:]}
        top = contents[-1]
        expected = [found for found in read_objects(top.manifest) if full or found["kind"] in WORKLOADS]
        live = [await self._live(wanted) for wanted in expected]
        there = [found for found in live if found is not None]
        workloads = [found for found in there if found["kind"] in WORKLOADS]
        missing = [
            f"{wanted['kind']} {wanted['metadata']['name']}"
            for wanted, found in zip(expected, live, strict=True)
            if found is None
        ]
        seen = SeenRelease(
            history=history,
            chart=top.chart,
            version=top.version,
            labels=top.labels,
            digest_before=contents[0].labels.get(DIGEST_LABEL) if len(contents) > 1 else None,
            manager=manager_of(there),
            missing=missing,
            ready=not missing and all(is_rolled_out(workload) for workload in workloads),
        )
        return Look(seen, workloads, full)

    async def progress(self, look: Look) -> tuple[str, str]:
        """What the first workload that has not rolled out waits for: reason and message."""
        for workload in look.workloads:
            if not is_rolled_out(workload):
                pods = await self._cluster.list_all("v1", "Pod", self._namespace, pod_selector(workload))
                events: list[Manifest] = []
                if not pods:
                    # Who may not read events gets a shorter message.
                    with contextlib.suppress(KubeError):
                        events = await self._cluster.list_all("v1", "Event", self._namespace)
                return explain_rollout(workload, pods, events)
        return "Progressing", "its workloads are not there yet"

    async def _content(self, release: str, revision: Revision) -> Content:
        """What a revision consists of: it never changes, other than its status."""
        key = (release, revision)
        if key not in self._contents:
            self._contents[key] = await self._helm.content(self._namespace, release, revision.number)
        return self._contents[key]

    async def _live(self, wanted: Manifest) -> Manifest | None:
        metadata = wanted["metadata"]
        namespace = metadata.get("namespace", self._namespace)
        try:
            return await self._cluster.get(wanted["apiVersion"], wanted["kind"], namespace, metadata["name"])
        except KubeError as error:
            if error.status != FORBIDDEN:
                raise
            # What we may not read, we may not repair either.
            return wanted
