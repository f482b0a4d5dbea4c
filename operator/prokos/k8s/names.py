"""Names and labels of the objects the operator makes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prokos import __version__
from prokos.registry.cluster import SYSTEM_LABEL

if TYPE_CHECKING:
    from prokos.kube import Manifest

EXECUTOR_LABEL = "prokos.io/executor"
REVISION_LABEL = "prokos.io/revision"
COMPONENT_LABEL = "app.kubernetes.io/component"

WORKER = "worker"
PDO = "pdo"
ROUTER = "router"

STATUS_PORT = 8080
"""Where PDO, and operator, answer `/healthz`, `/status` and `/metrics`."""

METRICS_PORT = 9464
"""Where a worker answers `/metrics`; the port of OpenTelemetry's Prometheus exporters."""

HINTS_PORT = 26600
"""Where the PDO takes hints of workers."""

GATEWAY_PORT = 26500
"""The engine's gRPC port unless its address says another."""


def worker_name(executor: str) -> str:
    """Name of an executor's Deployment, ServiceAccount and NetworkPolicy."""
    return f"{executor}-tde"


def part_name(system: str, part: str) -> str:
    """Name of the objects of a system's PDO or router."""
    return f"{system}-{part}"


def selector_labels(system: str, component: str, executor: str | None = None) -> dict[str, str]:
    """Labels that tell the pods of one part from all others; they never change."""
    labels = {SYSTEM_LABEL: system, COMPONENT_LABEL: component}
    return {**labels, EXECUTOR_LABEL: executor} if executor else labels


def object_labels(system: str, component: str, executor: str | None = None) -> dict[str, str]:
    """All labels of an object; see https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/."""
    return {
        "app.kubernetes.io/name": "prokos",
        "app.kubernetes.io/instance": system,
        "app.kubernetes.io/part-of": "prokos",
        "app.kubernetes.io/managed-by": "prokos",
        "app.kubernetes.io/version": __version__,
        **selector_labels(system, component, executor),
    }


def label_selector(labels: dict[str, str]) -> str:
    """Labels as a selector of the API."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def owned_metadata(name: str, namespace: str, labels: dict[str, str], owner: Manifest) -> Manifest:
    """Metadata of an object that goes with its owner."""
    return {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner]}
