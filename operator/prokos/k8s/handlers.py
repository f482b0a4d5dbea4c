"""The kopf handlers: thin. They keep resources at hand, start a system for each ProkOS, and pass on what happens."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import kopf
import pydantic
import structlog

from prokos.k8s.conditions import Statement, merge_conditions
from prokos.k8s.engine_release import remove_release
from prokos.k8s.helm_errors import HelmError
from prokos.k8s.names import COMPONENT_LABEL
from prokos.k8s.system import ClusterSystem
from prokos.kube import KubeError
from prokos.registry.cluster import SYSTEM_LABEL, SystemRef
from prokos.resources import ProkOS
from prokos.resources.helm_settings import HelmEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.k8s.desired import ObjectKey
    from prokos.k8s.home import Images
    from prokos.kube import KubeClient, Manifest

GROUP, VERSION = "prokos.io", "v1alpha1"
FINALIZER = "prokos.io/operator"

REMOVAL = 300.0
"""Seconds the removal of a system's engine may take; then the resource is let go all the same, with an event."""

EXIT_POLL = 1.0
"""Seconds between looks at whether a system that is to end has ended; then its finalizer is taken away."""

PLURALS = {
    "ProkOS": "prokoses",
    "TaskExecutor": "taskexecutors",
    "ProcessDefinition": "processdefinitions",
    "TaskRoute": "taskroutes",
}

log = structlog.get_logger("prokos.k8s")


