"""The CRDs on a real API server: what they refuse, fill in, show and scale."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config

from prokos.resources.crds import GROUP, KINDS, VERSION
from resource_samples import (
    SECRET,
    VALID,
    VALUES,
    Document,
    changed,
    examples,
    executor,
    model_errors,
    places,
    replaced,
)
from wrong_samples import WRONG, Wrong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.conftest import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CHART = str(ROOT / "helm" / "prokos-crds")
RELEASE = "prokos-crds"
CRDS = [f"{kind.plural}.{GROUP}" for kind in KINDS]
PLURALS = {kind.model.__name__: kind.plural for kind in KINDS}
MODELS = {kind.model.__name__: kind.model for kind in KINDS}

ONLY_EMBEDDED = ("is for the embedded home", "is an engine of prokos dev")


@pytest.fixture(scope="module")
def crds(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with the CRDs of this tree; release and CRDs are taken away again if they were not there."""
    there = cluster.kubectl("get", "crd", "--ignore-not-found", "-o", "name", *CRDS)
    installed = cluster.helm("list", "--short", "--filter", f"^{RELEASE}$")
    cluster.helm("upgrade", "--install", RELEASE, CHART, "--take-ownership", "--wait")
    yield cluster
    if not installed:
        cluster.helm("uninstall", RELEASE)
    if not there:
        cluster.kubectl("delete", "crd", "--timeout=60s", *CRDS)


@pytest.fixture(scope="module")
def namespace(crds: Cluster) -> Iterator[str]:
    with crds.namespace() as name:
        yield name


