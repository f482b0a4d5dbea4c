"""A few verbs over the API server: apply, get, list, watch, delete, status. Objects are plain manifests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import structlog
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import ResourceNotFoundError

from prokos.kube.errors import NOT_FOUND, KubeError, from_api_exception

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Manifest = dict[str, Any]
"""An object as the API server reads and writes it."""

REQUEST_TIMEOUT = 30.0
"""Seconds one request may take; a watch is one that the server ends after `WATCH_LENGTH`."""

WATCH_LENGTH = 300
"""Seconds after which a watch is opened anew."""

RELIST_DELAY = 1.0
"""Seconds before a watch that broke is opened anew."""

log = structlog.get_logger(__name__)


class KubeClient:
    """The API server, for one field manager.

    Args:
        dynamic: The library's client, which finds out the paths of kinds by itself.
        manager: Name under which the fields we set are ours.
    """

    def __init__(self, dynamic: DynamicClient, manager: str) -> None:
        self._dynamic = dynamic
        self._manager = manager

    async def apply(self, manifest: Manifest) -> Manifest:
        """Make an object have these fields (server-side apply); those others set are left alone.

        Raises:
            KubeError: The server refuses it.
        """
        return await self._call(
            f"cannot apply {_named(manifest)}",
            manifest["apiVersion"],
            manifest["kind"],
            "server_side_apply",
            body=manifest,
            name=manifest["metadata"]["name"],
            namespace=manifest["metadata"].get("namespace"),
            field_manager=self._manager,
            force_conflicts=True,
        )

    async def create(self, manifest: Manifest) -> Manifest:
        """Make an object.

        Raises:
            KubeConflictError: There is one of this name.
            KubeError: The server refuses it.
        """
        namespace = manifest["metadata"].get("namespace")
        return await self._call(
            f"cannot create {_named(manifest)}",
            manifest["apiVersion"],
            manifest["kind"],
            "create",
            body=manifest,
            namespace=namespace,
            field_manager=self._manager,
        )

    async def replace(self, manifest: Manifest) -> Manifest:
        """Write an object that was read before.

        Raises:
            KubeConflictError: It has changed since.
        """
        return await self._call(
            f"cannot replace {_named(manifest)}",
            manifest["apiVersion"],
            manifest["kind"],
            "replace",
            body=manifest,
            namespace=manifest["metadata"].get("namespace"),
            field_manager=self._manager,
        )

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
        """One object; None when there is none."""
        try:
            return await self._call(
                f"cannot read {kind} {namespace}/{name}", api_version, kind, "get", name=name, namespace=namespace
            )
        except KubeError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def list_all(self, api_version: str, kind: str, namespace: str, selector: str = "") -> list[Manifest]:
        """The objects of a kind in a namespace that match a label selector."""
        found = await self._list(api_version, kind, namespace, selector)
        # Items of a list lack what the list says of all of them.
        return [{"apiVersion": api_version, "kind": kind, **item} for item in found["items"]]

    async def _list(self, api_version: str, kind: str, namespace: str, selector: str) -> Manifest:
        return await self._call(
            f"cannot list {kind} in {namespace}",
            api_version,
            kind,
            "get",
            namespace=namespace,
            label_selector=selector or None,
        )

    async def delete(self, api_version: str, kind: str, namespace: str, name: str) -> None:
        """Delete an object and what it owns; one that is not there is as good as deleted."""
        try:
            await self._call(
                f"cannot delete {kind} {namespace}/{name}",
                api_version,
                kind,
                "delete",
                name=name,
                namespace=namespace,
                propagation_policy="Background",
            )
        except KubeError as error:
            if error.status != NOT_FOUND:
                raise

    async def set_status(self, manifest: Manifest, status: Manifest) -> None:
        """Replace an object's status; an object that is gone needs none."""
        resource = await self._resource(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        try:
            await self._translated(
                f"cannot write the status of {_named(manifest)}",
                self._dynamic.patch(
                    resource.subresources["status"],
                    body=[{"op": "add", "path": "/status", "value": status}],
                    name=metadata["name"],
                    namespace=metadata["namespace"],
                    content_type="application/json-patch+json",
                    field_manager=self._manager,
                    _request_timeout=REQUEST_TIMEOUT,
                ),
            )
        except KubeError as error:
            if error.status != NOT_FOUND:
                raise

    async def watch(
        self, api_version: str, kind: str, namespace: str, selector: str = ""
    ) -> AsyncIterator[list[Manifest] | tuple[str, Manifest]]:
        """Follow the objects of a kind for ever.

        Yields:
            First, and whenever events may have been missed, the list of all objects; in between `(type, object)` with
            the event's type ADDED, MODIFIED or DELETED.
        """
        while True:
            try:
                found = await self._list(api_version, kind, namespace, selector)
                yield [{"apiVersion": api_version, "kind": kind, **item} for item in found["items"]]
                resource = await self._resource(api_version, kind)
                events = self._dynamic.watch(
                    resource,
                    namespace=namespace,
                    label_selector=selector or None,
                    resource_version=found["metadata"]["resourceVersion"],
                    timeout=WATCH_LENGTH,
                )
                async with contextlib.aclosing(events):
                    async for event in events:
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["raw_object"]
            except (KubeError, ApiException, aiohttp.ClientError, TimeoutError, ValueError) as error:
                log.info("watch broke and is opened anew", kind=kind, namespace=namespace, error=str(error)[:300])
            except Exception:
                # Whoever follows would go on with what it knows, for ever.
                log.exception("watch broke and is opened anew", kind=kind, namespace=namespace)
            await asyncio.sleep(RELIST_DELAY)

    async def _call(self, what: str, api_version: str, kind: str, verb: str, **arguments: Any) -> Manifest:
        resource = await self._resource(api_version, kind)
        call = getattr(self._dynamic, verb)(resource, _request_timeout=REQUEST_TIMEOUT, **arguments)
        return await self._translated(what, call)

    async def _resource(self, api_version: str, kind: str) -> Any:
        try:
            return await self._dynamic.resources.get(api_version=api_version, kind=kind)
        except ResourceNotFoundError as error:
            message = f"the cluster knows no {kind} of {api_version}: are the CRDs installed?"
            raise KubeError(message, NOT_FOUND) from error
        except ApiException as error:
            raise from_api_exception(error, f"cannot find out about {kind}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubeError(f"the API server does not answer: {error!r}") from error

    async def _translated(self, what: str, call: Any) -> Manifest:
        try:
            answer = await call
        except ApiException as error:
            raise from_api_exception(error, what) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubeError(f"{what}: the API server does not answer: {error!r}") from error
        found: Manifest = answer.to_dict()
        return found


@asynccontextmanager
async def open_client(manager: str) -> AsyncIterator[KubeClient]:
    """Connect as the pod's service account, or else as `KUBECONFIG` says.

    Raises:
        KubeError: There is neither, or the server does not answer.
    """
    configuration = Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise KubeError(f"no cluster to talk to: {error}") from error
    with tempfile.TemporaryDirectory(prefix="prokos-kube-") as directory:
        # What the server offers is kept for this process alone: a file that many share may speak of another server.
        async with ApiClient(configuration=configuration) as api:
            try:
                dynamic = await DynamicClient(api, cache_file=str(Path(directory) / "discovery.json"))
            except (ApiException, aiohttp.ClientError, TimeoutError) as error:
                raise KubeError(f"the API server {configuration.host} does not answer: {error!r}") from error
            yield KubeClient(dynamic, manager)


def _named(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return f"{manifest['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
