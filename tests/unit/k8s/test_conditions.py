"""Conditions, and what pods say."""

from __future__ import annotations

import pytest

from prokos.k8s.conditions import Statement, merge_conditions, summary
from prokos.k8s.diagnose import deployment_statement, pod_problem
from unit.k8s.manifests import deployment, pod, waiting

THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
TRUE = Statement("Ready", "True", "Ready")
FALSE = Statement("Ready", "False", "Broken", "mend it")


def merged(before, now, generation=1):
    (condition,) = merge_conditions(before, [now], generation, NOW)
    return condition


NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
BEFORE = merge_conditions([], [TRUE], 1, THEN)


def test_the_time_is_that_of_the_last_change_of_the_status():
    assert merged(BEFORE, Statement("Ready", "True", "StillReady"))["lastTransitionTime"] == THEN
    assert merged(BEFORE, FALSE)["lastTransitionTime"] == NOW


def test_ready_does_not_flap_on_what_passes_by_itself():
    passing = Statement("Ready", "False", "Progressing", transient=True)
    assert merged(BEFORE, passing) == BEFORE[0]
    assert merged(BEFORE, passing, generation=2)["status"] == "False", "a new spec is not ready yet"
    assert merged([], passing)["status"] == "False"


def test_the_summary_is_the_first_that_is_not_well():
    assert summary([TRUE, FALSE, Statement("X", "False", "Other")]).reason == "Broken"
    assert summary([TRUE]).status == "True"


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (waiting("ImagePullBackOff", "no such image x"), "ImagePullBackOff", ["no such image x", "spec.pod"]),
        (waiting("CreateContainerConfigError", 'secret "s" not found'), "CreateContainerConfigError", ["secret"]),
        (waiting("CrashLoopBackOff", "back-off", 78), "CrashLoopBackOff", ["settings", "--previous"]),
        (waiting("CrashLoopBackOff", "back-off", 1), "CrashLoopBackOff", ["ended with 1"]),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no cpu"}
                ]
            },
            "Unschedulable",
            ["no node", "no cpu"],
        ),
    ],
)
def test_what_needs_a_person_is_said(status, reason, words):
    found = pod_problem(pod(**status))
    assert found is not None
    assert found[0] == reason
    assert all(word in found[1] for word in words)


def test_what_passes_is_no_problem():
    assert pod_problem(pod(**waiting("ContainerCreating"))) is None


def said(*arguments, **more):
    statement = deployment_statement("WorkersReady", *arguments, **more)
    return statement.status, statement.reason, statement.transient


def test_a_deployment():
    assert said(deployment(), [pod()]) == ("True", "Running", False)
    assert said(deployment(replicas=0, ready=0), []) == ("True", "ScaledToZero", False)
    assert said(None, []) == ("False", "NotCreated", True)
    assert said(deployment(replicas=2, ready=1), []) == ("False", "Progressing", True)
    assert said(deployment(observedGeneration=2), []) == ("False", "Progressing", True)
    assert said(deployment(), [], missing_secrets=["no Secret x"]) == ("False", "SecretMissing", False)


def test_a_new_revision_that_cannot_start_is_told_while_the_old_one_runs():
    pods = [pod("old", "r1"), pod("new", "r2", **waiting("ErrImagePull"))]
    assert said(deployment(revision="r2", updatedReplicas=0), pods) == ("False", "ErrImagePull", False)


def test_an_old_pod_that_is_broken_does_not_matter():
    assert said(deployment(), [pod(), pod("old", "r0", **waiting("CrashLoopBackOff"))])[0] == "True"