class Api:
    """The API server, asked as kubectl asks it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._objects = client.CustomObjectsApi(new_client_from_config(str(cluster.kubeconfig)))
        self._namespace = namespace

    def create(self, document: Document, *, dry: bool = True) -> Document:
        """Create a resource.

        Raises:
            RefusedError: The API server does not take it.
        """
        here = {**document, "metadata": {**document["metadata"], "namespace": self._namespace}}
        return self._call("create_namespaced_custom_object", here, dry=dry)

    def replace(self, document: Document) -> Document:
        return self._call("replace_namespaced_custom_object", document, document["metadata"]["name"])

    def delete(self, document: Document) -> None:
        name, plural = document["metadata"]["name"], PLURALS[document["kind"]]
        self._objects.delete_namespaced_custom_object(GROUP, VERSION, self._namespace, plural, name)

    def _call(self, verb: str, document: Document, *name: str, dry: bool = False) -> Document:
        plural, options = PLURALS[document["kind"]], {"dry_run": "All"} if dry else {}
        try:
            made: Document = getattr(self._objects, verb)(
                GROUP, VERSION, self._namespace, plural, *name, document, field_validation="Strict", **options
            )
        except ApiException as error:
            raise RefusedError(json.loads(error.body)["message"]) from None
        return made


class RefusedError(Exception):
    """The API server refuses a resource; the message is what kubectl shows."""


@pytest.fixture(scope="module")
def api(crds: Cluster, namespace: str) -> Api:
    return Api(crds, namespace)


def refusal(api: Api, document: Document) -> str:
    """What the API server says of a resource; empty when it takes it."""
    try:
        api.create(document)
    except RefusedError as error:
        return str(error)
    return ""


# --- what is taken and what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CRDS)
def test_the_api_server_finds_no_fault_with_a_crd(crds: Cluster, name: str) -> None:
    status = json.loads(crds.kubectl("get", "crd", name, "-o", "json"))["status"]
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert conditions["NamesAccepted"]["status"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("document", VALID.values(), ids=VALID)
def test_takes_what_is_right(api: Api, document: Document) -> None:
    api.create(document)


@pytest.mark.parametrize("document", examples().values(), ids=examples())
def test_takes_every_example_that_is_not_for_the_embedded_home_alone(api: Api, document: Document) -> None:
    said = refusal(api, document)
    assert said.count(": Invalid value:") == sum(said.count(words) for words in ONLY_EMBEDDED), said
    assert not said or any(words in said for words in ONLY_EMBEDDED), said


def test_takes_the_example_for_a_cluster(crds: Cluster, api: Api) -> None:
    manifests = yaml.safe_load_all(crds.kubectl("kustomize", str(ROOT / "examples" / "cluster")))
    ours = [manifest for manifest in manifests if manifest["apiVersion"].startswith(GROUP)]
    assert {manifest["kind"] for manifest in ours} >= {"ProkOS", "TaskExecutor", "ProcessDefinition"}
    for manifest in ours:
        api.create(manifest)


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if wrong.before is None], ids=str)
def test_refuses_what_is_wrong_and_names_the_field(api: Api, wrong: Wrong) -> None:
    said = refusal(api, wrong.document)
    assert wrong.words in said
    assert wrong.field in said


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if wrong.before is not None], ids=str)
def test_refuses_a_change_of_what_cannot_change(api: Api, wrong: Wrong) -> None:
    there = api.create(wrong.before or {}, dry=False)
    try:
        version = {"resourceVersion": there["metadata"]["resourceVersion"]}
        with pytest.raises(RefusedError) as refused:
            api.replace({**wrong.document, "metadata": {**wrong.document["metadata"], **version}})
    finally:
        api.delete(there)
    assert wrong.words in str(refused.value)
    assert wrong.field in str(refused.value)


BEYOND = {
    ("TaskExecutor", "http", "headers"),
    ("TaskExecutor", "http", "charset"),
    ("TaskExecutor", "http", "outcomes"),
    ("TaskExecutor", "grpc", "metadata"),
    ("TaskExecutor", "sql"),
    ("TaskExecutor", "script"),
    ("TaskExecutor", "container", "env"),
}
"""Kind and place of what docs/resources.md lists as beyond the API server."""

CHANGES = 500


def test_judges_as_the_models_do(api: Api) -> None:
    """Right resources with one field changed: taken by both, or refused by both."""
    chosen = random.Random(0).sample([(place, value) for place in places() for value in VALUES], CHANGES)
    refused = 0
    for place, value in chosen:
        document = replaced(*place, value)
        judged, said = model_errors(document), refusal(api, document)
        refused += bool(said)
        where = f"{document['kind']} {place[1]} = {value!r}: the models say {judged}, the API server {said!r}"
        if said and not judged:
            assert any(words in said for words in ("Duplicate value", *ONLY_EMBEDDED)), where
        elif judged and not said:
            blamed = {(document["kind"], *map(str, error["loc"][1:3])) for error in judged}
            assert blamed <= BEYOND, where
    assert refused > CHANGES / 4


# --- defaults --------------------------------------------------------------------------------------------------------


def test_fills_in_the_defaults(api: Api) -> None:
    spec = api.create(executor())["spec"]
    assert (spec["timeout"], spec["concurrency"]) == ("1m", 4)
    assert spec["scaling"] == {"min": 1, "max": 1, "cooldown": "1m", "podPerTask": False}
    assert spec["backoff"] == {"initial": "1s", "maximum": "5m", "multiplier": 2, "jitter": 0.2}
    assert spec["network"] == {"policy": "Managed"}
    assert "pod" not in spec, "what a pod leaves open is filled in from executorDefaults"
    assert "replicas" not in spec, "without replicas the backlog decides"
    spec = api.create({**VALID["smallest system"]})["spec"]
    assert spec["pdo"]["beatInterval"] == "1s"
    assert "engine" not in spec


@pytest.mark.parametrize("document", VALID.values(), ids=VALID)
def test_what_is_filled_in_is_what_the_models_take_for_granted(api: Api, document: Document) -> None:
    stored = api.create(document)
    model = MODELS[document["kind"]]
    assert model.model_validate(stored).spec == model.model_validate(document).spec


# --- subresources ----------------------------------------------------------------------------------------------------


class Kubectl:
    """kubectl in the namespace of this file."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = ("--namespace", namespace)

    def __call__(self, *arguments: str) -> str:
        return self._cluster.kubectl(*arguments, *self._namespace)

    def apply(self, document: Document, *options: str) -> None:
        self._cluster.kubectl("apply", "-f", "-", *options, *self._namespace, stdin=json.dumps(document))

    def get(self, kind: str, name: str) -> Document:
        found: Document = json.loads(self("get", kind, name, "-o", "json"))
        return found

    def status(self, kind: str, name: str, status: Document) -> None:
        patch = json.dumps({"status": status})
        self("patch", kind, name, "--subresource=status", "--type=merge", "--patch", patch)

    def table(self, *arguments: str) -> list[list[str]]:
        """What `kubectl get` shows, in words; no value of these tests has two."""
        return [line.split() for line in self("get", *arguments).splitlines()]


def named(document: Document, name: str) -> Document:
    return {**document, "metadata": {"name": name}}


def condition(kind: str = "Ready", status: str = "True", **more: Any) -> Document:
    return {"type": kind, "status": status, "reason": "Well", "lastTransitionTime": "2026-01-01T00:00:00Z", **more}


