"""A system in a namespace, seen through kubectl as its users see it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.conftest import Cluster

NAMESPACE = "shop"
OPERATOR = "prokos-system"

STARTING = 600.0
"""Seconds an engine may take to start on a machine that does everything else too."""

CHANGE = 300.0
"""Seconds until a change shows: an image pulled, pods replaced, a condition written."""

LOOP = """<bpmn:multiInstanceLoopCharacteristics><bpmn:extensionElements>
 <zeebe:loopCharacteristics inputCollection="=tasks" inputElement="task"/>
</bpmn:extensionElements></bpmn:multiInstanceLoopCharacteristics>"""
"""Goes after a task's flows: one task for each item of the variable `tasks`, all at once."""

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
    metadata = {"name": name}
    return json.dumps({"apiVersion": "prokos.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})


def script(source: str = "def main(input):\n    return {}\n", **spec: Any) -> dict[str, Any]:
    """An executor that runs Python."""
    return {"type": "script", "script": {"language": "python", "source": source}, **spec}


class Shop:
    """The system `demo` of a namespace."""

    def __init__(self, cluster: Cluster, namespace: str = NAMESPACE) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def apply(self, *manifests: str) -> None:
        for manifest in manifests:
            self.kubectl("apply", "-f", "-", stdin=manifest)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def items(self, kinds: str, *options: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, *options, "-o", "json"))["items"]
        return found

    def events(self, reason: str, words: str, *, name: str = "demo") -> list[str]:
        """Messages of the events that a resource of ours got for a reason, and that have these words."""
        found = self.items("events", "--field-selector", f"reason={reason},involvedObject.name={name}")
        ours = [event for event in found if event["involvedObject"]["apiVersion"].startswith("prokos.io/")]
        return [event["message"] for event in ours if words in event["message"]]

    def page(self, pod: dict[str, Any], path: str) -> str:
        """A page of the PDO's status API."""
        name = pod["metadata"]["name"]
        return self.kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{name}:8080/proxy/{path}")

    def pods(self, executor: str) -> list[dict[str, Any]]:
        """The worker pods of an executor."""
        return self.items("pods", "-l", f"prokos.io/executor={executor}")

    def tasks(self, process: str) -> list[dict[str, Any]]:
        """The tasks of a process, as the PDO knows them."""
        command = ("exec", "deploy/demo-pdo", "--", "prokos", "tasks", "--output", "json", "--limit", "500")
        return [task for task in json.loads(self.kubectl(*command)) if task["process"] == process]

    def states(self, process: str) -> list[str]:
        """What has become of each task of a process."""
        return [task["state"] for task in self.tasks(process)]

    def condition(self, kind: str, name: str, condition: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message of a condition that speaks of the newest generation."""
        found = self.get(kind, name)
        for one in found.get("status", {}).get("conditions", []):
            if one["type"] == condition and one.get("observedGeneration") == found["metadata"]["generation"]:
                return one["status"], one["reason"], one.get("message", "")
        return "Unknown", "", ""

    def until(self, look: Callable[[], Any], timeout: float = CHANGE, describe: Callable[[], Any] | None = None) -> Any:
        """Wait until something is so. A look that cannot be had (a pod goes, a page does not answer) is repeated."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                if found := look():
                    return found
                failure = ""
            except AssertionError as error:
                failure = str(error)
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout:g} s: {failure or (describe() if describe else '')}")
            time.sleep(0.5)

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

    def run(self, process: str, variables: dict[str, Any] | None = None, timeout: int = 180) -> dict[str, Any]:
        """Run a process to its end, as the docs say."""
        arguments = ["exec", "-i", "deploy/demo-pdo", "--", "prokos", "run", process, "--vars", "-"]
        answer = self.kubectl(
            *arguments, "--timeout", str(timeout), "--output", "json", stdin=json.dumps(variables or {})
        )
        found: dict[str, Any] = json.loads(answer)
        return found
