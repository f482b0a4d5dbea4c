"""The processes and executors of the benchmarks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.samples import HEAD

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE = "PT0.1S"
"""Length of the two timers in the ten-task process."""

TEN = tuple(f"task{number:02}" for number in range(1, 11))
"""Elements of the ten-task process, in their order."""

TEN_TYPES = tuple(f"ten-{number}" for number in range(1, 11))
"""Job types of the ten-task process whose prefix is `ten`."""


def ten_tasks(process: str, prefix: str) -> str:
    """Ten service tasks of ten job types, `PREFIX-1` to `PREFIX-10`: the shape of Camunda's own benchmark process.

    A gateway after the third task ends the process there or goes on (`long = true`), and a timer waits before the
    fourth and before the seventh; here for 0.1 s, there for a minute.
    """
    nodes = [event("start", "Start")]
    places = ["Start"]
    for position, element in enumerate(TEN, 1):
        if position in {4, 7}:
            nodes.append(
                f'<bpmn:intermediateCatchEvent id="Wait{position}"><bpmn:timerEventDefinition id="Timer{position}">'
                f"<bpmn:timeDuration>{PAUSE}</bpmn:timeDuration>"
                "</bpmn:timerEventDefinition></bpmn:intermediateCatchEvent>"
            )
            places.append(f"Wait{position}")
        nodes.append(service_task(element, f"{prefix}-{position}"))
        places.append(element)
        if position == 3:
            nodes.append('<bpmn:exclusiveGateway id="Continue" default="ToStopped"/>')
            places.append("Continue")
    nodes += [event("end", "End"), event("end", "Stopped")]
    places.append("End")
    flows = []
    for source, target in pairwise(places):
        condition = "<bpmn:conditionExpression>=long = true</bpmn:conditionExpression>" if source == "Continue" else ""
        flows.append(flow(f"{source}To{target}", source, target, condition))
    flows.append(flow("ToStopped", "Continue", "Stopped"))
    return definitions(process, nodes + flows)


def service_task(element: str, job_type: str) -> str:
    """A service task; BPMN wants no more of it than its id, and Camunda the type of its jobs."""
    return (
        f'<bpmn:serviceTask id="{element}"><bpmn:extensionElements><zeebe:taskDefinition type="{job_type}"/>'
        "</bpmn:extensionElements></bpmn:serviceTask>"
    )


def event(kind: str, element: str) -> str:
    """A start or end event."""
    return f'<bpmn:{kind}Event id="{element}"/>'


def flow(name: str, source: str, target: str, condition: str = "") -> str:
    """A sequence flow."""
    return f'<bpmn:sequenceFlow id="{name}" sourceRef="{source}" targetRef="{target}">{condition}</bpmn:sequenceFlow>'


def definitions(process: str, elements: Sequence[str]) -> str:
    """The document of one process."""
    body = "\n".join(elements)
    return f'{HEAD}<bpmn:process id="{process}" isExecutable="true">\n{body}\n</bpmn:process>\n</bpmn:definitions>\n'


def recording_executor(name: str, records: Path, job_types: Sequence[str], **spec: Any) -> dict[str, Any]:
    """An executor of type `python` that notes each execution. It works on as many tasks at a time as pyzeebe does."""
    return executor(
        name,
        "python",
        job_types,
        {
            "executor": "benchmarks.recording:RecordingExecutor",
            "path": str(Path(__file__).resolve().parents[1]),
            "settings": {"records": str(records)},
        },
        **{"concurrency": 32, **spec},
    )


def executor(name: str, kind: str, job_types: Sequence[str], settings: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A TaskExecutor that accepts job types."""
    return {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": "TaskExecutor",
        "metadata": {"name": name},
        "spec": {
            "type": kind,
            "accepts": [{"jobType": job_type} for job_type in job_types],
            kind: settings,
            **spec,
        },
    }


def system(**spec: Any) -> dict[str, Any]:
    """The ProkOS resource."""
    return {"apiVersion": "prokos.io/v1alpha1", "kind": "ProkOS", "metadata": {"name": "benchmark"}, "spec": spec}