@pytest.fixture
def kubectl(crds: Cluster, namespace: str) -> Iterator[Kubectl]:
    """kubectl, and a namespace without resources of ours."""
    if crds.kubectl(
        "get", "deployments", "--all-namespaces", "-l", "app.kubernetes.io/name=prokos-operator", "-o", "name"
    ):
        pytest.skip("an operator keeps this cluster, and would overwrite the statuses that are shown")
    yield Kubectl(crds, namespace)
    crds.kubectl("delete", "prokos-all", "--all", "--namespace", namespace)


def test_scales_by_the_subresource(kubectl: Kubectl) -> None:
    kubectl.apply(named(executor(), "worker"))
    kubectl("scale", "taskexecutor", "worker", "--replicas=3")
    assert kubectl.get("taskexecutor", "worker")["spec"]["replicas"] == 3
    kubectl.status("taskexecutor", "worker", {"replicas": 2, "selector": "app=worker"})
    scale = json.loads(kubectl("get", "taskexecutor", "worker", "--subresource=scale", "-o", "json"))
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 3)
    assert (scale["status"]["replicas"], scale["status"]["selector"]) == (2, "app=worker")


def test_there_is_no_scale_while_the_backlog_decides(crds: Cluster, kubectl: Kubectl, namespace: str) -> None:
    """An autoscaler reads the number before it changes it; so the resource must have one."""
    kubectl.apply(named(executor(), "worker"))
    said = crds.refused("get", "taskexecutor", "worker", "--subresource=scale", "--namespace", namespace)
    assert 'the spec replicas field ".spec.replicas" does not exist' in said


def test_status_and_spec_are_written_apart(kubectl: Kubectl) -> None:
    kubectl.apply(named(executor(concurrency=2), "worker"))
    before = kubectl.get("tex", "worker")["metadata"]["generation"]
    patch = {"spec": {"concurrency": 9}, "status": {"backlog": 7, "replicas": 0, "readyReplicas": 0}}
    kubectl("patch", "tex", "worker", "--subresource=status", "--type=merge", "--patch", json.dumps(patch))
    found = kubectl.get("tex", "worker")
    assert (found["spec"]["concurrency"], found["status"]["backlog"]) == (2, 7)
    assert found["metadata"]["generation"] == before
    kubectl.apply({**named(executor(concurrency=3), "worker"), "status": {"backlog": 1}})
    found = kubectl.get("tex", "worker")
    assert (found["spec"]["concurrency"], found["status"]["backlog"]) == (3, 7)
    assert found["metadata"]["generation"] == before + 1


def test_several_may_keep_items_of_one_list(kubectl: Kubectl) -> None:
    secret = {"secretKeyRef": SECRET}
    for manager in ("one", "two"):
        spec = {**executor()["spec"], "secrets": [{"name": manager, **secret}]}
        document = {**named(executor(), "worker"), "spec": spec}
        kubectl.apply(document, "--server-side", "--field-manager", manager)
    assert [secret["name"] for secret in kubectl.get("tex", "worker")["spec"]["secrets"]] == ["one", "two"]


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_shows_whether_a_system_is_well(kubectl: Kubectl) -> None:
    kubectl.apply(named(VALID["smallest system"], "demo"))
    engine = {"version": "8.8.0", "address": "engine:26500", "release": "demo-engine", "chart": "camunda-engine-0.1.0"}
    parts = {"executors": "3/4", "processes": 2, "shards": "1/1"}
    kubectl.status("prokos", "demo", {"engine": engine, **parts, "conditions": [condition(message="fine")]})
    header, row = kubectl.table("prokos")
    assert header == ["NAME", "READY", "REASON", "ENGINE", "EXECUTORS", "PROCESSES", "SHARDS", "AGE"]
    assert row[:7] == ["demo", "True", "Well", "8.8.0", "3/4", "2", "1/1"]
    header, row = kubectl.table("pk", "-o", "wide")
    assert header[8:] == ["ADDRESS", "RELEASE", "CHART", "MESSAGE"]
    assert row[8:] == ["engine:26500", "demo-engine", "camunda-engine-0.1.0", "fine"]
    kubectl("wait", "--for=condition=Ready", "--timeout=5s", "prokos/demo")


def test_shows_whether_an_executor_is_well(kubectl: Kubectl) -> None:
    kubectl.apply(named(executor(scaling={"max": 8}), "worker"))
    status = {"workers": "1/2", "readyReplicas": 1, "replicas": 2, "backlog": 5}
    kubectl.status("tex", "worker", {**status, "conditions": [condition(status="False", message="no")]})
    header, row = kubectl.table("tex")
    assert header == ["NAME", "TYPE", "WORKERS", "BACKLOG", "READY", "REASON", "AGE"]
    assert row[:6] == ["worker", "script", "1/2", "5", "False", "Well"]
    header, row = kubectl.table("taskexecutors", "-o", "wide")
    assert header[7:] == ["CONCURRENCY", "MIN", "MAX", "MESSAGE"]
    assert row[7:] == ["4", "1", "8", "no"]


