"""Whether the workloads of a manifest run, and what holds them up. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from prokos.k8s.diagnose import pod_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prokos.kube import Manifest

WORKLOADS = frozenset({"StatefulSet", "Deployment"})

MANAGERS = {
    "helm.toolkit.fluxcd.io/name": "Flux",
    "argocd.argoproj.io/instance": "Argo CD",
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "fleet.cattle.io/bundle-id": "Fleet",
}
"""Labels and annotations that tools put on the objects they keep."""


def read_objects(manifest: str) -> list[Manifest]:
    """The objects of a release, as `helm get manifest` writes them."""
    documents = yaml.load_all(manifest, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [document for document in documents if isinstance(document, dict) and "kind" in document]


def manager_of(objects: Iterable[Manifest]) -> str | None:
    """The tool that keeps these objects, by its marks on them."""
    for found in objects:
        metadata = found["metadata"]
        for mark in {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}:
            if mark in MANAGERS:
                return MANAGERS[mark]
    return None


def is_rolled_out(workload: Manifest) -> bool:
    """Whether all pods of a StatefulSet or Deployment run as its newest template says."""
    spec, status = workload["spec"], workload.get("status", {})
    replicas = spec.get("replicas", 1)
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return False
    if status.get("readyReplicas", 0) < replicas or status.get("updatedReplicas", 0) < replicas:
        return False
    return bool(status.get("replicas", 0) == replicas)


def has_ready_pods(workload: Manifest) -> bool:
    """Whether a workload does its work at least in part."""
    if workload["spec"].get("replicas", 1) == 0:
        return True
    return bool(workload.get("status", {}).get("readyReplicas", 0))


def pod_selector(workload: Manifest) -> str:
    """Label selector of a workload's pods."""
    return ",".join(f"{key}={value}" for key, value in sorted(workload["spec"]["selector"]["matchLabels"].items()))


def explain_rollout(workload: Manifest, pods: Sequence[Manifest], events: Iterable[Manifest]) -> tuple[str, str]:
    """Why a workload is not rolled out: reason and message.

    Args:
        workload: The workload.
        pods: Its pods.
        events: Events of its namespace.
    """
    name = f"{workload['kind']} {workload['metadata']['name']}"
    for pod in pods:
        if problem := pod_problem(pod):
            return problem
    if not pods:
        uid = workload["metadata"].get("uid")
        about = [event for event in events if event["involvedObject"].get("uid") == uid and event["type"] == "Warning"]
        if about:
            newest = max(about, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
            return newest["reason"], f"{name} gets no pods: {newest['message']}"
    ready = workload.get("status", {}).get("readyReplicas", 0)
    return "Progressing", f"{ready} of {workload['spec'].get('replicas', 1)} pods of {name} are ready"
