"""What is wrong with pods and Deployments, in words that say what to do. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prokos.k8s.conditions import Statement
from prokos.k8s.names import REVISION_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prokos.kube import Manifest

CONFIG_ERROR = 78
"""EX_CONFIG of sysexits.h: how our programs end when they cannot run as they are told to."""

REMEDIES = {
    "ImagePullBackOff": "check the image's name and the pull secrets (spec.pod)",
    "ErrImagePull": "check the image's name and the pull secrets (spec.pod)",
    "InvalidImageName": "correct the image's name (spec.pod.image)",
    "ErrImageNeverPull": "load the image onto the node, or change spec.pod.imagePullPolicy",
    "CreateContainerConfigError": "create what the message names",
    "CrashLoopBackOff": "see the pod's log",
    "RunContainerError": "see the events of the pod",
}
"""Reasons for which containers wait that need a person; others pass."""


def pod_problem(pod: Manifest) -> tuple[str, str] | None:
    """Why a pod will not run unless somebody does something: reason and message; None if it runs or may yet."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            message = f"pod {name} has no node: {condition.get('message', '')}"
            return condition.get("reason", "Unschedulable"), message
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting")
        if waiting and (remedy := REMEDIES.get(waiting.get("reason", ""))):
            said = waiting.get("message") or waiting["reason"]
            ended = container.get("lastState", {}).get("terminated") or {}
            if code := ended.get("exitCode"):
                said = f"its last run ended with {code}"
                remedy = f"see kubectl logs {name} --previous"
                if code == CONFIG_ERROR:
                    said = "its settings do not work for it"
            return waiting["reason"], f"pod {name}: {said}; {remedy}"
    return None


def is_ready(pod: Manifest) -> bool:
    """Whether a pod takes tasks."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def deployment_statement(
    kind: str, deployment: Manifest | None, pods: Sequence[Manifest], *, missing_secrets: Iterable[str] = ()
) -> Statement:
    """Whether the pods of a Deployment run as its newest template says.

    Args:
        kind: Type of the condition.
        deployment: The Deployment; None while there is none.
        pods: Its pods.
        missing_secrets: What Secrets lack that its pods need.
    """
    if missing := list(missing_secrets):
        return Statement(kind, "False", "SecretMissing", "; ".join(missing))
    if deployment is None:
        return Statement(kind, "False", "NotCreated", "the Deployment is not there yet", transient=True)
    wanted = deployment["spec"].get("replicas", 1)
    status = deployment.get("status", {})
    ready = status.get("readyReplicas", 0)
    revision = deployment["spec"]["template"]["metadata"].get("labels", {}).get(REVISION_LABEL)
    current = [pod for pod in pods if pod["metadata"].get("labels", {}).get(REVISION_LABEL) == revision]
    for pod in current:
        if problem := pod_problem(pod):
            return Statement(kind, "False", problem[0], problem[1])
    for condition in status.get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Statement(kind, "False", "PodsRefused", condition.get("message", ""))
        if condition["type"] == "Progressing" and condition["status"] == "False":
            return Statement(kind, "False", "RolloutStuck", f"{ready} of {wanted} pods are ready after a long time")
    observed = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    if observed and ready >= wanted and status.get("updatedReplicas", 0) >= wanted:
        return Statement(kind, "True", "Running" if wanted else "ScaledToZero", f"{ready} of {wanted} pods are ready")
    return Statement(kind, "False", "Progressing", f"{ready} of {wanted} pods are ready", transient=True)
