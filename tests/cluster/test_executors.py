"""Executors as pods: one for each task, and images that are not ours. A real kubelet, a real engine.

One system serves all tests of this file, in a namespace that admits restricted pods only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster.conftest import Cluster

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "container"
OPERATOR = "prokos-system"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
PLANTED = "correct-horse-battery-staple"

STARTING = 300.0
"""Seconds an engine may take to start on a machine that does everything else too."""

CHANGE = 180.0
"""Seconds until a change shows: pods made, a condition written."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

BPMN = """<?xml version="1.0" encoding="UTF-8"?>
<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
 xmlns:zeebe="http://camunda.org/schema/zeebe/1.0" id="D" targetNamespace="t">
 <bpmn:process id="{name}" isExecutable="true">
  <bpmn:startEvent id="S"><bpmn:outgoing>a</bpmn:outgoing></bpmn:startEvent>
  <bpmn:sequenceFlow id="a" sourceRef="S" targetRef="T"/>
  <bpmn:serviceTask id="T"><bpmn:extensionElements>
   <zeebe:taskDefinition type="{name}"/></bpmn:extensionElements>
   <bpmn:incoming>a</bpmn:incoming><bpmn:outgoing>b</bpmn:outgoing></bpmn:serviceTask>
  <bpmn:sequenceFlow id="b" sourceRef="T" targetRef="E"/>
  <bpmn:endEvent id="E"><bpmn:incoming>b</bpmn:incoming></bpmn:endEvent>
 </bpmn:process>
</bpmn:definitions>"""

LEAVES_TRACES = """
import glob, os, pathlib, platform
def main(input):
    found = sorted(glob.glob("/work/trace*") + glob.glob("/tmp/trace*"))
    pathlib.Path("/work/trace").write_text("x")
    pathlib.Path("/tmp/trace").write_text("x")
    return {"pod": platform.node(), "found": found}
"""


