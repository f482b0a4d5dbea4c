"""The registry in a cluster: ConfigMaps of the system's namespace, and the TaskRoutes themselves.

Each executor, each process and the system's settings are one ConfigMap, labelled with the system's name and owned by
its ProkOS. They are small, changed seldom, and read by every PDO replica from a copy that a watch keeps fresh.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from pydantic import ValidationError

from prokos.kube import KubeConflictError
from prokos.registry.model import RegisteredProcess, Registry
from prokos.resources import API_VERSION, ProkOSSpec, TaskExecutor, TaskRoute
from prokos.resources.base import Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prokos.kube import KubeClient, Manifest

M = TypeVar("M", bound=Model)

SYSTEM_LABEL = "prokos.io/system"
"""Label of everything that belongs to a system: the name of its ProkOS."""

DOCUMENT_LABEL = "prokos.io/registry"
"""Label of the registry's ConfigMaps: what kind of document they hold."""

DOCUMENT_KEY = "document.json"

MACHINE_SOURCES = frozenset({"llm", "fallback", "rule"})
"""Sources of routes that the router may write anew; those of people it leaves alone."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SystemRef:
    """The ProkOS a registry belongs to."""

    namespace: str
    name: str
    uid: str

    @property
    def owner(self) -> Manifest:
        """Owner reference: what is owned goes with the system."""
        return {"apiVersion": API_VERSION, "kind": "ProkOS", "name": self.name, "uid": self.uid, "controller": True}


class ClusterRegistry:
    """The registry of one system. Implements `prokos.registry.Store`; `run` keeps it fresh.

    Args:
        client: The API server.
        system: The ProkOS it belongs to.
    """

    def __init__(self, client: KubeClient, system: SystemRef) -> None:
        self._client = client
        self._system = system
        self._documents: dict[str, Manifest] = {}
        self._routes: dict[str, Manifest] = {}
        self._changes = 0
        self._registry: tuple[int, Registry] | None = None
        self._listed = (asyncio.Event(), asyncio.Event())

    async def run(self) -> None:
        """Follow what others write, until cancelled."""
        selector = f"{SYSTEM_LABEL}={self._system.name},{DOCUMENT_LABEL}"
        documents = self._client.watch("v1", "ConfigMap", self._system.namespace, selector)
        routes = self._client.watch(API_VERSION, "TaskRoute", self._system.namespace)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(documents, self._documents, self._listed[0]))
            group.create_task(self._follow(routes, self._routes, self._listed[1]))

    async def ready(self) -> None:
        """Wait until everything has been read once."""
        for listed in self._listed:
            await listed.wait()

    async def _follow(
        self,
        events: AsyncIterator[list[Manifest] | tuple[str, Manifest]],
        known: dict[str, Manifest],
        listed: asyncio.Event,
    ) -> None:
        async for event in events:
            if isinstance(event, list):
                found = {item["metadata"]["name"]: item for item in event}
                for name in known.keys() - found.keys():
                    del known[name]
                for item in event:
                    self._keep(known, item)
                listed.set()
            elif event[0] == "DELETED":
                known.pop(event[1]["metadata"]["name"], None)
            else:
                self._keep(known, event[1])
            self._changes += 1

    def _keep(self, known: dict[str, Manifest], item: Manifest) -> None:
        """Keep the newer of two states of an object: an event may tell of one that we have overwritten already."""
        name = item["metadata"]["name"]
        before = known.get(name)
        if before is None or _version(before) <= _version(item):
            known[name] = item

    def signature(self) -> int:
        """Changes whenever a document does."""
        return self._changes

    def load(self) -> Registry:
        """Everything that is registered, from memory."""
        if self._registry is None or self._registry[0] != self._changes:
            self._registry = (self._changes, self._load())
        return self._registry[1]

    def _load(self) -> Registry:
        executors = self._read_all("executor", TaskExecutor)
        processes = self._read_all("process", RegisteredProcess)
        systems = self._read_all("system", ProkOSSpec)
        routes = [route for item in self._routes.values() if (route := _read_route(item))]
        return Registry(
            executors={executor.metadata.name: executor for executor in executors},
            processes={process.process_id: process for process in processes},
            routes=tuple(sorted(routes, key=lambda route: route.metadata.name)),
            system=systems[0] if systems else ProkOSSpec(),
        )

    def _read_all(self, kind: str, model: type[M]) -> list[M]:
        found = []
        for name, item in sorted(self._documents.items()):
            if item["metadata"]["labels"].get(DOCUMENT_LABEL) == kind:
                try:
                    found.append(model.model_validate_json(item["data"][DOCUMENT_KEY]))
                except (ValidationError, KeyError) as error:
                    log.error("registry document is not readable and is left out", config_map=name, error=str(error))
        return found

    async def put_system(self, system: ProkOSSpec) -> None:
        """Record the system's settings."""
        await self._put("system", self._system.name, system)

    async def put_executor(self, executor: TaskExecutor) -> None:
        """Record an executor that is deployed."""
        await self._put("executor", executor.metadata.name, executor)

    async def remove_executor(self, name: str) -> None:
        """Forget an executor."""
        document = self._name("executor", name)
        await self._client.delete("v1", "ConfigMap", self._system.namespace, document)
        self._documents.pop(document, None)
        self._changes += 1

    async def put_process(self, process: RegisteredProcess) -> None:
        """Record a process that is deployed."""
        await self._put("process", process.process_id, process)

    async def put_route(self, route: TaskRoute) -> None:
        """Make a TaskRoute of a decision, unless a person wrote one of this name."""
        manifest: Manifest = route.model_dump(mode="json", by_alias=True, exclude_none=True)
        manifest["metadata"] = {
            "name": route.metadata.name,
            "namespace": self._system.namespace,
            "labels": {SYSTEM_LABEL: self._system.name, "app.kubernetes.io/managed-by": "prokos"},
            "ownerReferences": [self._system.owner],
        }
        try:
            written = await self._client.create(manifest)
        except KubeConflictError:
            written = await self._rewrite(manifest)
        self._keep(self._routes, written)
        self._changes += 1

    async def _rewrite(self, manifest: Manifest) -> Manifest:
        name = manifest["metadata"]["name"]
        present = await self._client.get(API_VERSION, "TaskRoute", self._system.namespace, name)
        if present is None:
            return await self._client.create(manifest)
        if present["spec"].get("source", "human") not in MACHINE_SOURCES:
            return present
        return await self._client.replace({**present, "spec": manifest["spec"]})

    async def remove_route(self, name: str) -> None:
        """Delete a TaskRoute."""
        await self._client.delete(API_VERSION, "TaskRoute", self._system.namespace, name)
        self._routes.pop(name, None)
        self._changes += 1

    async def _put(self, kind: str, name: str, document: Model) -> None:
        written = await self._client.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": self._name(kind, name),
                    "namespace": self._system.namespace,
                    "labels": {
                        SYSTEM_LABEL: self._system.name,
                        DOCUMENT_LABEL: kind,
                        "app.kubernetes.io/managed-by": "prokos",
                    },
                    "ownerReferences": [self._system.owner],
                },
                "data": {DOCUMENT_KEY: document.model_dump_json(by_alias=True, exclude_none=True)},
            }
        )
        self._keep(self._documents, written)
        self._changes += 1

    def _name(self, kind: str, name: str) -> str:
        """A ConfigMap's name. A BPMN id may hold characters that a name may not, and be longer."""
        safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-")
        if safe != name:
            safe = f"{safe or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        return f"{self._system.name}.{kind}.{safe}"


def _version(item: Manifest) -> int:
    """Resource versions of one kind grow (Kubernetes API concepts, "Resource versions")."""
    return int(item["metadata"]["resourceVersion"])


def _read_route(item: Manifest) -> TaskRoute | None:
    try:
        return TaskRoute.model_validate(user_part(item))
    except ValidationError as error:
        log.error("TaskRoute is not valid and is left out", route=item["metadata"]["name"], error=str(error))
        return None


def user_part(item: Manifest) -> dict[str, Any]:
    """What a person wrote of an object, without what the API server, clients and controllers add to its metadata."""
    metadata = {key: item["metadata"][key] for key in ("name", "namespace")}
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": metadata,
        "spec": item.get("spec") or {},
    }
