"""The operator as a user installs it: charts, images, a namespace with Pod Security `restricted`, a real engine.

One system serves all tests of this directory that need one; each of them leaves it as it found it.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml
from hack.cluster import demo

from cluster.shop import LOOP, NOOP_BPMN, OPERATOR, STARTING, resource, script

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def order(number: int, price: float = 20.0) -> dict[str, Any]:
    """An order's variables."""
    items = [{"sku": "mug", "quantity": 2, "unitPrice": price}]
    return {"orderId": f"o-{number}", "customer": "ada", "items": items}


def test_an_order_is_placed(shop):
    shop.kubectl("rollout", "status", "deployment/shop", "--timeout", "180s")
    assert shop.run("order", order(1))["variables"]["status"] == "placed"
    assert shop.run("order", order(2, price=4000.0))["variables"]["status"] == "rejected"


def test_each_action_is_one_event(shop):
    assert len(shop.events("Installed", "")) == 1
    assert len(shop.events("Ready", "", name="payments")) == 1


def test_kubectl_shows_whether_everything_is_well(shop):
    shown = shop.kubectl("get", "prokos-all")
    for word in ("demo", "payments", "order", "True"):
        assert word in shown
    process = shop.get("processdefinition", "order")["status"]
    assert process["routed"] == "5/5"
    assert {task["executor"] for task in process["processes"][0]["tasks"]} >= {"pricing", "payments", "orders-db"}


def test_a_missing_secret_is_told_and_mended(shop):
    secrets = [{"name": "token", "secretKeyRef": {"name": "api-token", "key": "value"}}]
    source = "import os\ndef main(input):\n    return {'known': len(os.environ['TOKEN'])}\n"
    spec = script(source, secrets=secrets, accepts=[{"jobType": "use-token"}])
    spec["script"]["secretEnv"] = {"TOKEN": "token"}
    shop.apply(
        resource("TaskExecutor", "with-secret", spec),
        resource("ProcessDefinition", "token", {"bpmn": NOOP_BPMN.format(process="token", job_type="use-token")}),
    )
    try:
        reason = shop.until_unready("taskexecutor", "with-secret", "no Secret 'api-token'", "create it")
        assert reason == "SecretMissing"
        shop.kubectl("create", "secret", "generic", "api-token", "--from-literal=value=t0p-s3cret")
        shop.until_ready("taskexecutor", "with-secret", 180)
        assert shop.run("token")["variables"]["known"] == len("t0p-s3cret")
    finally:
        shop.kubectl("delete", "taskexecutor/with-secret", "processdefinition/token")
        shop.kubectl("delete", "secret", "api-token", "--ignore-not-found")


def test_an_image_that_cannot_be_pulled_is_told_and_mended(shop):
    shop.apply(resource("TaskExecutor", "lost", script(pod={"image": "registry.invalid/lost:1"})))
    try:
        reason = shop.until_unready("taskexecutor", "lost", "registry.invalid/lost:1", "spec.pod")
        assert reason in {"ErrImagePull", "ImagePullBackOff"}
        shop.until_unready("prokos", "demo", "lost")
        shop.apply(resource("TaskExecutor", "lost", script()))
        shop.until_ready("taskexecutor", "lost")
        shop.until_ready("prokos", "demo")
    finally:
        shop.kubectl("delete", "taskexecutor", "lost")


def test_bpmn_that_the_engine_refuses_is_told_and_mended(shop):
    good = NOOP_BPMN.format(process="picky", job_type="price-order")
    bad = good.replace('<zeebe:taskDefinition type="price-order"/>', '<zeebe:taskDefinition type="= 1 +"/>')
    shop.apply(resource("ProcessDefinition", "picky", {"bpmn": bad, "jobTypes": ["x"]}))
    try:
        shop.until_unready("processdefinition", "picky", "refuses")
        shop.apply(resource("ProcessDefinition", "picky", {"bpmn": good}))
        shop.until_ready("processdefinition", "picky")
        moved = NOOP_BPMN.format(process="moved", job_type="price-order")
        shop.apply(resource("ProcessDefinition", "picky", {"bpmn": moved}))
        shop.until(lambda: shop.get("processdefinition", "picky")["status"]["processId"] == "moved")
        shop.until(lambda: shop.events("ProcessRetired", "process picky"))
    finally:
        shop.kubectl("delete", "processdefinition", "picky")


def test_a_process_in_a_config_map_that_comes_late(shop):
    reference = {"configMapRef": {"name": "late", "key": "late.bpmn"}}
    shop.apply(resource("ProcessDefinition", "late", reference))
    try:
        shop.until_unready("processdefinition", "late", "no ConfigMap 'late'")
        data = {"late.bpmn": NOOP_BPMN.format(process="late", job_type="price-order")}
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": data}
        shop.apply(json.dumps(config_map))
        shop.until_ready("processdefinition", "late")
    finally:
        shop.kubectl("delete", "processdefinition/late", "configmap/late", "--ignore-not-found")