class System:
    """The system of this file's tests, seen through kubectl."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def apply(self, *documents: dict[str, Any]) -> None:
        for document in documents:
            self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *what, "-o", "json"))
        return found

    def pods(self, executor: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("pods", "-l", f"prokos.io/executor={executor}")["items"]
        return found

    def until(self, look: Callable[[], Any], describe: Callable[[], Any], timeout: float = CHANGE) -> Any:
        """Wait until something is so."""
        deadline = time.monotonic() + timeout
        while not (found := look()):
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {describe()}"
            time.sleep(0.5)
        return found

    def condition(self, kind: str, name: str, condition: str = "Ready") -> dict[str, Any]:
        found = self.get(kind, name)
        for one in found.get("status", {}).get("conditions", []):
            if one["type"] == condition and one.get("observedGeneration") == found["metadata"]["generation"]:
                return dict(one)
        return {}

    def until_ready(self, *resources: tuple[str, str]) -> None:
        for kind, name in resources:
            self.until(
                lambda kind=kind, name=name: self.condition(kind, name).get("status") == "True",  # type: ignore[misc]
                lambda kind=kind, name=name: self.get(kind, name).get("status"),  # type: ignore[misc]
            )

    def run(self, process: str, variables: dict[str, Any] | None = None, *options: str) -> str:
        """Run a process to its end, as the docs say."""
        command = ("exec", "-i", "deploy/demo-pdo", "--", "prokos", "run", process, "--vars", "-", *options)
        return self.kubectl(*command, stdin=json.dumps(variables or {}))

    def variables(self, process: str, variables: dict[str, Any] | None = None, timeout: int = 180) -> dict[str, Any]:
        """The variables it ends with."""
        found: dict[str, Any] = json.loads(self.run(process, variables, "--timeout", str(timeout), "--output", "json"))
        return dict(found["variables"])

    def tasks(self, process: str) -> list[dict[str, Any]]:
        command = ("exec", "deploy/demo-pdo", "--", "prokos", "tasks", "--output", "json", "-n", "500")
        return [task for task in json.loads(self.kubectl(*command)) if task["process"] == process]

    def incident(self, process: str, variables: dict[str, Any]) -> str:
        """Run a process whose task becomes an incident; returns its message."""
        self.run(process, variables, "--no-wait")

        def stuck() -> str | None:
            return next((task["message"] for task in self.tasks(process) if task["state"] == "incident"), None)

        message: str = self.until(stuck, lambda: self.tasks(process))
        return message


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "prokos.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def lone(name: str, source: str, **more: Any) -> list[dict[str, Any]]:
    """An executor with a pod for each task, and a process of one task for it."""
    spec = {
        "type": "script",
        "script": {"language": "python", "source": source},
        "accepts": [{"jobType": name}],
        "concurrency": 1,
        "scaling": {"podPerTask": True, "min": 0, "max": 3},
        **more,
    }
    return [
        resource("TaskExecutor", name, spec),
        resource("ProcessDefinition", name, {"bpmn": BPMN.format(name=name)}),
    ]


@pytest.fixture(scope="module")
def system(cluster: Cluster) -> Iterator[System]:
    """Operator, a system and its engine; gone afterwards."""
    cluster.load_images("worker", "system", "engine", "scorer")
    namespace = "executors"
    made = System(cluster, namespace)
    try:
        cluster.helm("upgrade", "--install", "prokos-crds", str(ROOT / "helm/prokos-crds"), "--wait")
        into = ("--namespace", OPERATOR, "--create-namespace")
        cluster.helm(
            "upgrade", "--install", "prokos", str(ROOT / "helm/prokos"), *into, "--wait", *cluster.image_values()
        )
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("label", "namespace", namespace, RESTRICTED)
        engine = {"chart": "camunda-engine", "values": {"image": cluster.engine_image()}}
        made.apply(resource("ProkOS", "demo", {"engine": {"helm": engine}}))
        made.kubectl("wait", "--for=condition=Ready", "prokos/demo", f"--timeout={STARTING:g}s")
        yield made
    finally:
        cluster.kubectl("delete", "prokoses", "--all", "--namespace", namespace, "--timeout", "120s")
        cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout", "180s")
        cluster.helm("uninstall", "prokos", "--namespace", OPERATOR, "--wait")
        cluster.helm("uninstall", "prokos-crds")
        cluster.kubectl("delete", "crd", "-l", "app.kubernetes.io/part-of=prokos")
        cluster.kubectl("delete", "namespace", OPERATOR, "--timeout", "60s")


# --- a pod for each task --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtime_class(system: System) -> Iterator[str]:
    """A RuntimeClass; the node has one runtime, so that is the one it names."""
    name = "prokos-test-sandbox"
    made = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "runc"}
    system.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    yield name
    system.cluster.kubectl("delete", "runtimeclass", name)


def test_two_tasks_run_in_two_pods_and_each_pod_ends(system: System, runtime_class: str) -> None:
    system.apply(*lone("traces", LEAVES_TRACES, pod={"runtimeClassName": runtime_class}))
    try:
        system.until_ready(("taskexecutor", "traces"), ("processdefinition", "traces"))
        assert system.pods("traces") == []
        with ThreadPoolExecutor(2) as runs:
            first, second = runs.map(lambda _: system.variables("traces"), range(2))
        third = system.variables("traces")
        names = {one["pod"] for one in (first, second, third)}
        assert len(names) == 3, "two tasks shared a pod"
        assert [one["found"] for one in (first, second, third)] == [[], [], []]

        def ended() -> bool:
            pods = [pod for pod in system.pods("traces") if pod["metadata"]["name"] in names]
            return len(pods) == 3 and all(pod["status"]["phase"] == "Succeeded" for pod in pods)

        system.until(ended, lambda: [(pod["metadata"]["name"], pod["status"]) for pod in system.pods("traces")])
        for pod in system.pods("traces"):
            assert pod["spec"]["runtimeClassName"] == runtime_class
            assert pod["metadata"]["ownerReferences"][0]["kind"] == "Job"
        assert "traces-tde" not in system.kubectl("get", "deployments", "-o", "name")
        system.until_ready(("taskexecutor", "traces"))
        assert system.get("taskexecutor", "traces")["status"]["workers"] == "0/0"
    finally:
        system.kubectl("delete", "taskexecutor/traces", "processdefinition/traces")
    system.until(lambda: not system.pods("traces"), lambda: system.pods("traces"))


def test_a_task_whose_pod_breaks_gets_another_one(system: System) -> None:
    source = """
import platform, time
def main(input):
    print("it began", flush=True)
    time.sleep(input["seconds"])
    return platform.node()
