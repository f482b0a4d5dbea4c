"""Finding every element of a process that makes a job.

What makes one was tried on Zeebe 8.6.0: an end event without a message ignores its task definition, a user task
gets Camunda's own job type whatever it defines, and a listener's job carries no headers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prokos.processes.model import Process, Task
from prokos.processes.parsing import BPMN, extensions, is_bpmn, line_of, local_name
from prokos.resources.names import USER_TASK_JOB_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml import etree

_DEFINED_BY_TASK_DEFINITION = ("serviceTask", "sendTask", "businessRuleTask", "scriptTask", "adHocSubProcess")
_LISTENERS = {"executionListener": "executionListeners", "taskListener": "taskListeners"}

# Escapes are left to the engine: 8.6.0 reads \n and \", but keeps \u0041 as it is.
_FEEL_STRING = re.compile(r'^=\s*"([^"\\]*)"\s*$')


def read_process(process: etree._Element) -> Process:
    """Read an executable process, which must have an id."""
    tag = next((found.get("value") for found in extensions(process, "versionTag")), None)
    tasks = tuple(task for element in process.iter() if is_bpmn(element) for task in _tasks(element))
    return Process(process.get("id", ""), _one_line(process.get("name")), tag, tasks, line_of(process))


def throws_message(element: etree._Element) -> bool:
    """Whether an element is an event that throws a message."""
    throwing = is_bpmn(element, "intermediateThrowEvent", "endEvent")
    return throwing and element.find(f"{BPMN}messageEventDefinition") is not None


def resolve_job_type(text: str) -> tuple[str | None, str | None]:
    """Read a job type as the model writes it.

    Returns:
        The job type and None; or None and the FEEL expression, when only the engine can evaluate it.
    """
    if not text.startswith("="):
        return text, None
    if literal := _FEEL_STRING.match(text):
        return literal.group(1), None
    return None, text


def _tasks(element: etree._Element) -> Iterator[Task]:
    if is_bpmn(element, *_DEFINED_BY_TASK_DEFINITION) or throws_message(element):
        for definition in extensions(element, "taskDefinition")[:1]:
            yield _task(element, local_name(element), definition.get("type"), definition.get("retries"))
    elif is_bpmn(element, "userTask") and not extensions(element, "userTask"):
        yield _task(element, "userTask", USER_TASK_JOB_TYPE, None)
    for kind, container in _LISTENERS.items():
        for listener in extensions(element, f"{container}/{kind}"):
            yield _task(element, kind, listener.get("type"), listener.get("retries"), listener)


def _task(
    element: etree._Element,
    element_type: str,
    job_type_text: str | None,
    retries: str | None,
    listener: etree._Element | None = None,
) -> Task:
    job_type, expression = resolve_job_type(job_type_text or "")
    headers = extensions(element, "taskHeaders/header") if listener is None else []
    documentation = element.findtext(f"{BPMN}documentation") or ""
    return Task(
        element_id=element.get("id", ""),
        element_name=_one_line(element.get("name")),
        element_type=element_type,
        documentation=documentation.strip(),
        job_type=job_type,
        job_type_expression=expression,
        headers={key: header.get("value", "") for header in headers if (key := header.get("key"))},
        retries=retries,
        multi_instance=element.find(f"{BPMN}multiInstanceLoopCharacteristics") is not None,
        line=line_of(element if listener is None else listener),
    )


def _one_line(text: str | None) -> str:
    """A name as one line: modelers break names where the shape ends."""
    return " ".join((text or "").split())