def test_shows_whether_a_process_is_well(kubectl: Kubectl) -> None:
    kubectl.apply(named(VALID["smallest process"], "orders"))
    process = {"processId": "order", "version": 3, "key": "2251799813685249", "tasks": [{"element": "Ship"}]}
    status = {"processId": "order", "version": 3, "routed": "0/1", "processes": [process]}
    kubectl.status("pdef", "orders", {**status, "conditions": [condition(message="fine")]})
    header, row = kubectl.table("pdef")
    assert header == ["NAME", "PROCESS", "VERSION", "ROUTED", "READY", "REASON", "AGE"]
    assert row[:6] == ["orders", "order", "3", "0/1", "True", "Well"]
    header, row = kubectl.table("processdefinitions", "-o", "wide")
    assert (header[7:], row[7:]) == (["KEY", "MESSAGE"], ["2251799813685249", "fine"])


def test_shows_routes_and_finds_them_by_their_fields(kubectl: Kubectl) -> None:
    route = VALID["smallest route"]
    kubectl.apply(named(changed(route, version=2, confidence=0.75, source="llm", reason="because"), "one"))
    kubectl.apply(named(changed(route, element="Pack"), "two"))
    kubectl.status("troute", "one", {"conditions": [condition(message="fine")]})
    header, one, two = kubectl.table("troute")
    assert header == ["NAME", "PROCESS", "ELEMENT", "EXECUTOR", "SOURCE", "READY", "AGE"]
    assert one[:6] == ["one", "order", "Ship", "parcels", "llm", "True"]
    assert two[:5] == ["two", "order", "Pack", "parcels", "human"]
    header, one = kubectl.table("taskroutes", "-o", "wide", "--field-selector", "spec.element=Ship")
    assert (header[7:], one[7:]) == (["VERSION", "CONFIDENCE", "WHY", "MESSAGE"], ["2", "0.75", "because", "fine"])


def test_shows_all_kinds_at_once(kubectl: Kubectl) -> None:
    for kind in ("system", "executor", "process", "route"):
        kubectl.apply(named(VALID[f"smallest {kind}"], "demo"))
    shown = kubectl("get", "prokos-all", "-o", "name").split()
    assert sorted(shown) == sorted(f"{kind.model.__name__.lower()}.{GROUP}/demo" for kind in KINDS)
    assert kubectl("get", "prokos", "-o", "name").split() == ["prokos.prokos.io/demo"]


def test_explains_fields(kubectl: Kubectl) -> None:
    assert "Longest execution of one attempt" in kubectl("explain", "taskexecutor.spec.timeout")
    assert "Most workers that run for a backlog" in kubectl("explain", "tex.spec.scaling.max")


# --- the chart -------------------------------------------------------------------------------------------------------


def test_the_chart_keeps_the_crds_unless_told_otherwise(crds: Cluster) -> None:
    def annotations(*options: str) -> list[dict[str, str]]:
        manifests = list(yaml.safe_load_all(crds.helm("template", RELEASE, CHART, *options)))
        assert [manifest["metadata"]["name"] for manifest in manifests] == sorted(CRDS)
        return [manifest["metadata"].get("annotations", {}) for manifest in manifests]

    assert annotations() == [{"helm.sh/resource-policy": "keep"}] * len(CRDS)
    assert annotations("--set", "keep=false") == [{}] * len(CRDS)
    assert annotations("--set", "keep=false,annotations.a=b") == [{"a": "b"}] * len(CRDS)


def test_the_chart_and_the_plain_files_make_the_same_crds(crds: Cluster) -> None:
    manifests = yaml.safe_load_all(crds.helm("template", RELEASE, CHART))
    plain = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").iterdir())]
    assert [manifest["spec"] for manifest in manifests] == [manifest["spec"] for manifest in plain]


def test_the_chart_is_upgraded_in_place(crds: Cluster) -> None:
    before = crds.kubectl("get", "crd", CRDS[0], "-o", "jsonpath={.metadata.uid}")
    crds.helm("upgrade", RELEASE, CHART, "--set", "labels.tests=upgraded")
    assert crds.kubectl("get", "crd", "-l", "tests=upgraded", "-o", "name").split() == sorted(
        f"customresourcedefinition.apiextensions.k8s.io/{name}" for name in CRDS
    )
    crds.helm("upgrade", RELEASE, CHART, "--reset-values")
    assert crds.kubectl("get", "crd", CRDS[0], "-o", "jsonpath={.metadata.uid}") == before