class Operator:
    """All systems this operator keeps.

    Args:
        client: The API server.
        images: The images of this version.
    """

    def __init__(self, client: KubeClient, images: Images) -> None:
        self._client = client
        self._images = images
        self._manifests: dict[str, dict[ObjectKey, Manifest]] = {}
        """Resources that are not being deleted, by namespace."""
        self._generations: dict[str, tuple[int, bool]] = {}
        """Generation of each object by its uid, and whether it is going: what tells a change from a new status."""
        self._systems: dict[str, ClusterSystem] = {}
        """The running system of each namespace."""
        self._lived: set[str] = set()
        """Uids of the ProkOS that were there when this operator saw them first: their daemons see to their ends."""

    # --- what happens -----------------------------------------------------------------------------------------

    def seen(self, event: str | None, manifest: Manifest) -> None:
        """One of our resources was listed, added, changed or deleted. Changes of its status alone wake nobody."""
        metadata = manifest["metadata"]
        namespace, key = metadata["namespace"], (manifest["kind"], metadata["name"])
        known = self._manifests.setdefault(namespace, {})
        uid, gone = metadata["uid"], event == "DELETED" or "deletionTimestamp" in metadata
        if gone:
            known.pop(key, None)
        else:
            known[key] = manifest
            if manifest["kind"] == "ProkOS":
                self._lived.add(uid)
        if event == "DELETED":
            self._lived.discard(uid)
        generation = (metadata.get("generation", 0), gone)
        if self._generations.get(uid) != generation and (system := self._systems.get(namespace)):
            system.wake()
        self._remember(uid, generation)

    def owned_changed(self, event: str | None, manifest: Manifest) -> None:
        """A Deployment of a system was changed, by us or by somebody else."""
        metadata = manifest["metadata"]
        uid, gone = metadata["uid"], event == "DELETED"
        generation = (metadata.get("generation", 0), gone)
        before = self._generations.get(uid)
        self._remember(uid, generation)
        if system := self._systems.get(metadata["namespace"]):
            system.wake(drifted=before is not None and before != generation)

    def job_changed(self, manifest: Manifest) -> None:
        """A pod of one task was made, has ended, or is gone: another one may be due."""
        if system := self._systems.get(manifest["metadata"]["namespace"]):
            system.wake()

    def _remember(self, uid: str, generation: tuple[int, bool]) -> None:
        if generation[1]:
            self._generations.pop(uid, None)
        else:
            self._generations[uid] = generation

    # --- a system ---------------------------------------------------------------------------------------------

    async def bury(self, manifest: Manifest) -> None:
        """Remove what is left of a ProkOS that was deleted while no operator ran.

        kopf starts no daemon for it, and takes the finalizer away as soon as the handlers of its event have ended.
        """
        metadata = manifest["metadata"]
        going = manifest["kind"] == "ProkOS" and "deletionTimestamp" in metadata
        if going and FINALIZER in metadata.get("finalizers", ()) and metadata["uid"] not in self._lived:
            await self._remove(SystemRef(metadata["namespace"], metadata["name"], metadata["uid"]), manifest)

    async def serve(self, manifest: Mapping[str, Any], stopped: kopf.DaemonStopped) -> None:
        """Keep one system until its ProkOS is deleted or the operator ends.

        Args:
            manifest: A view of the ProkOS that follows its changes: it goes as it says in the end.
            stopped: Set to end it.
        """
        metadata = manifest["metadata"]
        system = SystemRef(metadata["namespace"], metadata["name"], metadata["uid"])
        while not stopped and (other := self._other(system)):
            await self._refuse(dict(manifest), other)
            await stopped.wait(10)
        if not stopped:
            await self._keep(system, stopped)
        if stopped.reason is not None and kopf.DaemonStoppingReason.RESOURCE_DELETED in stopped.reason:
            await self._remove(system, dict(manifest))

    def _other(self, system: SystemRef) -> str | None:
        """Another ProkOS of the same namespace that came first."""
        found = [
            manifest["metadata"]
            for (kind, _), manifest in self._manifests.get(system.namespace, {}).items()
            if kind == "ProkOS"
        ]
        first = min(found, key=lambda metadata: (metadata["creationTimestamp"], metadata["name"]), default=None)
        return None if first is None or first["uid"] == system.uid else first["name"]

    async def _refuse(self, manifest: Manifest, other: str) -> None:
        message = f"ProkOS {other} is in this namespace already; use another namespace"
        refusal = Statement("Ready", "False", "NamespaceTaken", message)
        metadata = manifest["metadata"]
        conditions = merge_conditions(None, [refusal], metadata.get("generation"), metadata["creationTimestamp"])
        with contextlib.suppress(KubeError):
            await self._client.set_status(manifest, {"conditions": conditions})

    async def _keep(self, system: SystemRef, stopped: kopf.DaemonStopped) -> None:
        def read() -> Mapping[ObjectKey, Manifest]:
            return dict(self._manifests.get(system.namespace, {}))

        def say(key: ObjectKey, kind: str, reason: str, message: str) -> None:
            if subject := self._manifests.get(system.namespace, {}).get(key):
                kopf.event(_body(subject), type=kind, reason=reason, message=message)

        running = ClusterSystem(self._client, system, read, self._images, say)
        self._systems[system.namespace] = running
        work = asyncio.create_task(running.run())
        ending = asyncio.create_task(_wait(stopped))
        try:
            await asyncio.wait([work, ending], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            self._systems.pop(system.namespace, None)
            for task in (work, ending):
                task.cancel()
            await asyncio.gather(work, ending, return_exceptions=True)

    async def _remove(self, system: SystemRef, manifest: Manifest) -> None:
        """Remove the engine as the policy says. The rest is owned by the resource and goes with it."""
        try:
            engine = ProkOS.model_validate({**manifest, "metadata": {"name": system.name}, "status": None}).spec.engine
            if engine.external is not None:
                return
            async with asyncio.timeout(REMOVAL):
                await remove_release(self._client, system, engine.helm or HelmEngine())
        except (HelmError, KubeError, TimeoutError, pydantic.ValidationError) as error:
            message = f"the engine's release was not removed and stays: {str(error) or 'it took too long'}"
            log.warning("system let go", system=system.name, namespace=system.namespace, reason=message)
            kopf.event(_body(manifest), type="Warning", reason="RemovalFailed", message=message)


def _body(manifest: Manifest) -> kopf.Body:
    return kopf.Body(cast("Any", manifest))


async def _wait(stopped: kopf.DaemonStopped) -> None:
    await stopped.wait()


def register(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    """Register the handlers of an operator."""

    @kopf.on.login(registry=registry)
    def login(**context: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)

    async def seen(event: Any, body: kopf.Body, **_: Any) -> None:
        operator.seen(event["type"], dict(body))
        if event["type"] != "DELETED":
            await operator.bury(dict(body))

    for plural in PLURALS.values():
        kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"seen-{plural}")(seen)

    @kopf.on.event(
        "apps",
        "v1",
        "deployments",
        labels={SYSTEM_LABEL: kopf.PRESENT, COMPONENT_LABEL: kopf.PRESENT},
        registry=registry,
    )
    async def deployment(event: Any, body: kopf.Body, **_: Any) -> None:
        operator.owned_changed(event["type"], dict(body))

    @kopf.on.event("batch", "v1", "jobs", labels={SYSTEM_LABEL: kopf.PRESENT}, registry=registry)
    async def single_use(body: kopf.Body, **_: Any) -> None:
        operator.job_changed(dict(body))

    @kopf.daemon(GROUP, VERSION, PLURALS["ProkOS"], registry=registry, cancellation_polling=EXIT_POLL)
    async def system(body: kopf.Body, stopped: kopf.DaemonStopped, **_: Any) -> None:
        await operator.serve(body, stopped)
