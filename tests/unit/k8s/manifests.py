"""Objects as the API server has them, for tests of the cluster home."""

from __future__ import annotations

from typing import Any

from prokos.k8s.engine_access import pod_access
from prokos.k8s.workers import WorkerContext
from prokos.registry.cluster import SystemRef
from prokos.resources.engine_settings import ExternalEngine
from prokos.resources.pods import PodSettings

SYSTEM = SystemRef("shop", "demo", "uid-demo")
ENGINE = ExternalEngine(address="zeebe.engines.svc:26500")


def resource(kind: str, name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """One of our resources."""
    return {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": 1, **metadata},
        "spec": spec or {},
    }


def context(engine: ExternalEngine = ENGINE, **defaults: Any) -> WorkerContext:
    """What the executors of a system share."""
    return WorkerContext(
        system="demo",
        namespace="shop",
        image="prokos/worker:1",
        defaults=PodSettings.model_validate(defaults),
        engine=engine,
        access=pod_access(engine),
    )


def deployment(name: str = "payer-tde", replicas: int = 1, ready: int = 1, revision: str = "r1", **status: Any) -> Any:
    """A Deployment whose controller has seen its newest generation."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "generation": 3},
        "spec": {
            "replicas": replicas,
            "template": {"metadata": {"labels": {"prokos.io/revision": revision}}},
        },
        "status": {
            "observedGeneration": 3,
            "replicas": replicas,
            "readyReplicas": ready,
            "updatedReplicas": replicas,
            **status,
        },
    }


def pod(name: str = "payer-tde-1", revision: str = "r1", **status: Any) -> dict[str, Any]:
    """A pod of that Deployment."""
    return {"metadata": {"name": name, "labels": {"prokos.io/revision": revision}}, "status": status}


def waiting(reason: str, message: str = "", exit_code: int | None = None) -> dict[str, Any]:
    """Status of a pod whose container waits."""
    last = {"terminated": {"exitCode": exit_code}} if exit_code is not None else {}
    return {
        "containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}, "lastState": last}],
    }
