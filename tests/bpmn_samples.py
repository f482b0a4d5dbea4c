"""Small BPMN documents for tests, each element on a line of its own."""

from __future__ import annotations

TASK = '<bpmn:extensionElements><zeebe:taskDefinition type="work"/></bpmn:extensionElements>'


def document(*body: str) -> str:
    """A `definitions` element; the first line of the body is line 4."""
    return "\n".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"',
            ' xmlns:zeebe="http://camunda.org/schema/zeebe/1.0" id="Definitions" targetNamespace="t">',
            *body,
            "</bpmn:definitions>",
        )
    )


def process(*elements: str, process_id: str = "orders", start: bool = True) -> str:
    """A document with one executable process; its elements start at line 5, after the start event at line 6."""
    first = ['<bpmn:startEvent id="Start"/>'] if start else []
    return document(f'<bpmn:process id="{process_id}" isExecutable="true">', *first, *elements, "</bpmn:process>")


def extended(content: str) -> str:
    """Extension elements with the content given."""
    return f"<bpmn:extensionElements>{content}</bpmn:extensionElements>"


def element(name: str, element_id: str, *extensions: str, inner: str = "") -> str:
    """A BPMN element with extension elements."""
    return f'<bpmn:{name} id="{element_id}">{extended("".join(extensions))}{inner}</bpmn:{name}>'


def service_task(element_id: str, job_type: str = "work", headers: dict[str, str] | None = None) -> str:
    """A service task."""
    lines = "".join(f'<zeebe:header key="{key}" value="{value}"/>' for key, value in (headers or {}).items())
    wrapped = f"<zeebe:taskHeaders>{lines}</zeebe:taskHeaders>" if lines else ""
    quoted = job_type.replace('"', "&quot;")
    extension = extended(f'<zeebe:taskDefinition type="{quoted}"/>{wrapped}')
    return f'<bpmn:serviceTask id="{element_id}" name="Do {element_id}">{extension}</bpmn:serviceTask>'