def test_drift_is_corrected(shop):
    shop.kubectl("delete", "deployment/pricing-tde", "networkpolicy/pricing-tde")
    shop.kubectl("patch", "deployment/payments-tde", "--type=merge", "-p", '{"spec":{"paused":true,"replicas":0}}')
    shop.until(lambda: {"pricing-tde", "shop"} <= {one["metadata"]["name"] for one in shop.items("deployments")})
    shop.until(lambda: shop.get("deployment", "payments-tde")["spec"]["replicas"] == 1)
    shop.until(lambda: any(one["metadata"]["name"] == "pricing-tde" for one in shop.items("networkpolicies")))
    shop.kubectl("patch", "deployment/payments-tde", "--type=merge", "-p", '{"spec":{"paused":false}}')
    shop.until_ready("taskexecutor", "pricing")


def test_kubectl_scale_works(shop):
    shop.kubectl("scale", "taskexecutor/pricing", "--replicas=2")
    shop.until(lambda: shop.get("taskexecutor", "pricing")["status"].get("readyReplicas") == 2)
    shop.kubectl("patch", "taskexecutor/pricing", "--type=json", "-p", '[{"op":"remove","path":"/spec/replicas"}]')
    shop.until(lambda: shop.get("deployment", "pricing-tde")["spec"]["replicas"] == 1)


LONG = 60
"""Seconds of a task: longer than the task's lease (30) and the cooldown (20) together."""


def test_an_executor_without_tasks_has_no_pods_and_one_with_a_long_task_keeps_its_own(shop):
    source = f"import os, time\ndef main(input):\n    time.sleep({LONG})\n    return {{'pod': os.uname().nodename}}\n"
    scaling = {"min": 0, "max": 2, "cooldown": "20s"}
    rare = script(source, scaling=scaling, timeout=f"{LONG + 60}s", accepts=[{"jobType": "rare"}])
    shop.apply(
        resource("TaskExecutor", "rare", rare),
        resource("ProcessDefinition", "rare", {"bpmn": NOOP_BPMN.format(process="rare", job_type="rare")}),
    )
    try:
        shop.until_ready("taskexecutor", "rare")
        shop.until_ready("processdefinition", "rare")
        assert shop.get("deployment", "rare-tde")["spec"]["replicas"] == 0
        pod = shop.run("rare", timeout=LONG + 120)["variables"]["pod"]
        assert shop.get("deployment", "rare-tde")["spec"]["replicas"] == 1
        assert "deletionTimestamp" not in shop.get("pod", pod)["metadata"]
        shop.until(lambda: shop.get("deployment", "rare-tde")["spec"]["replicas"] == 0)
    finally:
        shop.kubectl("delete", "taskexecutor/rare", "processdefinition/rare")


def test_a_roll_out_loses_no_task(shop):
    """Tasks are executed while the executor's pods are replaced; each ends, none becomes an incident."""
    source = "import time\ndef main(input):\n    time.sleep(2)\n    return {'done': True}\n"
    tasks = NOOP_BPMN.format(process="slow", job_type="slow").replace(
        "</bpmn:serviceTask>", f"{LOOP}</bpmn:serviceTask>"
    )
    shop.apply(
        resource("TaskExecutor", "slow", script(source, accepts=[{"jobType": "slow"}], concurrency=20)),
        resource("ProcessDefinition", "slow", {"bpmn": tasks}),
    )
    try:
        shop.until_ready("taskexecutor", "slow")
        shop.until_ready("processdefinition", "slow")
        with ThreadPoolExecutor(1) as runs:
            running = runs.submit(shop.run, "slow", {"tasks": list(range(10))})
            shop.until(lambda: len(shop.states("slow")) == 10, describe=lambda: shop.states("slow"))
            changed = script(source, accepts=[{"jobType": "slow"}], concurrency=21)
            shop.apply(resource("TaskExecutor", "slow", changed))
            shop.until_ready("taskexecutor", "slow")
            running.result()
    finally:
        shop.kubectl("delete", "taskexecutor/slow", "processdefinition/slow")


def test_an_operator_that_is_killed_holds_nothing_up(shop):
    shop.cluster.kubectl("delete", "pod", "--namespace", OPERATOR, "--all", "--grace-period=0", "--force")
    assert shop.run("order", order(3))["variables"]["status"] == "placed"
    shop.cluster.kubectl("rollout", "status", "deployment/prokos", "--namespace", OPERATOR, "--timeout", "300s")
    shop.apply(resource("TaskExecutor", "after", script()))
    shop.until_ready("taskexecutor", "after")
    shop.kubectl("delete", "taskexecutor", "after")


