"""The operator as a user installs it: charts, images, a namespace with Pod Security `restricted`, a real engine.

One system serves all tests of this file; each of them leaves it as it found it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster.conftest import Cluster

ROOT = Path(__file__).parents[2]
NAMESPACE = "shop"
OPERATOR = "prokos-system"

STARTING = 240.0
"""Seconds an engine may take to start on a machine that does everything else too."""

CHANGE = 90.0
"""Seconds until a change shows: an image pulled, pods replaced, a condition written."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NOOP_BPMN = """<?xml version="1.0" encoding="UTF-8"?>
<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
 xmlns:zeebe="http://camunda.org/schema/zeebe/1.0" id="D" targetNamespace="t">
 <bpmn:process id="{process}" isExecutable="true">
  <bpmn:startEvent id="S"><bpmn:outgoing>a</bpmn:outgoing></bpmn:startEvent>
  <bpmn:sequenceFlow id="a" sourceRef="S" targetRef="T"/>
  <bpmn:serviceTask id="T"><bpmn:extensionElements>
   <zeebe:taskDefinition type="{job_type}"/></bpmn:extensionElements>
   <bpmn:incoming>a</bpmn:incoming><bpmn:outgoing>b</bpmn:outgoing></bpmn:serviceTask>
  <bpmn:sequenceFlow id="b" sourceRef="T" targetRef="E"/>
  <bpmn:endEvent id="E"><bpmn:incoming>b</bpmn:incoming></bpmn:endEvent>
 </bpmn:process>
