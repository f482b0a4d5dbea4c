"""The chart `camunda-engine` by itself: a broker that answers, keeps its state, and leaves its volume."""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from cluster.engine_release import CHART, STARTING, image_values
from helpers import wait_until
from prokos.engine import EngineUnavailableError

if TYPE_CHECKING:
    from prokos.engine import Topology

pytestmark = [pytest.mark.anyio, pytest.mark.cluster, pytest.mark.timeout(900)]

WAITS = b"""<?xml version="1.0" encoding="UTF-8"?>
<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
 xmlns:zeebe="http://camunda.org/schema/zeebe/1.0" id="D" targetNamespace="t">
 <bpmn:process id="waits" isExecutable="true">
  <bpmn:startEvent id="S"/><bpmn:sequenceFlow id="a" sourceRef="S" targetRef="T"/>
  <bpmn:serviceTask id="T"><bpmn:extensionElements><zeebe:taskDefinition type="kept"/></bpmn:extensionElements>
  </bpmn:serviceTask>
 </bpmn:process>
</bpmn:definitions>"""


async def test_the_broker_answers(engine):
    async with engine.client() as client:

        async def healthy() -> Topology | None:
            # A leader may be unhealthy for a while, and the way to the broker is long for a first connection.
            with contextlib.suppress(EngineUnavailableError):
                topology = await client.topology()
                return topology if topology.healthy else None
            return None

        topology = await wait_until(healthy, 120)
    assert (topology.brokers, topology.partitions, topology.healthy_leaders) == (1, 1, 1)


async def test_what_the_probes_ask_for_is_there(engine):
    """A probe of a path that the broker does not have would end one that is well, minutes later."""
    pods = json.loads(engine.kubectl("get", "statefulset/engine", "-o", "json"))["spec"]["template"]["spec"]
    probes = [pods["containers"][0][f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
    paths = {probe["httpGet"]["path"] for probe in probes if "httpGet" in probe}
    assert paths
    service = f"/api/v1/namespaces/{engine.namespace}/services/engine-zeebe-gateway:management/proxy"
    for path in paths:
        assert json.loads(engine.kubectl("get", "--raw", service + path))["status"] == "UP"


async def test_a_pod_that_is_deleted_comes_back_with_its_state(engine):
    async with engine.client() as client:
        await client.deploy({"waits.bpmn": WAITS})
        instance = await client.create_instance("waits", {"number": 7})
    engine.kubectl("delete", "pod", "engine-0", "--grace-period=0", "--force")
    # The status of the StatefulSet may still be that of the pod that is gone.
    engine.kubectl("wait", "--for=create", "pod/engine-0", "--timeout=120s")
    engine.kubectl("wait", "--for=condition=Ready", "pod/engine-0", f"--timeout={STARTING}")
    async with engine.client() as client:
        (job,) = await client.activate_jobs("kept", worker="test", limit=2, lease=60, wait=30)
    assert (job.process_instance_key, job.variables) == (instance.key, {"number": 7})


@pytest.mark.parametrize(
    ("value", "field"),
    [("heap=lots", "heap"), ("persistence.size=5", "size"), ("image.name=mine", "name"), ("replicas=3", "replicas")],
)
def test_a_wrong_value_is_refused_by_its_name(cluster, value, field):
    chart = subprocess.run(
        [cluster.program("helm"), "template", "engine", CHART, "--set", value],
        capture_output=True,
        text=True,
        check=False,
    )
    assert chart.returncode
    assert field in chart.stderr


async def test_uninstalling_leaves_the_volume_alone(cluster):
    kinds = "statefulsets,services,pods,configmaps,secrets,serviceaccounts,persistentvolumeclaims,networkpolicies"
    with cluster.namespace() as namespace:

        def there() -> set[str]:
            return set(cluster.kubectl("--namespace", namespace, "get", kinds, "-o", "name").split())

        before = there()
        values = [*image_values(cluster), "--set", "persistence.size=1Gi"]
        cluster.helm("install", "engine", CHART, "--namespace", namespace, *values)
        claim = "persistentvolumeclaim/data-engine-0"
        for made in (claim, "pod/engine-0"):
            cluster.kubectl("--namespace", namespace, "wait", "--for=create", made, "--timeout=120s")
        cluster.helm("uninstall", "engine", "--namespace", namespace, "--wait", "--timeout", "120s")
        cluster.kubectl("--namespace", namespace, "wait", "--for=delete", "pod/engine-0", "--timeout=120s")
        assert there() - before - {"configmap/kube-root-ca.crt", "serviceaccount/default"} == {claim}
