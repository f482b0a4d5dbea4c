"""What the engine would refuse, or silently ignore, said before anything is deployed.

Each check was tried on Zeebe 8.6.0: what is an error here is rejected there, and a warning is accepted without
doing what the model seems to say. The engine's own validation stays the last word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prokos.processes.parsing import BPMN, CAMUNDA_7, executable_processes, extensions, is_bpmn, line_of, local_name
from prokos.processes.tasks import throws_message
from prokos.resources.names import is_reserved_process_id
from prokos.resources.problems import Problem, Severity, did_you_mean, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml import etree

_IDENTIFIED = ("{http://www.omg.org/spec/BPMN/20100524/", "{http://www.omg.org/spec/DD/20100524/")
"""Namespaces whose `id` attributes share one space: BPMN's model and its diagrams."""

# An XML NCName, nearly: its rare combining characters are let through.
_NC_NAME = re.compile(r"^[^\W\d][^:\s]*$")

LONGEST_ID = 50_000
"""Bytes. The engine takes longer ids, but no longer names of variables, and in the kernel's processes ids are such."""

_FLOW_NODE = re.compile(r"(Task|Event|Gateway|^task|[sS]ubProcess|SubProcess|^transaction|^callActivity)$")

_REQUIRED_REFERENCES = {"sequenceFlow": ("sourceRef", "targetRef"), "boundaryEvent": ("attachedToRef",)}
_REFERENCES = ("messageRef", "errorRef", "signalRef", "escalationRef")

# What an element has instead of a task definition, if it makes no job.
_INSTEAD = {"businessRuleTask": "calledDecision", "scriptTask": "script"}

_DEFINE = 'give it <zeebe:taskDefinition type="..."/>; in the Modeler: Task definition, Type'
_CAMUNDA_7 = "the model is for Camunda 7; convert it to Camunda 8"


def check_structure(root: etree._Element, file: str, *, kernel: bool) -> Iterator[Problem]:
    """Check a BPMN document.

    Args:
        root: The `definitions` element.
        file: Its name, for problems.
        kernel: Whether it is one of ours, which may use the names that are reserved for us.
    """
    checks = _Checks(root, file)
    yield from checks.ids()
    yield from checks.references()
    yield from checks.processes(kernel=kernel)


class _Checks:
    def __init__(self, root: etree._Element, file: str) -> None:
        self._root = root
        self._file = file
        self._by_id: dict[str, etree._Element] = {}
        self._targets: set[str] = set()

    def _problem(self, element: etree._Element, message: str, hint: str = "", severity: Severity = "error") -> Problem:
        identity = element.get("id", "")
        if not identity and (parent := element.getparent()) is not None and parent is not self._root:
            identity = parent.get("id", "")
        return Problem(severity, self._file, identity, message, line_of(element), hint)

    def ids(self) -> Iterator[Problem]:
        for element in self._root.iter():
            identity = element.get("id")
            if identity is None or not str(element.tag).startswith(_IDENTIFIED):
                continue
            if (length := len(identity.encode())) > LONGEST_ID:
                shown, hint = f"{identity[:40]}...", f"at most {LONGEST_ID}: names of variables are no longer"
                yield Problem("error", self._file, shown, f"the id is {length} bytes long", line_of(element), hint)
            first = self._by_id.setdefault(identity, element)
            if is_bpmn(element):
                self._targets.add(identity)
            if first is not element:
                yield self._problem(element, f"id {identity!r} is there twice, first in line {line_of(first)}")
            elif not _NC_NAME.match(identity):
                hint = "start it with a letter or _, without spaces and colons"
                yield self._problem(element, f"{quote(identity)} is not a valid XML id", hint)

    def references(self) -> Iterator[Problem]:
        for element in self._root.iter(f"{BPMN}*"):
            for name in _REQUIRED_REFERENCES.get(local_name(element), ()):
                target = element.get(name)
                if not target:
                    yield self._problem(element, f"{local_name(element)} has no {name}")
                else:
                    yield from self._missing(element, name, target)
            for name in _REFERENCES:
                if (target := element.get(name)) is not None:
                    yield from self._missing(element, name, target.rpartition(":")[2])
            if (default := element.get("default")) is not None:
                yield from self._default(element, default)

    def _missing(self, element: etree._Element, name: str, target: str) -> Iterator[Problem]:
        if target not in self._targets:
            message = f"{name} of this {local_name(element)} names {target!r}, which is not there"
            yield self._problem(element, message, did_you_mean(target, self._targets))

    def _default(self, element: etree._Element, default: str) -> Iterator[Problem]:
        flow = self._by_id.get(default)
        if flow is None:
            yield from self._missing(element, "default", default)
        elif not is_bpmn(flow, "sequenceFlow") or flow.get("sourceRef") != element.get("id"):
            yield self._problem(element, f"its default flow {default!r} does not start here")

    def processes(self, *, kernel: bool) -> Iterator[Problem]:
        executable = list(executable_processes(self._root))
        if not executable:
            hint = 'set isExecutable="true" on the process; in the Modeler: Executable'
            yield Problem("error", self._file, "", "no executable process", line_of(self._root), hint)
        for process in executable:
            identity = process.get("id")
            if not identity:
                yield self._problem(process, "an executable process has no id")
            elif is_reserved_process_id(identity) and not kernel:
                hint = "choose an id that does not start with prokos- or tde-"
                yield self._problem(process, f"process id {identity!r} is reserved for ProkOS", hint)
            if process.find(f"{BPMN}startEvent") is None:
                yield self._problem(process, "the process has no start event")
            for element in process.iter(f"{BPMN}*"):
                yield from self._element(element)

    def _element(self, element: etree._Element) -> Iterator[Problem]:
        name = local_name(element)
        if not element.get("id") and (_FLOW_NODE.search(name) or name == "sequenceFlow"):
            yield self._problem(element, f"this {name} has no id")
        definitions = extensions(element, "taskDefinition")
        if name == "serviceTask":
            if len(definitions) != 1:
                yield self._undefined(element, f"{name} needs one task definition, and has {len(definitions)}")
        elif name in _INSTEAD:
            other = _INSTEAD[name]
            if len(definitions) + len(extensions(element, other)) != 1:
                yield self._undefined(element, f"{name} needs either zeebe:{other} or zeebe:taskDefinition")
        elif name == "sendTask" or throws_message(element):
            yield from self._message(element, name, definitions)
        elif name == "callActivity" and not any(
            found.get("processId") for found in extensions(element, "calledElement")
        ):
            yield self._undefined(element, "callActivity needs zeebe:calledElement with a processId", hint="")

    def _undefined(self, element: etree._Element, message: str, hint: str = _DEFINE) -> Problem:
        foreign = any(str(key).startswith(CAMUNDA_7) for key in element.attrib)
        return self._problem(element, message, _CAMUNDA_7 if foreign else hint)

    def _message(self, element: etree._Element, name: str, definitions: list[etree._Element]) -> Iterator[Problem]:
        if definitions:
            return
        event = element.find(f"{BPMN}messageEventDefinition")
        if extensions(element if event is None else event, "publishMessage"):
            message = f"the engine publishes nothing for the zeebe:publishMessage of this {name}"
            yield self._problem(element, message, _DEFINE, "warning")
        else:
            yield self._undefined(element, f"{name} needs a task definition: its job sends the message")
