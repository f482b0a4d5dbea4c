"""Parsing BPMN XML from people we do not know: no entities, no network, no document type."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from xml.parsers import expat

from lxml import etree

from prokos.resources.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"
ZEEBE = "{http://camunda.org/schema/zeebe/1.0}"
CAMUNDA_7 = "{http://camunda.org/schema/1.0/bpmn}"

_CHECK_BEFORE_SENDING = "open it in Camunda Modeler, save it as BPMN 2.0 for Camunda 8"


def parse(xml: bytes, file: str) -> etree._Element | Problem:
    """Parse BPMN XML.

    Args:
        xml: The XML, in the encoding it declares.
        file: Its name, for problems.

    Returns:
        The `definitions` element, or why there is none.
    """
    if _has_document_type(xml):
        # Before lxml sees it: entities in attributes would be expanded even with resolve_entities=False.
        return Problem("error", file, "", "a document type (<!DOCTYPE) is refused", 1, "remove it; BPMN has none")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(xml, parser)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        text = (error.msg or "cannot be read").rpartition(", line ")[0] or error.msg or "cannot be read"
        return Problem("error", file, "", f"not well-formed XML: {text} (column {column})", line or None)
    if root.getroottree().docinfo.internalDTD is not None:
        return Problem("error", file, "", "a document type (<!DOCTYPE) is refused", 1, "remove it; BPMN has none")
    if root.tag != f"{BPMN}definitions":
        message = f"not BPMN 2.0: the root element is {etree.QName(root).text}"
        return Problem("error", file, "", message, line_of(root), _CHECK_BEFORE_SENDING)
    return root


class _Done(Exception):  # noqa: N818 - it ends the parser early and says nothing about failure
    """The parser has seen enough."""


def _has_document_type(xml: bytes) -> bool:
    """Whether a document type comes before the root element, read without acting on it."""
    found: list[bool] = []

    def document_type(*_: object) -> None:
        found.append(True)
        raise _Done

    def element(*_: object) -> None:
        raise _Done

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = document_type
    parser.StartElementHandler = element
    with suppress(_Done, expat.ExpatError, ValueError, LookupError):
        parser.Parse(xml, True)
    return bool(found)


def is_bpmn(element: etree._Element, *names: str) -> bool:
    """Whether an element is one of BPMN's, with one of the names if some are given."""
    tag = str(element.tag)
    return tag.startswith(BPMN) and (not names or tag.removeprefix(BPMN) in names)


def line_of(element: etree._Element) -> int | None:
    """Line of the XML on which the element's start tag ends, counted from 1."""
    line = element.sourceline
    return line if isinstance(line, int) else None


def local_name(element: etree._Element) -> str:
    """The element's name without its namespace."""
    return etree.QName(element).localname


def extensions(element: etree._Element, path: str) -> list[etree._Element]:
    """Zeebe's extension elements of an element.

    Args:
        element: A BPMN element.
        path: Names from the outer to the inner one, e.g. `taskHeaders/header`.
    """
    steps = "/".join(f"{ZEEBE}{name}" for name in path.split("/"))
    return element.findall(f"{BPMN}extensionElements/{steps}")


def executable_processes(root: etree._Element) -> Iterator[etree._Element]:
    """The processes the engine would run. `isExecutable="1"`, correct as XML, is none to Zeebe 8.6.0 (run)."""
    for process in root.findall(f"{BPMN}process"):
        if process.get("isExecutable") == "true":
            yield process