def test_an_engine_that_goes_away_is_told_and_comes_back(shop):
    (engine,) = shop.items("statefulsets")
    name = engine["metadata"]["name"]
    shop.kubectl("scale", f"statefulset/{name}", "--replicas=0")
    try:
        shop.kubectl("wait", "--for=delete", f"pod/{name}-0", "--timeout=180s")
        # What changes meanwhile waits for the engine; what is told of it does not.
        shop.apply(resource("TaskExecutor", "meanwhile", script()))
        shop.until_unready("prokos", "demo", condition="EngineReady")
        shop.until_unready("taskexecutor", "meanwhile")
    finally:
        shop.kubectl("scale", f"statefulset/{name}", "--replicas=1")
    shop.until_ready("prokos", "demo", STARTING)
    shop.until_ready("taskexecutor", "meanwhile")
    assert shop.run("order", order(4))["variables"]["status"] == "placed"
    shop.kubectl("delete", "taskexecutor", "meanwhile")


def test_a_second_system_in_the_namespace_is_refused(shop):
    shop.apply(resource("ProkOS", "second", {"engine": {"external": {"address": "nowhere:26500"}}}))
    try:
        shop.until(lambda: "demo is in this namespace" in shop.kubectl("get", "prokos/second", "-o", "json"))
    finally:
        shop.kubectl("delete", "prokos", "second", "--timeout", "180s")


def test_the_pdo_is_kept_available_and_can_be_watched(shop):
    def replicas(number: int) -> None:
        patch = json.dumps({"spec": {"pdo": {"replicas": number}}})
        shop.kubectl("patch", "prokos", "demo", "--type=merge", "-p", patch)

    replicas(2)
    try:
        shop.until(lambda: shop.get("deployment", "demo-pdo")["spec"]["replicas"] == 2)
        shop.kubectl("rollout", "status", "deployment/demo-pdo", "--timeout", "300s")
        shop.until(lambda: len(shop.items("pods", "-l", "app.kubernetes.io/component=pdo")) == 2)
        (budget,) = shop.until(lambda: shop.items("poddisruptionbudgets"))
        shop.until(lambda: shop.get("pdb", "demo-pdo")["status"].get("disruptionsAllowed") == 1)
        assert budget["spec"]["maxUnavailable"] == 1
        pods = shop.items("pods", "-l", "app.kubernetes.io/component=pdo")
        metrics = [shop.page(pod, "metrics") for pod in pods]
        assert all("prokos_pdo_tasks_total" in page for page in metrics)
        assert {"executor", "process"} <= set(re.findall(r'prokos_registered{kind="(\w+)"}', metrics[0]))

        def beating() -> set[int]:
            """Shards whose last beat one of the replicas has done."""
            statuses = [json.loads(shop.page(pod, "status")) for pod in pods]
            return {shard["shard"] for status in statuses for shard in status["shards"]}

        shop.until(lambda: beating() == {0}, describe=beating)
    finally:
        replicas(1)
    shop.until(lambda: not shop.items("poddisruptionbudgets"))
    shop.until(lambda: shop.get("deployment", "demo-pdo")["spec"]["replicas"] == 1)
    shop.kubectl("rollout", "status", "deployment/demo-pdo", "--timeout", "300s")
    shop.until(lambda: len(shop.items("pods", "-l", "app.kubernetes.io/component=pdo")) == 1)


