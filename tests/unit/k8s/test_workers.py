"""Worker pods: restricted, rolled out when and only when a worker would notice."""

from __future__ import annotations

import json

import pytest

from prokos.k8s.workers import build_workers
from unit.builders import executor
from unit.k8s.manifests import context

OWNER = {"apiVersion": "prokos.io/v1alpha1", "kind": "TaskExecutor", "name": "payer", "uid": "1", "controller": True}


def built(one=None, replicas=1, **defaults):
    objects = build_workers(one or executor(), OWNER, context(**defaults), replicas)
    return {manifest["kind"]: manifest for manifest in objects}


def template(one=None, **defaults):
    return built(one, **defaults)["Deployment"]["spec"]["template"]


def container(one=None, **defaults):
    (found,) = template(one, **defaults)["spec"]["containers"]
    return found


def environment(one=None):
    return {entry["name"]: entry.get("value") for entry in container(one)["env"]}


def revision(one):
    return template(one)["metadata"]["labels"]["prokos.io/revision"]


@pytest.mark.parametrize(
    ("one", "mebibytes"),
    [
        (executor(), 256 + 4 * 1024),
        (executor(concurrency=2, script={"command": ["true"], "limits": {"disk": "10Mi"}}), 256 + 20),
        (executor(type="http", script=None, http={"url": "https://example.com"}), 256),
    ],
)
def test_a_script_that_keeps_to_its_limit_costs_no_pod(one, mebibytes):
    (volume,) = [volume for volume in template(one)["spec"]["volumes"] if volume["name"] == "tmp"]
    assert volume["emptyDir"] == {"sizeLimit": str(mebibytes * 2**20)}


def test_meets_what_pod_security_restricted_asks():
    pod, worker = template()["spec"], container()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert worker["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert worker["resources"]["limits"]["memory"]


def test_has_no_token():
    assert template()["spec"]["automountServiceAccountToken"] is False
    assert built()["ServiceAccount"]["automountServiceAccountToken"] is False


def test_everything_is_owned_by_the_executor_and_labelled():
    for manifest in built().values():
        assert manifest["metadata"]["ownerReferences"] == [OWNER]
        assert manifest["metadata"]["labels"]["prokos.io/executor"] == "payer"
        assert manifest["metadata"]["namespace"] == "shop"


def test_the_document_is_what_the_worker_reads():
    one = executor(timeout="7s")
    objects = built(one)
    document = json.loads(objects["ConfigMap"]["data"]["executor.json"])
    assert document["spec"]["timeout"] == "7s"
    volume = template(one)["spec"]["volumes"][0]
    assert volume == {"name": "executor", "configMap": {"name": objects["ConfigMap"]["metadata"]["name"]}}
    assert objects["ConfigMap"]["immutable"] is True


@pytest.mark.parametrize("change", [{"timeout": "9s"}, {"script": {"command": ["false"]}}, {"concurrency": 9}])
def test_a_change_that_a_worker_notices_is_another_revision(change):
    assert revision(executor(**change)) != revision(executor())


@pytest.mark.parametrize(
    "change",
    [{"replicas": 4}, {"scaling": {"min": 2, "max": 5}}, {"description": "pays"}, {"accepts": [{"jobType": "pay"}]}],
)
def test_scaling_and_rules_replace_no_pod(change):
    assert template(executor(**change)) == template()


def test_has_time_to_end_its_tasks():
    one = executor(timeout="90s")
    assert environment(one)["PROKOS_GRACE"] == "91"
    assert template(one)["spec"]["terminationGracePeriodSeconds"] > 91
    assert template(executor(timeout="2h"))["spec"]["terminationGracePeriodSeconds"] == 610


def test_is_replaced_only_when_its_successor_takes_tasks():
    strategy = built()["Deployment"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert container()["readinessProbe"]["exec"]["command"][-1] == environment()["PROKOS_READY_FILE"]


def test_declared_secrets_are_files_named_as_the_settings_name_them():
    secrets = [
        {"name": "token", "secretKeyRef": {"name": "stripe", "key": "api-token"}},
        {"name": "csi", "file": "/mnt/secret"},
    ]
    one = executor(secrets=secrets)
    (volume,) = [volume for volume in template(one)["spec"]["volumes"] if volume["name"] == "secrets"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "stripe", "items": [{"key": "api-token", "path": "token"}]}}
    ]
    assert "api-token" not in json.dumps(container(one)["env"])


def test_its_own_image_and_settings_go_over_the_defaults():
    one = executor(pod={"image": "shop/payer:2", "resources": {"limits": {"memory": "1Gi"}}, "labels": {"team": "a"}})
    defaults = {
        "image": "shop/all:1",
        "runtimeClassName": "gvisor",
        "labels": {"cost": "shop", "prokos.io/executor": "other"},
        "resources": {"limits": {"cpu": "2"}},
    }
    assert container(one, **defaults)["image"] == "shop/payer:2"
    assert container(one, **defaults)["resources"]["limits"] == {"memory": "1Gi", "cpu": "2"}
    assert template(one, **defaults)["spec"]["runtimeClassName"] == "gvisor"
    labels = template(one, **defaults)["metadata"]["labels"]
    assert (labels["team"], labels["cost"], labels["prokos.io/executor"]) == ("a", "shop", "payer")
    assert container(None, **defaults)["image"] == "shop/all:1"
    assert container()["image"] == "prokos/worker:1"


def test_a_policy_of_somebody_else_is_left_to_them():
    assert "NetworkPolicy" not in built(executor(network={"policy": "None"}))


def test_an_image_of_the_users_runs_beside_the_worker_as_restricted_as_it():
    settings = {
        "image": "shop/scorer:3",
        "env": {"MODE": "fast"},
        "secretEnv": {"TOKEN": "token"},
        "resources": {"limits": {"memory": "64Mi"}},
    }
    secrets = [{"name": "token", "secretKeyRef": {"name": "api", "key": "t"}}]
    one = executor(type="container", script=None, container=settings, secrets=secrets)
    worker, beside = template(one)["spec"]["containers"]
    assert beside["image"] == "shop/scorer:3"
    assert "command" not in beside
    assert beside["securityContext"] == worker["securityContext"]
    assert beside["resources"]["limits"]["memory"] == "64Mi"
    assert {entry["name"]: entry.get("valueFrom", entry.get("value")) for entry in beside["env"]} == {
        "MODE": "fast",
        "TOKEN": {"secretKeyRef": {"name": "api", "key": "t"}},
    }
    assert {mount["name"] for mount in beside["volumeMounts"]} == {"work", "tmp"}


def test_a_script_of_a_config_map_is_mounted_where_the_worker_looks_for_it():
    script = {"language": "python", "configMapRef": {"name": "scripts", "key": "price.py"}}
    pod = template(executor(script=script))["spec"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "script"]
    assert volume["configMap"] == {"name": "scripts", "items": [{"key": "price.py", "path": "price.py"}]}
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "script"]
    assert mount["mountPath"] == "/var/run/prokos/script"
