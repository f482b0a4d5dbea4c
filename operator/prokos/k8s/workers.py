"""A TaskExecutor as objects: ConfigMap, ServiceAccount, NetworkPolicy and its worker pods. Pure.

The pods are those of a Deployment, or, with `scaling.podPerTask`, of Kubernetes Jobs that are made as tasks come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prokos.k8s.names import (
    HINTS_PORT,
    METRICS_PORT,
    PDO,
    REVISION_LABEL,
    WORKER,
    object_labels,
    owned_metadata,
    part_name,
    selector_labels,
    worker_name,
)
from prokos.k8s.network import executor_egress, hints_egress, host_egress, name_service, network_policy
from prokos.k8s.pods import TEMPORARY_SPACE, container, merged, pod_template
from prokos.resources import API_VERSION
from prokos.resources.script_settings import size_in_bytes
from prokos.tde.deployment import build_worker_deployment
from prokos.tde.script.executor import SCRIPTS
from prokos.tde.secrets import MOUNT

if TYPE_CHECKING:
    from prokos.k8s.engine_access import PodAccess
    from prokos.kube import Manifest
    from prokos.resources import TaskExecutor
    from prokos.resources.engine_settings import ExternalEngine
    from prokos.resources.pods import PodSettings
    from prokos.tde.deployment import WorkerDeployment

DOCUMENT = "/etc/prokos/executor/executor.json"
WORK = "/work"
STATE = "/run/prokos"
READY = f"{STATE}/ready"

LONGEST_GRACE = 600
"""Longest time in seconds that a worker which is replaced may take to end its tasks."""

GRACE_MARGIN = 10
"""Seconds a pod has beyond its worker's own grace, to report and hang up."""

START = 120
"""Seconds a worker may take to be ready."""

START_MARGIN = 30
"""The same beyond `container.startTimeout`."""

ALIVE = 60
"""Seconds without a sign of life after which a worker is started again."""


@dataclass(frozen=True)
class WorkerContext:
    """What the workers of a system share."""

    system: str
    namespace: str
    image: str
    """The image that comes with this version of the operator."""
    defaults: PodSettings
    engine: ExternalEngine
    access: PodAccess


SINGLE_USE_KEPT = 300
"""Seconds a Job that has ended is kept, with its pod's log and state."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all objects of an executor agree on."""

    name: str
    labels: dict[str, str]
    document: str
    """Name of the ConfigMap that holds what the worker reads."""
    worker: WorkerDeployment


def _plan(executor: TaskExecutor, context: WorkerContext) -> _Plan:
    worker = build_worker_deployment(
        executor.model_copy(update={"status": None}),
        {"PROKOS_SINGLE_USE": "1"} if executor.spec.scaling.pod_per_task else {},
        f"{part_name(context.system, PDO)}.{context.namespace}.svc:{HINTS_PORT}",
    )
    name = worker_name(executor.metadata.name)
    labels = object_labels(context.system, WORKER, executor.metadata.name)
    return _Plan(name, labels, f"{name}-{worker.revision}", worker)


def worker_revision(executor: TaskExecutor, context: WorkerContext) -> str:
    """The label that tells workers that read the executor as it is from those that read it before a change."""
    return _plan(executor, context).worker.revision


def build_workers(executor: TaskExecutor, owner: Manifest, context: WorkerContext, replicas: int) -> list[Manifest]:
    """Desired objects of an executor, in the order in which they are needed, but for Jobs.

    Args:
        executor: The resource.
        owner: Owner reference to it.
        context: What all executors of the system share.
        replicas: Worker pods that shall run.
    """
    plan = _plan(executor, context)
    name, labels, revision = plan.name, plan.labels, plan.worker.revision
    selector = selector_labels(context.system, WORKER, executor.metadata.name)
    objects: list[Manifest] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": owned_metadata(plan.document, context.namespace, {**labels, REVISION_LABEL: revision}, owner),
            "immutable": True,
            "data": {"executor.json": plan.worker.document},
        },
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": owned_metadata(name, context.namespace, labels, owner),
            "automountServiceAccountToken": False,
        },
    ]
    if executor.spec.network.policy == "Managed":
        host, _, port = context.engine.address.rpartition(":")
        egress = [
            name_service(),
            host_egress(host, int(port), context.namespace),
            hints_egress(context.system),
            *executor_egress(executor, context.namespace),
        ]
        ingress: list[Manifest] = [{"ports": [{"port": METRICS_PORT, "protocol": "TCP"}]}]
        metadata = owned_metadata(name, context.namespace, labels, owner)
        objects.append(network_policy(metadata, selector, egress, ingress))
    if executor.spec.scaling.pod_per_task:
        return objects
    deployment: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owned_metadata(name, context.namespace, labels, owner),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            # A worker is replaced when its successor takes tasks, so that none waits for a roll-out.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": _template(executor, context, plan),
        },
    }
    return [*objects, deployment]


def build_single_use(executor: TaskExecutor, owner: Manifest, context: WorkerContext, suffix: str) -> Manifest:
    """A Job whose one pod takes one task, and ends; the suffix tells it from the others of its executor.

    It is not tried again: a task whose pod broke comes back to another one when its lease is over.
    """
    plan = _plan(executor, context)
    template = _template(executor, context, plan)
    pod = template["spec"]
    pod["restartPolicy"] = "Never"
    # Ours is the container that ends. One beside it must not keep the pod: as a sidecar it goes when the worker has.
    worker, *beside = pod["containers"]
    pod["containers"] = [worker]
    if beside:
        pod["initContainers"] = [{**one, "restartPolicy": "Always"} for one in beside]
    labels = {**plan.labels, REVISION_LABEL: plan.worker.revision}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": owned_metadata(f"{plan.name}-{suffix}", context.namespace, labels, owner),
        "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": SINGLE_USE_KEPT, "template": template},
    }