def test_monitors_find_what_they_are_to_scrape(shop):
    switches = ("--set", "serviceMonitor.enabled=true", "--set", "podMonitor.enabled=true")
    rendered = yaml.safe_load_all(shop.cluster.helm("template", "prokos", str(demo.CHARTS / "prokos"), *switches))
    monitors = {one["kind"]: one["spec"] for one in rendered if one["kind"].endswith("Monitor")}

    def found(kind: str, objects: str) -> list[dict[str, Any]]:
        labels = monitors[kind]["selector"]["matchLabels"].items()
        return shop.items(objects, "-l", ",".join(f"{name}={value}" for name, value in labels))

    (service,) = found("ServiceMonitor", "services")
    (endpoint,) = monitors["ServiceMonitor"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    (endpoint,) = monitors["PodMonitor"]["podMetricsEndpoints"]

    def all_are_scraped() -> bool:
        containers = [pod["spec"]["containers"][0] for pod in found("PodMonitor", "pods")]
        scraped = [one for one in containers if endpoint["port"] in {port["name"] for port in one.get("ports", ())}]
        return 0 < len(scraped) == len(shop.items("pods", "-l", "prokos.io/executor"))

    shop.until(all_are_scraped)  # pods may come and go between two lists


@pytest.mark.parametrize(
    ("account", "verb", "what", "allowed"),
    [
        ("demo-pdo", "list", "configmaps", True),
        ("demo-pdo", "create", "taskroutes.prokos.io", True),
        ("demo-pdo", "get", "secrets", False),
        ("demo-pdo", "create", "configmaps", False),
        ("demo-pdo", "delete", "taskroutes.prokos.io", False),
        ("payments-tde", "get", "configmaps", False),
        ("payments-tde", "get", "taskroutes.prokos.io", False),
    ],
)
def test_nobody_may_do_more_than_its_work_takes(shop, account, verb, what, allowed):
    asked = ("auth", "can-i", verb, what, f"--as=system:serviceaccount:{shop.namespace}:{account}")
    assert shop.cluster.succeeds("--namespace", shop.namespace, *asked) is allowed


def test_what_is_deleted_says_what_still_runs(shop):
    """The task waits for a worker, so that it is in flight until the test gives it one."""
    route = {"process": "leaving", "element": "T", "executor": "leaver"}
    shop.apply(
        resource("TaskExecutor", "leaver", script(replicas=0)),
        resource("TaskRoute", "leave", route),
        resource("ProcessDefinition", "leaving", {"bpmn": NOOP_BPMN.format(process="leaving", job_type="leave")}),
    )
    try:
        shop.until(lambda: shop.get("processdefinition", "leaving").get("status", {}).get("routed") == "1/1")
        with ThreadPoolExecutor(1) as runs:
            running = runs.submit(shop.run, "leaving", timeout=400)
            shop.until(lambda: shop.states("leaving") == ["dispatched"], describe=lambda: shop.states("leaving"))
            shop.kubectl("delete", "processdefinition/leaving", "taskroute/leave")
            (retired,) = shop.until(lambda: shop.events("ProcessRetired", "process leaving"))
            assert "version 1 go on" in retired
            assert "1 task in flight" in retired
            (changed,) = shop.until(lambda: shop.events("RouteChanged", "TaskRoute leave"))
            assert "went to executor leaver" in changed
            shop.kubectl("scale", "taskexecutor/leaver", "--replicas=1")
            running.result()
    finally:
        shop.kubectl("delete", "taskexecutor/leaver")
        shop.kubectl("delete", "processdefinition/leaving", "taskroute/leave", "--ignore-not-found")


def test_the_chart_with_rights_in_named_namespaces_only(shop):
    cluster = shop.cluster
    changed = ("--set", f"watchNamespaces={{{shop.namespace}}}", "--set", "dashboard.enabled=true")
    try:
        demo.install_operator(cluster.helm, cluster.kubectl, *changed, "--set", "resources.limits.memory=384Mi")
        assert not cluster.succeeds("get", "clusterrole", "prokos")
        assert shop.items("rolebindings", "-l", "app.kubernetes.io/name=prokos-operator")
        limits = cluster.kubectl(
            "--namespace", OPERATOR, "get", "deployment", "prokos", "-o",
            "jsonpath={.spec.template.spec.containers[0].resources.limits.memory}",
        )  # fmt: skip
        assert limits == "384Mi"
        assert "grafana_dashboard" in cluster.kubectl("--namespace", OPERATOR, "get", "configmaps", "-o", "json")
        shop.apply(resource("TaskExecutor", "named", script()))
        shop.until_ready("taskexecutor", "named")
        shop.kubectl("delete", "deployment/named-tde")
        shop.until(lambda: cluster.succeeds("--namespace", shop.namespace, "get", "deployment", "named-tde"))
        shop.until_ready("prokos", "demo")
    finally:
        shop.kubectl("delete", "taskexecutor", "named", "--ignore-not-found")
        demo.install_operator(cluster.helm, cluster.kubectl)
    assert cluster.succeeds("get", "clusterrole", "prokos")


def test_deleting_everything_leaves_the_volume_and_nothing_else(shop):
    """The last test of this file: what it deletes, the others need."""
    shop.kubectl("delete", "prokoses,taskexecutors,processdefinitions,taskroutes", "--all", "--timeout", "180s")
    ours = "deployments,statefulsets,services,configmaps,networkpolicies,roles,rolebindings,poddisruptionbudgets"

    def left() -> set[str]:
        names = {f"{one['kind']}/{one['metadata']['name']}" for one in shop.items(ours)}
        return names - {
            "ConfigMap/kube-root-ca.crt",
            "ConfigMap/order-files",
            "ConfigMap/shop-service",
            "Deployment/shop",
            "Service/shop",
        }

    shop.until(lambda: not left(), 120, left)
    assert [one["kind"] for one in shop.items("persistentvolumeclaims")] == ["PersistentVolumeClaim"]
