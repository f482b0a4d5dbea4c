"""Whether workloads run as their newest template says, and what is said when they do not."""

from __future__ import annotations

from typing import Any

import pytest

from prokos.k8s.rollout import explain_rollout, has_ready_pods, is_rolled_out, manager_of, pod_selector, read_objects

DONE = {"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}


def workload(**status: int) -> dict[str, Any]:
    return {
        "kind": "StatefulSet",
        "metadata": {"name": "pdo-zeebe", "generation": 2, "uid": "u1"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"}}},
        "status": {**DONE, **status},
    }


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "pdo-zeebe-0"}, "status": status}


@pytest.mark.parametrize(
    ("status", "done", "running"),
    [
        ({}, True, True),
        ({"observedGeneration": 1}, False, True),
        ({"readyReplicas": 2}, False, True),
        ({"updatedReplicas": 1}, False, True),
        ({"replicas": 4}, False, True),
        ({"readyReplicas": 0}, False, False),
    ],
)
def test_is_rolled_out_when_all_pods_are_new_and_ready(status: dict[str, int], done: bool, running: bool) -> None:
    assert is_rolled_out(workload(**status)) is done
    assert has_ready_pods(workload(**status)) is running


def test_a_workload_of_no_pods_is_rolled_out() -> None:
    nothing: dict[str, Any] = {"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 0}}
    nothing["status"] = {"observedGeneration": 1}
    assert is_rolled_out(nothing)
    assert has_ready_pods(nothing)


def test_reads_the_objects_of_a_manifest() -> None:
    text = "---\n# Source: a\nkind: ConfigMap\nmetadata: {name: a}\n---\n\n---\nkind: Service\nmetadata: {name: b}\n"
    assert [found["kind"] for found in read_objects(text)] == ["ConfigMap", "Service"]


def test_selector_names_all_labels() -> None:
    assert pod_selector(workload()) == "a=1,b=2"


def test_says_what_a_pod_waits_for() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    reason, message = explain_rollout(workload(readyReplicas=0), [pod(containerStatuses=[{"state": waiting}])], [])
    assert reason == "ImagePullBackOff"
    assert "no such image" in message


def test_says_why_there_are_no_pods() -> None:
    about = {"uid": "u1"}
    events = [
        {"type": "Warning", "reason": "FailedCreate", "message": "old", "involvedObject": about, "lastTimestamp": "1"},
        {
            "type": "Warning",
            "reason": "FailedCreate",
            "message": "quota",
            "involvedObject": about,
            "lastTimestamp": "2",
        },
        {"type": "Warning", "reason": "Other", "message": "no", "involvedObject": {"uid": "u2"}, "lastTimestamp": "3"},
    ]
    reason, message = explain_rollout(workload(readyReplicas=0), [], events)
    assert (reason, message) == ("FailedCreate", "StatefulSet pdo-zeebe gets no pods: quota")


def test_progress_is_told_in_numbers() -> None:
    assert explain_rollout(workload(readyReplicas=2), [pod()], []) == (
        "Progressing",
        "2 of 3 pods of StatefulSet pdo-zeebe are ready",
    )


@pytest.mark.parametrize(
    ("metadata", "manager"),
    [
        ({"labels": {"helm.toolkit.fluxcd.io/name": "engine"}}, "Flux"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": None}, None),
    ],
)
def test_recognizes_the_marks_of_other_tools(metadata: dict[str, Any], manager: str | None) -> None:
    assert manager_of([{"metadata": metadata}]) == manager
