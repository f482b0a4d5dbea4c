"""Statuses: what a person sees of each resource."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bpmn_samples import process as bpmn
from bpmn_samples import service_task
from prokos.engine import DeployedProcess
from prokos.k8s.conditions import Statement
from prokos.k8s.desired import Found, read_wanted
from prokos.k8s.engine import EngineState
from prokos.k8s.home import ClusterHome, Images, PdoState, Pods, combine
from prokos.k8s.report import Facts, reports
from prokos.k8s.single_use import SingleUse
from prokos.kernel.plan import register_version
from prokos.registry.cluster import SystemRef
from unit.builders import registry
from unit.k8s.manifests import deployment, pod, resource

NOW = "2026-01-01T00:00:00Z"
SCRIPT = {"type": "script", "script": {"command": ["true"]}, "accepts": [{"jobType": "pay"}]}
WELL = EngineState(ready=Statement("EngineReady", "True", "Answering"))
LOADED = Statement("KernelLoaded", "True", "Loaded")
DEMO, PAYER = resource("ProkOS", "demo"), resource("TaskExecutor", "payer", SCRIPT)
ORDERS = resource("ProcessDefinition", "orders", {"bpmn": bpmn(service_task("Pay", "pay"))})


def facts(*manifests, registered=True, **changes):
    found = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    wanted = read_wanted(Found(found), registry())
    processes = [
        register_version(definition, process, DeployedProcess(definition.process_id, 3, 33, "orders.bpmn"), None)
        for process in wanted.desired.processes.values()
        for definition in process.file.processes
    ]
    values = {
        "system": "demo",
        "wanted": wanted,
        "registry": registry(wanted.desired.executors.values(), processes) if registered else registry(),
        "engine": WELL,
        "kernel": LOADED,
        "pods": Pods({one["metadata"]["name"]: one for one in (deployment(), deployment("demo-pdo"))}, {}),
        "pdo": PdoState({0: 0.5}, {"payer": 2}),
    }
    return Facts(**{**values, **changes}), found


def reported(*manifests, **changes):
    known, found = facts(*manifests, **changes)
    return {key: report.status for key, report in reports(known, found, NOW).items()}


def condition(status, kind="Ready"):
    (found,) = [one for one in status["conditions"] if one["type"] == kind]
    return found["status"], found["reason"]


def test_everything_is_well():
    status = reported(DEMO, PAYER, ORDERS)
    assert condition(status["ProkOS", "demo"]) == ("True", "Ready")
    assert status["ProkOS", "demo"]["executors"] == "1/1"
    assert status["ProkOS", "demo"]["shards"] == "1/1"
    assert condition(status["TaskExecutor", "payer"]) == ("True", "Ready")
    assert status["TaskExecutor", "payer"]["backlog"] == 2
    assert "prokos.io/executor=payer" in status["TaskExecutor", "payer"]["selector"]


def test_a_process_shows_its_version_and_every_route():
    status = reported(DEMO, PAYER, ORDERS)["ProcessDefinition", "orders"]
    assert (status["processId"], status["version"], status["routed"]) == ("orders", 3, "1/1")
    (task,) = status["processes"][0]["tasks"]
    assert (task["element"], task["executor"], task["source"]) == ("Pay", "payer", "rule")
    assert status["processes"][0]["key"] == "33"


def test_a_task_without_a_route_is_named():
    status = reported(DEMO, ORDERS)["ProcessDefinition", "orders"]
    assert status["routed"] == "0/1"
    assert "Pay" in status["conditions"][-1]["message"]


def test_an_invalid_executor_says_what_is_wrong():
    status = reported(DEMO, resource("TaskExecutor", "payer", {"type": "script"}))
    ready = status["TaskExecutor", "payer"]["conditions"][-1]
    assert (ready["status"], ready["reason"]) == ("False", "Invalid")
    assert "block 'script' is needed" in ready["message"]
    assert "payer" in status["ProkOS", "demo"]["conditions"][-1]["message"]


def test_what_the_engine_refuses_is_told():
    status = reported(DEMO, PAYER, refusals={("TaskExecutor", "payer"): "the engine refuses it"})
    assert condition(status["TaskExecutor", "payer"], "Registered") == ("False", "Refused")


def test_without_an_engine_resources_wait_for_it():
    silent = EngineState(ready=Statement("EngineReady", "False", "EngineUnreachable", "no answer"))
    status = reported(
        DEMO, PAYER, registered=False, engine=silent, kernel=Statement("KernelLoaded", "False", "EngineNotReady")
    )
    assert condition(status["ProkOS", "demo"]) == ("False", "EngineUnreachable")
    assert condition(status["TaskExecutor", "payer"], "Registered") == ("False", "EngineNotReady")


def test_a_heart_that_stopped_is_told():
    status = reported(DEMO, pdo=PdoState({0: 60.0}, {}))
    assert condition(status["ProkOS", "demo"], "PDOBeating") == ("False", "NoBeat")


def test_a_missed_beat_passes_and_a_heart_that_stays_silent_is_told():
    demo = {**DEMO, "status": reported(DEMO)["ProkOS", "demo"]}
    for silent, said in ((10.0, ("True", "Beating")), (61.0, ("False", "NoBeat"))):
        status = reported(demo, pdo=PdoState({0: silent}, {}, silent_for=silent))
        assert condition(status["ProkOS", "demo"], "PDOBeating") == said
        assert condition(status["ProkOS", "demo"])[0] == said[0]
        assert status["ProkOS", "demo"]["shards"] == "0/1"


def test_silence_counts_from_the_last_beat_or_from_the_first_look(monkeypatch):
    clock = iter((1000.0, 1030.0, 1040.0, 1045.0, 1060.0, 1070.0))
    monkeypatch.setattr("prokos.k8s.home.time", SimpleNamespace(monotonic=lambda: next(clock)))
    home = ClusterHome(None, SystemRef("shop", "demo", "uid"), Images("system", "worker"))
    home.beats_are_due = True
    heard = [{}, {0: 0.5}, {0: 5.5}, {0: 20.5}, {}]
    assert [home._listened(PdoState(beats)).silent_for for beats in heard] == [30.0, 0.0, 0.0, 15.0, 25.0]


def test_no_heart_is_silent_before_there_is_an_engine(monkeypatch):
    clock = iter((1000.0, 1090.0, 1100.0))
    monkeypatch.setattr("prokos.k8s.home.time", SimpleNamespace(monotonic=lambda: next(clock)))
    home = ClusterHome(None, SystemRef("shop", "demo", "uid"), Images("system", "worker"))
    assert home._listened(PdoState({})).silent_for == 0
    home.beats_are_due = True
    assert home._listened(PdoState({})).silent_for == 10


def test_the_replicas_are_one_pdo():
    one = {
        "now": 100.0,
        "executing": [],
        "shards": [{"shard": 0, "at": 90.0}],
        "inFlight": {"payer": 2},
        "running": {"order": 2},
    }
    other = {
        "now": 100.0,
        "executing": [],
        "shards": [{"shard": 0, "at": 99.5}],
        "inFlight": {"payer": 1, "shipper": 4},
        "running": {"order": 1, "parcel": 4},
    }
    assert combine([one, other]) == PdoState({0: 0.5}, {"payer": 3, "shipper": 4}, {"order": 3, "parcel": 4})
    assert combine([]).backlog is None


def test_a_task_that_all_replicas_hear_of_counts_once():
    """Three tasks are executed: one was taken by the first replica, two by nobody who is still there."""

    def answer(taken: int, waiting: int) -> dict[str, Any]:
        tasks = waiting + 3
        executing = [{"executor": "payer", "process": "order", "tasks": 3, "here": taken}]
        return {
            "now": 1.0, "shards": [], "inFlight": {"payer": tasks}, "running": {"order": tasks}, "executing": executing
        }  # fmt: skip

    assert combine([answer(1, 4), answer(0, 2)]) == PdoState({}, {"payer": 9}, {"order": 9})
    older = {name: value for name, value in answer(0, 2).items() if name != "executing"}
    assert combine([older]) == PdoState({}, {"payer": 5}, {"order": 5})
    assert combine([answer(1, 4)]) == PdoState({}, {"payer": 7}, {"order": 7})


def test_an_executor_with_a_pod_for_each_task_shows_how_many_there_are():
    spec = {**SCRIPT, "scaling": {"podPerTask": True, "min": 0, "max": 5}, "concurrency": 1}
    uses = [SingleUse("payer-tde-a", True), SingleUse("payer-tde-b", True), SingleUse("payer-tde-c", True, 3.0)]
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    pods = Pods({"demo-pdo": deployment("demo-pdo")}, {"payer-tde": [pod("1", **ready), pod("2")]}, {"payer-tde": uses})
    status = reported(DEMO, resource("TaskExecutor", "payer", spec), pods=pods)["TaskExecutor", "payer"]
    assert condition(status) == ("True", "Ready")
    assert (status["replicas"], status["readyReplicas"], status["workers"]) == (2, 1, "1/2")
