"""PDO and router as objects: Deployment, Service, account with its Role, disruption budget, NetworkPolicy. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prokos.engine.connection import REFERENCES
from prokos.k8s.names import (
    HINTS_PORT,
    PDO,
    ROUTER,
    STATUS_PORT,
    WORKER,
    object_labels,
    owned_metadata,
    part_name,
    selector_labels,
)
from prokos.k8s.network import host_egress, name_service, network_policy
from prokos.k8s.pods import container, pod_template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.k8s.engine_access import PodAccess
    from prokos.kube import Manifest
    from prokos.registry.cluster import SystemRef
    from prokos.resources import ProkOSSpec
    from prokos.resources.engine_settings import ExternalEngine

GRACE = 15
"""Seconds PDO and router have to end; what they had in flight stays with the engine."""

REGISTRY_RULES: list[Manifest] = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["prokos.io"], "resources": ["taskroutes"], "verbs": ["get", "list", "watch"]},
]
"""What reading the registry takes."""

ROUTE_RULES: list[Manifest] = [
    {"apiGroups": ["prokos.io"], "resources": ["taskroutes"], "verbs": ["create", "update"]},
]
"""What keeping decisions of the router takes besides."""


def build_pdo(
    system: SystemRef, spec: ProkOSSpec, image: str, engine: ExternalEngine, access: PodAccess
) -> list[Manifest]:
    """Desired objects of the PDO, in the order in which they are needed."""
    name, labels = part_name(system.name, PDO), object_labels(system.name, PDO)
    selector = selector_labels(system.name, PDO)
    environment = {
        "PROKOS_PDO_ADDRESS": f"0.0.0.0:{STATUS_PORT}",
        "PROKOS_HINTS_ADDRESS": f"0.0.0.0:{HINTS_PORT}",
    }
    pod = container(
        PDO,
        spec.pdo.pod.image or image,
        ["python", "-m", "prokos.pdo"],
        settings=spec.pdo.pod,
        environment=_environment(system, environment, access),
        mounts=access.mounts,
        ports=[{"name": "status", "containerPort": STATUS_PORT}, {"name": "hints", "containerPort": HINTS_PORT}],
        startupProbe=_probe("/healthz", periodSeconds=1, failureThreshold=120),
        readinessProbe=_probe("/healthz", periodSeconds=5),
        livenessProbe=_probe("/healthz", periodSeconds=10, timeoutSeconds=5),
    )
    template = pod_template(
        labels=labels,
        # A PDO reads its own settings when it starts.
        annotations={"prokos.io/settings": _digest([spec.pdo.model_dump(mode="json"), spec.router.mode])},
        service_account=name,
        settings=spec.pdo.pod,
        containers=[pod],
        volumes=access.volumes,
        grace=GRACE,
        token=True,
    )
    ingress: list[Manifest] = [
        {
            "from": [{"podSelector": {"matchLabels": selector_labels(system.name, WORKER)}}],
            "ports": [{"port": HINTS_PORT, "protocol": "TCP"}],
        },
        # The status API is read by the operator and by Prometheus, wherever they run; it shows no variables.
        {"ports": [{"port": STATUS_PORT, "protocol": "TCP"}]},
    ]
    objects = [
        *_account(system, name, labels, [*REGISTRY_RULES, *ROUTE_RULES]),
        network_policy(
            owned_metadata(name, system.namespace, labels, system.owner),
            selector,
            [name_service(), api_server(), _gateway(engine, system.namespace)],
            ingress,
        ),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": owned_metadata(name, system.namespace, labels, system.owner),
            "spec": {
                # Without an address of its own: a hint goes to every replica, since the worker does not know whose
                # task it was.
                "clusterIP": "None",
                "selector": selector,
                "ports": [
                    {"name": "status", "port": STATUS_PORT, "targetPort": "status"},
                    {"name": "hints", "port": HINTS_PORT, "targetPort": "hints"},
                ],
            },
        },
        _deployment(system, name, labels, selector, spec.pdo.replicas, template),
    ]
    if spec.pdo.replicas > 1:
        objects.append(
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": owned_metadata(name, system.namespace, labels, system.owner),
                "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}},
            }
        )
    return objects


def build_router(
    system: SystemRef, spec: ProkOSSpec, image: str, engine: ExternalEngine, access: PodAccess
) -> list[Manifest]:
    """Desired objects of the router; none unless a model decides routes."""
    if spec.router.mode != "llm":
        return []
    name, labels = part_name(system.name, ROUTER), object_labels(system.name, ROUTER)
    selector = selector_labels(system.name, ROUTER)
    volumes, mounts = list(access.volumes), list(access.mounts)
    if spec.router.api_key and (reference := spec.router.api_key.secret_key_ref):
        path = f"{REFERENCES}/{reference.name}"
        items = [{"key": reference.key, "path": reference.key}]
        # Without its key the router runs and says so; tasks go to the fallback.
        secret = {"secretName": reference.name, "items": items, "defaultMode": 0o440, "optional": True}
        volumes.append({"name": "model-key", "secret": secret})
        mounts.append({"name": "model-key", "mountPath": path, "readOnly": True})
    pod = container(
        ROUTER,
        spec.router.pod.image or image,
        ["python", "-m", "prokos.router"],
        settings=spec.router.pod,
        environment=_environment(system, {"HOME": "/tmp"}, access),  # noqa: S108 - an emptyDir of the pod's own
        mounts=mounts,
    )
    template = pod_template(
        labels=labels,
        annotations={"prokos.io/settings": _digest([spec.router.model_dump(mode="json")])},
        service_account=name,
        settings=spec.router.pod,
        containers=[pod],
        volumes=volumes,
        grace=GRACE,
        token=True,
    )
    return [
        *_account(system, name, labels, REGISTRY_RULES),
        network_policy(
            owned_metadata(name, system.namespace, labels, system.owner),
            selector,
            [
                name_service(),
                api_server(),
                _gateway(engine, system.namespace),
                _provider(spec.router.endpoint, system.namespace),
            ],
        ),
        _deployment(system, name, labels, selector, 1, template),
    ]


def _provider(endpoint: str | None, namespace: str) -> Manifest:
    """The model's provider: where the endpoint says, or else anywhere by HTTPS, as the model's name decides."""
    if endpoint is None:
        return {"ports": [{"port": 443, "protocol": "TCP"}]}
    url = urlsplit(endpoint)
    return host_egress(url.hostname or "", url.port or (443 if url.scheme == "https" else 80), namespace)


def api_server() -> Manifest:
    """The API server; behind its Service it has an address of a node or of the provider, which nobody here knows."""
    return {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]}


def _gateway(engine: ExternalEngine, namespace: str) -> Manifest:
    host, _, port = engine.address.rpartition(":")
    return host_egress(host, int(port), namespace)


def _environment(system: SystemRef, values: Mapping[str, str], access: PodAccess) -> list[Manifest]:
    all_values = {
        **values,
        "PROKOS_LOG_FORMAT": "json",
        "PROKOS_SYSTEM_NAMESPACE": system.namespace,
        "PROKOS_SYSTEM_NAME": system.name,
        "PROKOS_SYSTEM_UID": system.uid,
        "MALLOC_ARENA_MAX": "2",
    }
    return [*({"name": key, "value": value} for key, value in sorted(all_values.items())), *access.environment]


def _account(system: SystemRef, name: str, labels: dict[str, str], rules: list[Manifest]) -> list[Manifest]:
    metadata = owned_metadata(name, system.namespace, labels, system.owner)
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata,
            "automountServiceAccountToken": False,
        },
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": system.namespace}],
        },
    ]


def _deployment(
    system: SystemRef, name: str, labels: dict[str, str], selector: dict[str, str], replicas: int, template: Manifest
) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owned_metadata(name, system.namespace, labels, system.owner),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }


def _probe(path: str, **more: int) -> Manifest:
    return {"httpGet": {"path": path, "port": "status"}, **more}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