"""
    system.apply(*lone("breaks", source))
    try:
        system.until_ready(("taskexecutor", "breaks"), ("processdefinition", "breaks"))
        with ThreadPoolExecutor(1) as runs:
            running = runs.submit(system.variables, "breaks", {"seconds": 15})

            def busy() -> str | None:
                running = [pod for pod in system.pods("breaks") if pod["status"]["phase"] == "Running"]
                names = [str(pod["metadata"]["name"]) for pod in running]
                return next((name for name in names if "it began" in system.kubectl("logs", name)), None)

            broken = system.until(busy, lambda: system.pods("breaks"))
            system.kubectl("delete", "pod", broken, "--grace-period=0", "--force")
            ended_in = running.result()["result"]
        assert ended_in != broken
    finally:
        system.kubectl("delete", "taskexecutor/breaks", "processdefinition/breaks")


def test_a_waiting_pod_is_replaced_when_its_executor_changes_and_is_gone_with_it(system: System) -> None:
    scaling = {"podPerTask": True, "min": 1, "max": 3}
    system.apply(*lone("waits", LEAVES_TRACES, scaling=scaling))
    try:
        system.until(lambda: system.get("taskexecutor", "waits")["status"].get("workers") == "1/1", lambda: "no pod")
        before = {pod["metadata"]["name"] for pod in system.pods("waits")}
        system.apply(*lone("waits", LEAVES_TRACES + "# changed\n", scaling=scaling))

        def replaced() -> bool:
            now = {pod["metadata"]["name"] for pod in system.pods("waits")}
            return bool(now) and not now & before

        system.until(replaced, lambda: system.pods("waits"))
        assert system.variables("waits")["pod"] not in before
    finally:
        system.kubectl("delete", "taskexecutor/waits", "processdefinition/waits")
    system.until(lambda: not system.pods("waits"), lambda: system.pods("waits"))


# --- an image of somebody else's ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer(system: System) -> Iterator[System]:
    """The example `container`, with its key in a Secret."""
    system.kubectl("create", "secret", "generic", "scorer", f"--from-literal=signing-key={PLANTED}")
    for name in ("executor.yaml", "process.yaml"):
        system.kubectl("apply", "-f", str(EXAMPLE / name))
    system.until_ready(("taskexecutor", "scorer"), ("processdefinition", "score-payment"))
    yield system
    for name in ("executor.yaml", "process.yaml"):
        system.kubectl("delete", "-f", str(EXAMPLE / name))
    system.kubectl("delete", "secret", "scorer")


def test_an_image_in_go_gives_a_result_with_a_key_from_a_secret(scorer: System) -> None:
    found = scorer.variables("score-payment", {"customer": "ada", "amount": 250})
    assert found["score"] == 0.75
    assert found["signature"] == hmac.new(PLANTED.encode(), b"ada:0.750", hashlib.sha256).hexdigest()


def test_its_business_error_is_caught_by_the_process(scorer: System) -> None:
    found = scorer.variables("score-payment", {"customer": "ada", "amount": 2000})
    assert (found["limit"], "score" in found) == (1000, False)


def test_its_failure_is_an_incident_with_its_message(scorer: System) -> None:
    assert "needs an amount that is not negative" in scorer.incident("score-payment", {"customer": "b", "amount": -1})


def test_no_secret_is_in_anything_that_kubectl_shows_but_the_secret(scorer: System) -> None:
    scorer.variables("score-payment", {"customer": "ada", "amount": 250})
    kinds = "taskexecutors,prokoses,processdefinitions,pods,deployments,configmaps,events,networkpolicies,jobs"
    shown = scorer.kubectl("get", kinds, "-o", "yaml")
    assert "scorer" in shown
    logs = scorer.kubectl("logs", "deploy/scorer-tde", "--all-containers") + scorer.kubectl("logs", "deploy/demo-pdo")
    assert "task ended" in logs
    tasks = json.dumps(scorer.tasks("score-payment"))
    operator = scorer.cluster.kubectl("logs", "--namespace", OPERATOR, "deploy/prokos")
    assert [place for place in (shown, logs, tasks, operator) if PLANTED in place] == []


def test_each_task_leaves_one_structured_line_with_its_process_element_and_job(scorer: System) -> None:
    scorer.variables("score-payment", {"customer": "ada", "amount": 250})
    lines = scorer.kubectl("logs", "deploy/scorer-tde", "--container", "worker").splitlines()
    ends = [json.loads(line) for line in lines if '"task ended"' in line]
    (end,) = [one for one in ends if one["job"] == ends[-1]["job"]]
    assert (end["process"], end["element"], end["executor"]) == ("score-payment", "Score", "scorer")
    assert (end["outcome"], end["seconds"] >= 0) == ("completed", True)


def test_an_image_that_does_not_answer_is_told_with_what_to_check(system: System) -> None:
    silent = yaml.safe_load((EXAMPLE / "executor.yaml").read_text())
    silent["metadata"]["name"] = "silent"
    silent["spec"] |= {"accepts": [{"jobType": "silence"}], "secrets": []}
    silent["spec"]["container"] |= {"secretEnv": {}, "env": {"SIGNING_KEY": "k"}, "healthPath": "/nothing-here"}
    system.apply(silent)
    try:
        said = system.until(
            lambda: (
                (one := system.condition("taskexecutor", "silent")).get("status") == "False"
                and "settings do not work" in one["message"]
                and one
            ),
            lambda: system.get("taskexecutor", "silent").get("status"),
            300,
        )
        (pod,) = system.pods("silent")
        log = system.kubectl("logs", pod["metadata"]["name"], "--container", "worker", "--previous")
        assert "GET http://127.0.0.1:8080/nothing-here" in log
        assert "--previous" in said["message"]
    finally:
        system.kubectl("delete", "taskexecutor", "silent")