def _template(executor: TaskExecutor, context: WorkerContext, plan: _Plan) -> Manifest:
    settings = merged(executor.spec.pod, context.defaults)
    grace = min(int(executor.spec.timeout.total_seconds()) + 1, LONGEST_GRACE)
    values = {
        **plan.worker.environment,
        "PROKOS_EXECUTOR_FILE": DOCUMENT,
        "PROKOS_WORKDIR": WORK,
        "PROKOS_READY_FILE": READY,
        "PROKOS_GRACE": str(grace),
        "PROKOS_METRICS_ADDRESS": f"0.0.0.0:{METRICS_PORT}",
        "HOME": WORK,
        "MALLOC_ARENA_MAX": "2",
    }
    volumes: list[Manifest] = [
        {"name": "executor", "configMap": {"name": plan.document}},
        {"name": "work", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "state", "emptyDir": {"sizeLimit": "1Mi"}},
        *context.access.volumes,
    ]
    mounts: list[Manifest] = [
        {"name": "executor", "mountPath": DOCUMENT.rpartition("/")[0], "readOnly": True},
        {"name": "work", "mountPath": WORK},
        {"name": "state", "mountPath": STATE},
        *context.access.mounts,
    ]
    if executor.spec.script is not None and (reference := executor.spec.script.config_map_ref):
        items = [{"key": reference.key, "path": reference.key}]
        volumes.append({"name": "script", "configMap": {"name": reference.name, "items": items}})
        mounts.append({"name": "script", "mountPath": str(SCRIPTS), "readOnly": True})
    if secrets := _secret_sources(executor):
        volumes.append({"name": "secrets", "projected": {"defaultMode": 0o440, "sources": secrets}})
        mounts.append({"name": "secrets", "mountPath": str(MOUNT), "readOnly": True})
    worker = container(
        WORKER,
        settings.image or context.image,
        ["python", "-m", "prokos.tde"],
        settings=settings,
        environment=[
            *({"name": key, "value": value} for key, value in sorted(values.items())),
            *context.access.environment,
        ],
        mounts=mounts,
        ports=[{"name": "metrics", "containerPort": METRICS_PORT}],
        startupProbe={
            "exec": {"command": ["test", "-f", READY]},
            "periodSeconds": 1,
            "failureThreshold": _start_seconds(executor),
        },
        readinessProbe={"exec": {"command": ["test", "-f", READY]}, "periodSeconds": 10},
        livenessProbe={
            "exec": {"command": ["sh", "-c", f"test -n \"$(find {READY} -newermt '-{ALIVE} seconds')\""]},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
        },
    )
    containers = [worker, *_beside(executor, settings)]
    return pod_template(
        labels={**plan.labels, REVISION_LABEL: plan.worker.revision},
        annotations={},
        service_account=plan.name,
        settings=settings,
        containers=containers,
        volumes=volumes,
        grace=grace + GRACE_MARGIN,
        temporary=_temporary_space(executor),
    )


def _temporary_space(executor: TaskExecutor) -> int:
    """Bytes: scripts have their directories in /tmp, and one that keeps to its limit must not cost the pod."""
    script = executor.spec.script
    scripts = 0 if script is None else executor.spec.concurrency * size_in_bytes(script.limits.disk)
    return TEMPORARY_SPACE + scripts


def _start_seconds(executor: TaskExecutor) -> int:
    """How long a worker may take to be ready: what ends it then says nothing, so its own time-outs come before."""
    settings = executor.spec.container
    return START if settings is None else START_MARGIN + math.ceil(settings.start_timeout.total_seconds())


def _beside(executor: TaskExecutor, pod: PodSettings) -> list[Manifest]:
    """The user's own container of an executor of type `container`: as restricted as the worker, and with no mounts."""
    if (settings := executor.spec.container) is None:
        return []
    references = {secret.name: secret.secret_key_ref for secret in executor.spec.secrets}
    environment: list[Manifest] = [{"name": name, "value": value} for name, value in sorted(settings.env.items())]
    for name, secret in sorted(settings.secret_env.items()):
        if reference := references.get(secret):
            source = {"secretKeyRef": {"name": reference.name, "key": reference.key}}
            environment.append({"name": name, "valueFrom": source})
    built = container(
        "executor",
        settings.image,
        settings.command,
        settings=pod.model_copy(update={"resources": settings.resources}),
        environment=environment,
        mounts=[{"name": "work", "mountPath": WORK}],
    )
    if not settings.command:
        del built["command"]
    return [built]


def _secret_sources(executor: TaskExecutor) -> list[Manifest]:
    """Each declared Secret key as one file, named as the executor's settings name it."""
    return [
        {
            "secret": {
                "name": secret.secret_key_ref.name,
                "items": [{"key": secret.secret_key_ref.key, "path": secret.name}],
            }
        }
        for secret in executor.spec.secrets
        if secret.secret_key_ref is not None
    ]


def executor_owner(executor_manifest: Manifest) -> Manifest:
    """Owner reference to a TaskExecutor: its pods go with it."""
    metadata = executor_manifest["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "TaskExecutor",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
