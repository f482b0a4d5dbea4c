"""Small processes and executors for tests."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL" '
    'xmlns:zeebe="http://camunda.org/schema/zeebe/1.0" id="Definitions" targetNamespace="http://prokos.io/test">\n'
)


def one_task(
    process: str,
    job_type: str,
    *,
    retries: int = 3,
    headers: dict[str, str] | None = None,
    name: str = "",
    error: str | None = None,
) -> str:
    """A process of one service task; with `error` a boundary event catches that code and sets `caught`."""
    listed = "".join(f'<zeebe:header key="{key}" value="{value}"/>' for key, value in (headers or {}).items())
    caught = _caught_at("Task") if error else ""
    declared = f'<bpmn:error id="Error" errorCode="{error}"/>' if error else ""
    return HEAD + textwrap.dedent(f"""\
        <bpmn:process id="{process}" isExecutable="true">
          <bpmn:startEvent id="Start"><bpmn:outgoing>f1</bpmn:outgoing></bpmn:startEvent>
          <bpmn:sequenceFlow id="f1" sourceRef="Start" targetRef="Task"/>
          <bpmn:serviceTask id="Task" name="{name or process}">
            <bpmn:extensionElements>
              <zeebe:taskDefinition type="{job_type}" retries="{retries}"/>
              <zeebe:taskHeaders>{listed}</zeebe:taskHeaders>
            </bpmn:extensionElements>
            <bpmn:incoming>f1</bpmn:incoming><bpmn:outgoing>f2</bpmn:outgoing>
          </bpmn:serviceTask>
          <bpmn:sequenceFlow id="f2" sourceRef="Task" targetRef="End"/>
          <bpmn:endEvent id="End"><bpmn:incoming>f2</bpmn:incoming></bpmn:endEvent>{caught}
        </bpmn:process>
        {declared}
        </bpmn:definitions>
        """)


def calling(process: str, tde: str) -> str:
    """A process that calls a TDE; a boundary event catches the error REJECTED and sets `caught`."""
    return HEAD + textwrap.dedent(f"""\
        <bpmn:process id="{process}" isExecutable="true">
          <bpmn:startEvent id="Start"><bpmn:outgoing>f1</bpmn:outgoing></bpmn:startEvent>
          <bpmn:sequenceFlow id="f1" sourceRef="Start" targetRef="Call"/>
          <bpmn:callActivity id="Call">
            <bpmn:extensionElements>
              <zeebe:calledElement processId="tde-{tde}" propagateAllChildVariables="true"/>
            </bpmn:extensionElements>
            <bpmn:incoming>f1</bpmn:incoming><bpmn:outgoing>f2</bpmn:outgoing>
          </bpmn:callActivity>
          <bpmn:sequenceFlow id="f2" sourceRef="Call" targetRef="End"/>
          <bpmn:endEvent id="End"><bpmn:incoming>f2</bpmn:incoming></bpmn:endEvent>{_caught_at("Call")}
        </bpmn:process>
        <bpmn:error id="Error" errorCode="REJECTED"/>
        </bpmn:definitions>
        """)


def _caught_at(element: str) -> str:
    """A boundary event that catches the error and sets `caught`."""
    return f"""
        <bpmn:boundaryEvent id="Caught" attachedToRef="{element}">
          <bpmn:extensionElements><zeebe:ioMapping>
            <zeebe:output source="=reason" target="caught"/>
          </zeebe:ioMapping></bpmn:extensionElements>
          <bpmn:outgoing>f3</bpmn:outgoing>
          <bpmn:errorEventDefinition id="CaughtDefinition" errorRef="Error"/>
        </bpmn:boundaryEvent>
        <bpmn:sequenceFlow id="f3" sourceRef="Caught" targetRef="EndCaught"/>
        <bpmn:endEvent id="EndCaught"><bpmn:incoming>f3</bpmn:incoming></bpmn:endEvent>"""


def python_executor(name: str, source: str, *, job_type: str | None = None, **spec: Any) -> dict[str, Any]:
    """A script executor in Python that accepts a job type."""
    return {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": "TaskExecutor",
        "metadata": {"name": name},
        "spec": {
            "type": "script",
            "description": name,
            **({"accepts": [{"jobType": job_type}]} if job_type else {}),
            "script": {"language": "python", "source": textwrap.dedent(source)},
            **spec,
        },
    }


def write(
    directory: Path, *, processes: dict[str, str] | None = None, resources: list[dict[str, Any]] | None = None
) -> Path:
    """Write manifests into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, xml in (processes or {}).items():
        replace(directory / f"{name}.bpmn", xml)
    for resource in resources or []:
        file = directory / f"{resource['kind'].lower()}-{resource['metadata']['name']}.yaml"
        replace(file, yaml.safe_dump(resource, sort_keys=False))
    return directory


def replace(file: Path, text: str) -> None:
    """Write a manifest that may be watched: nobody sees half of it."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.rename(file)