</bpmn:definitions>"""


def resource(kind: str, name: str, spec: dict[str, Any]) -> str:
    """One of our resources as JSON, which YAML is."""
    metadata = {"name": name, "namespace": NAMESPACE}
    return json.dumps({"apiVersion": "prokos.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})


def script(source: str = "def main(input):\n    return {}\n", **spec: Any) -> dict[str, Any]:
    """An executor that runs Python."""
    return {"type": "script", "script": {"language": "python", "source": source}, **spec}


class Shop:
    """The system of this file's tests, seen through kubectl."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", NAMESPACE, *arguments, stdin=stdin)

    def apply(self, *manifests: str) -> None:
        for manifest in manifests:
            self.kubectl("apply", "-f", "-", stdin=manifest)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def items(self, kinds: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-o", "json"))["items"]
        return found

    def condition(self, kind: str, name: str, condition: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message of a condition that speaks of the newest generation."""
        found = self.get(kind, name)
        for one in found.get("status", {}).get("conditions", []):
            if one["type"] == condition and one.get("observedGeneration") == found["metadata"]["generation"]:
                return one["status"], one["reason"], one.get("message", "")
        return "Unknown", "", ""

    def until(self, look: Callable[[], Any], timeout: float = CHANGE, describe: Callable[[], Any] | None = None) -> Any:
        """Wait until something is so."""
        deadline = time.monotonic() + timeout
        while not (found := look()):
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {describe() if describe else ''}"
            time.sleep(0.5)
        return found

    def until_ready(self, kind: str, name: str, timeout: float = CHANGE) -> None:
        self.until(lambda: self.condition(kind, name)[0] == "True", timeout, lambda: self.get(kind, name).get("status"))

    def until_unready(
        self, kind: str, name: str, *words: str, condition: str = "Ready", timeout: float = CHANGE
    ) -> str:
        """Wait for a condition that is False and says these words; returns its reason."""

        def said() -> str | None:
            status, reason, message = self.condition(kind, name, condition)
            return reason if status == "False" and all(word in message for word in words) else None

        reason: str = self.until(said, timeout, lambda: self.condition(kind, name, condition))
        return reason

    def run(self, process: str, variables: dict[str, Any] | None = None, timeout: int = 60) -> dict[str, Any]:
        """Run a process to its end, as the docs say."""
        arguments = ["exec", "-i", "deploy/demo-pdo", "--", "prokos", "run", process, "--vars", "-"]
        answer = self.kubectl(
            *arguments, "--timeout", str(timeout), "--output", "json", stdin=json.dumps(variables or {})
        )
        found: dict[str, Any] = json.loads(answer)
        return found


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Iterator[Cluster]:
    """The operator by its charts; gone afterwards."""
    cluster.load_images()
    from hack.cluster import demo

    try:
        demo.install_operator(cluster.helm, cluster.kubectl)
        yield cluster
    finally:
        cluster.kubectl("delete", "prokoses", "--all", "--all-namespaces", "--timeout", "120s")
        cluster.helm("uninstall", "prokos", "--namespace", OPERATOR, "--wait")
        cluster.helm("uninstall", "prokos-crds")
        cluster.kubectl("delete", "crd", "-l", "app.kubernetes.io/part-of=prokos")
        cluster.kubectl("delete", "namespace", OPERATOR, "--timeout", "60s")


@pytest.fixture(scope="module")
def shop(operator: Cluster) -> Iterator[Shop]:
    """The order example, ready, in a namespace that admits restricted pods only."""
    operator.kubectl("create", "namespace", NAMESPACE)
    operator.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    system = Shop(operator)
    try:
        from hack.cluster import demo

        system.apply(demo.example_manifests(operator.kubectl))
        system.kubectl("wait", "--for=condition=Ready", "prokos/demo", f"--timeout={STARTING:g}s")
        yield system
    finally:
        operator.kubectl("delete", "namespace", NAMESPACE, "--timeout", "180s")


def order(number: int, price: float = 20.0) -> dict[str, Any]:
    """An order's variables."""
    items = [{"sku": "mug", "quantity": 2, "unitPrice": price}]
    return {"orderId": f"o-{number}", "customer": "ada", "items": items}


def test_an_order_is_placed(shop):
    shop.kubectl("rollout", "status", "deployment/shop", "--timeout", "60s")
    assert shop.run("order", order(1))["variables"]["status"] == "placed"
    assert shop.run("order", order(2, price=4000.0))["variables"]["status"] == "rejected"


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


def test_an_executor_without_tasks_has_no_pods(shop):
    shop.apply(
        resource("TaskExecutor", "rare", script(scaling={"min": 0, "max": 2}, accepts=[{"jobType": "rare"}])),
        resource("ProcessDefinition", "rare", {"bpmn": NOOP_BPMN.format(process="rare", job_type="rare")}),
    )
    try:
        shop.until_ready("taskexecutor", "rare")
        shop.until_ready("processdefinition", "rare")
        assert shop.get("deployment", "rare-tde")["spec"]["replicas"] == 0
        shop.run("rare", timeout=120)
    finally:
        shop.kubectl("delete", "taskexecutor/rare", "processdefinition/rare")


def test_a_roll_out_loses_no_task(shop):
    """Instances run while the executor's pods are replaced; each ends, none becomes an incident."""
    source = "import time\ndef main(input):\n    time.sleep(2)\n    return {'done': True}\n"
    shop.apply(
        resource("TaskExecutor", "slow", script(source, accepts=[{"jobType": "slow"}], concurrency=20)),
        resource("ProcessDefinition", "slow", {"bpmn": NOOP_BPMN.format(process="slow", job_type="slow")}),
    )
    try:
        shop.until_ready("taskexecutor", "slow")
        shop.until_ready("processdefinition", "slow")
        for _ in range(10):
            shop.kubectl("exec", "deploy/demo-pdo", "--", "prokos", "run", "slow", "--no-wait")
        changed = script(source, accepts=[{"jobType": "slow"}], concurrency=21)
        shop.apply(resource("TaskExecutor", "slow", changed))
        shop.until_ready("taskexecutor", "slow")

        def outcomes() -> list[str]:
            found = json.loads(
                shop.kubectl("exec", "deploy/demo-pdo", "--", "prokos", "tasks", "--output", "json", "-n", "500")
            )
            return [task["state"] for task in found if task["process"] == "slow"]

        shop.until(lambda: outcomes() == ["completed"] * 10, describe=outcomes)
    finally:
        shop.kubectl("delete", "taskexecutor/slow", "processdefinition/slow")


def test_an_operator_that_is_killed_holds_nothing_up(shop):
    shop.cluster.kubectl("delete", "pod", "--namespace", OPERATOR, "--all", "--grace-period=0", "--force")
    assert shop.run("order", order(3))["variables"]["status"] == "placed"
    shop.cluster.kubectl("rollout", "status", "deployment/prokos", "--namespace", OPERATOR, "--timeout", "120s")
    shop.apply(resource("TaskExecutor", "after", script()))
    shop.until_ready("taskexecutor", "after")
    shop.kubectl("delete", "taskexecutor", "after")


def test_an_engine_that_goes_away_is_told_and_comes_back(shop):
    (engine,) = shop.items("statefulsets")
    name = engine["metadata"]["name"]
    shop.kubectl("scale", f"statefulset/{name}", "--replicas=0")
    try:
        shop.until_unready("prokos", "demo", condition="EngineReady", timeout=120)
    finally:
        shop.kubectl("scale", f"statefulset/{name}", "--replicas=1")
    shop.until_ready("prokos", "demo", STARTING)
    assert shop.run("order", order(4))["variables"]["status"] == "placed"


def test_a_second_system_in_the_namespace_is_refused(shop):
    shop.apply(resource("ProkOS", "second", {"engine": {"external": {"address": "nowhere:26500"}}}))
    try:
        shop.until(lambda: "demo is in this namespace" in shop.kubectl("get", "prokos/second", "-o", "json"))
    finally:
        shop.kubectl("delete", "prokos", "second", "--timeout", "60s")


def test_an_engine_that_does_not_answer_and_a_chart_that_fails(shop):
    """In a namespace of their own, since each is a system."""
    cluster = shop.cluster
    with cluster.namespace() as namespace:
        other = Shop(cluster)
        other.kubectl = lambda *arguments, stdin=None: cluster.kubectl(  # type: ignore[method-assign]
            "--namespace", namespace, *arguments, stdin=stdin
        )
        system = json.loads(
            resource("ProkOS", "lonely", {"engine": {"external": {"address": "nowhere.invalid:26500"}}})
        )
        system["metadata"]["namespace"] = namespace
        other.apply(json.dumps(system))
        other.until_unready("prokos", "lonely", "nowhere.invalid:26500", condition="EngineReady")
        other.kubectl("delete", "prokos", "lonely", "--timeout", "60s")
        values = {"persistence": {"size": "much"}}
        system["spec"] = {"engine": {"helm": {"chart": "camunda-engine", "values": values}}}
        other.apply(json.dumps(system))
        other.until_unready("prokos", "lonely", "size", condition="EngineReady")
        other.kubectl("delete", "prokos", "lonely", "--timeout", "120s")


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
