"""Systems in namespaces of their own: an engine elsewhere, and engines that cannot be had."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cluster.shop import NOOP_BPMN, STARTING, Shop, resource, script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NOWHERE = {"repository": "registry.invalid/engine", "tag": "1"}


def system(**engine: Any) -> str:
    """A ProkOS `demo`."""
    return resource("ProkOS", "demo", {"engine": engine})


@pytest.fixture
def space(operator: Cluster) -> Iterator[Shop]:
    """A namespace without a system."""
    with operator.namespace() as name:
        yield Shop(operator, name)


def test_an_engine_that_somebody_else_runs(operator, engine):
    """Its Secret and its name come late; the system comes up by itself when they are there."""
    elsewhere = Shop(operator, engine.namespace)
    address = f"late.{engine.namespace}.svc:26500"
    password = {"secretKeyRef": {"name": "engine-user", "key": "password"}}
    elsewhere.apply(
        system(
            external={"address": address, "tls": {"enabled": True}, "basic": {"username": "u", "password": password}}
        )
    )
    try:
        elsewhere.until_unready("prokos", "demo", "no Secret 'engine-user'", "create it", condition="EngineReady")
        elsewhere.apply(system(external={"address": address}))
        elsewhere.until_unready("prokos", "demo", address, condition="EngineReady")
        pod = json.loads(engine.kubectl("get", "pod", "engine-0", "-o", "json"))
        labels = {"statefulset.kubernetes.io/pod-name": pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"]}
        spec = {"selector": labels, "ports": [{"port": 26500}]}
        elsewhere.apply(json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "late"}, "spec": spec}))
        elsewhere.apply(
            resource("TaskExecutor", "noop", script(accepts=[{"jobType": "noop"}])),
            resource("ProcessDefinition", "noop", {"bpmn": NOOP_BPMN.format(process="noop", job_type="noop")}),
        )
        elsewhere.until_ready("prokos", "demo", STARTING)
        elsewhere.until_ready("processdefinition", "noop")
        elsewhere.run("noop")
    finally:
        kinds = "prokoses,taskexecutors,processdefinitions"
        elsewhere.kubectl("delete", kinds, "--all", "--timeout", "120s")
    # It is somebody else's: nothing of it is taken away.
    engine.until_ready()


def test_a_chart_that_fails_and_an_engine_without_an_image(space):
    """Each is told with what to do, and is over when the resource is right."""

    def chart(**values: Any) -> dict[str, Any]:
        return {"chart": "camunda-engine", "deletionPolicy": "Delete", "values": {"image": NOWHERE, **values}}

    space.apply(system(helm=chart(persistence={"size": "much"})))
    assert space.until_unready("prokos", "demo", "size", condition="EngineReady") == "ValuesRefused"
    space.apply(system(helm=chart()))
    reason = space.until_unready("prokos", "demo", "registry.invalid/engine:1", condition="EngineReady")
    assert reason in {"ErrImagePull", "ImagePullBackOff"}
    assert len(space.items("persistentvolumeclaims")) == 1
    space.kubectl("delete", "prokos", "demo", "--timeout", "120s")
    assert space.items("statefulsets,services,persistentvolumeclaims,secrets") == []


def test_a_namespace_goes_with_its_system(operator):
    """The finalizer holds nothing up, although the namespace takes no new objects by then."""
    with operator.namespace() as name:
        space = Shop(operator, name)
        space.apply(system(helm={"chart": "camunda-engine", "values": {"image": NOWHERE}}))
        space.until(lambda: space.items("statefulsets"))
        operator.kubectl("delete", "namespace", name, "--timeout", "120s")
