"""Desired state from the API server: what is wrong stops itself and nothing else."""

from __future__ import annotations

from bpmn_samples import process as bpmn
from bpmn_samples import service_task
from prokos.k8s.desired import Found, config_maps_named, read_wanted
from unit.builders import executor, registry
from unit.k8s.manifests import resource

ORDERS = bpmn(service_task("Pay", "pay"))
SCRIPT = {"type": "script", "script": {"command": ["true"]}, "accepts": [{"jobType": "pay"}]}


def wanted(*manifests, config_maps=None, known=None):
    found = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    return read_wanted(Found(found, config_maps or {}), known or registry())


def test_reads_everything():
    read = wanted(
        resource("ProkOS", "demo", {"pdo": {"shards": 2}}),
        resource("TaskExecutor", "payer", SCRIPT),
        resource("ProcessDefinition", "orders", {"bpmn": ORDERS}),
        resource("TaskRoute", "r", {"process": "orders", "element": "Pay", "executor": "payer"}),
    )
    assert read.problems == {}
    assert read.desired.system.pdo.shards == 2
    assert set(read.desired.executors) == {"payer"}
    assert read.desired.processes["orders"].file.processes[0].process_id == "orders"


def test_what_clients_and_controllers_add_is_no_difference():
    one = resource(
        "TaskExecutor", "payer", SCRIPT, annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    )
    assert wanted(one).desired.executors == wanted(resource("TaskExecutor", "payer", SCRIPT)).desired.executors


def test_a_wrong_executor_stops_no_other():
    read = wanted(
        resource("TaskExecutor", "broken", {"type": "http", "script": {"command": ["true"]}}),
        resource("TaskExecutor", "payer", SCRIPT),
    )
    assert set(read.desired.executors) == {"payer"}
    (problem,) = read.problems["TaskExecutor", "broken"]
    assert "block 'http' is needed" in problem


def test_a_wrong_edit_leaves_what_was_registered():
    known = registry([executor("payer", timeout="5s")])
    read = wanted(resource("TaskExecutor", "payer", {"type": "script"}), known=known)
    assert read.desired.executors["payer"] == known.executors["payer"]
    assert ("TaskExecutor", "payer") in read.problems


def test_a_wrong_process_is_held():
    read = wanted(resource("ProcessDefinition", "orders", {"bpmn": "<nonsense"}))
    assert read.desired.held_processes == {"orders"}
    assert "not well-formed XML" in read.problems["ProcessDefinition", "orders"][0]


def test_two_executors_that_claim_a_task_are_an_error_of_somebody():
    read = wanted(
        resource("TaskExecutor", "a", SCRIPT),
        resource("TaskExecutor", "b", SCRIPT),
        resource("ProcessDefinition", "orders", {"bpmn": ORDERS}),
    )
    assert any("Pay" in problem for problems in read.problems.values() for problem in problems)


def test_bpmn_from_a_config_map():
    one = resource("ProcessDefinition", "orders", {"configMapRef": {"name": "files", "key": "orders.bpmn"}})
    assert config_maps_named({("ProcessDefinition", "orders"): one}) == {"files"}
    assert wanted(one, config_maps={"files": {"orders.bpmn": ORDERS}}).problems == {}
    (missing,) = wanted(one, config_maps={"files": None}).problems["ProcessDefinition", "orders"]
    assert "no ConfigMap 'files'" in missing
    (lacking,) = wanted(one, config_maps={"files": {}}).problems["ProcessDefinition", "orders"]
    assert "no key 'orders.bpmn'" in lacking


def test_what_only_a_laptop_has_is_refused():
    read = wanted(
        resource("ProkOS", "demo", {"engine": {"embedded": {}}}),
        resource("TaskExecutor", "payer", {**SCRIPT, "secrets": [{"name": "token", "env": "TOKEN"}]}),
        resource("ProcessDefinition", "orders", {"file": "orders.bpmn"}),
    )
    assert "helm or external" in read.problems["ProkOS", "demo"][0]
    assert "secretKeyRef" in read.problems["TaskExecutor", "payer"][0]
    assert "configMapRef" in read.problems["ProcessDefinition", "orders"][0]


def test_a_doubt_is_a_warning():
    read = wanted(resource("ProcessDefinition", "orders", {"bpmn": ORDERS}))
    assert read.problems == {}
    assert "incident" in read.warnings["ProcessDefinition", "orders"][0]
