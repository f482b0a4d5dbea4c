"""Where the BPMN of ProcessDefinitions comes from: inline, a file, a ConfigMap, or a bare `.bpmn` file."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

from prokos.resources.base import NAME_MAX_LENGTH, Metadata
from prokos.resources.config_maps import find_config_map
from prokos.resources.files import UnreadableFileError, read_bounded
from prokos.resources.loaded import BpmnSource, Located
from prokos.resources.problems import Problem, did_you_mean
from prokos.resources.process import ProcessDefinition, ProcessDefinitionSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources import Resource
    from prokos.resources.config_maps import ConfigMap, ConfigMapRef
    from prokos.resources.problems import FieldPath

_PROCESS = "http://www.omg.org/spec/BPMN/20100524/MODEL process"
_DECLARED_ENCODING = re.compile(r"""^<\?xml[^>]*?\sencoding\s*=\s*["']([\w.-]+)["']""")


def find_bpmn(
    at: Located[Resource], definition: ProcessDefinition, config_maps: Mapping[tuple[str, str], ConfigMap]
) -> BpmnSource | Problem:
    """Read the BPMN that a ProcessDefinition names.

    Args:
        at: Where the resource is written.
        definition: The resource itself.
        config_maps: The ConfigMaps of the manifests by namespace and name.

    Returns:
        The BPMN, or why there is none.
    """
    spec = definition.spec
    if spec.bpmn is not None:
        return BpmnSource(_encode(spec.bpmn), at.file, at.blocks.get(("spec", "bpmn")))
    if spec.file is not None:
        return _from_file(at, spec.file)
    assert spec.config_map_ref is not None  # noqa: S101 - the model has exactly one source
    return _from_config_map(at, spec.config_map_ref, config_maps)


def _from_file(at: Located[Resource], name: str) -> BpmnSource | Problem:
    path: FieldPath = ("spec", "file")
    if Path(name).is_absolute():
        return at.problem(path, f"{name!r} is absolute", "give the path relative to the manifest")
    file = at.file.parent / name
    try:
        return BpmnSource(read_bounded(file), file)
    except UnreadableFileError as error:
        return at.problem(path, f"{file} {error}", did_you_mean(Path(name).name, _names_beside(file)))


def _names_beside(file: Path) -> list[str]:
    try:
        return [found.name for found in file.parent.glob("*.bpmn")]
    except (OSError, ValueError):
        return []


def _from_config_map(
    at: Located[Resource], reference: ConfigMapRef, config_maps: Mapping[tuple[str, str], ConfigMap]
) -> BpmnSource | Problem:
    found = find_config_map(at, ("spec", "configMapRef"), reference, config_maps)
    if isinstance(found, Problem):
        return found
    line = found.blocks.get(("data", reference.key))
    return BpmnSource(_encode(found.data[reference.key]), found.file, line)


def _encode(text: str) -> bytes:
    """Turn XML that came as text into bytes in the encoding that its declaration announces."""
    if declared := _DECLARED_ENCODING.match(text):
        with suppress(LookupError, UnicodeError):
            return text.encode(declared.group(1))
    return text.encode()


def bare_bpmn(file: Path) -> Located[ProcessDefinition] | Problem:
    """Make a `.bpmn` file a ProcessDefinition with default settings, named after its process."""
    try:
        xml = read_bounded(file)
    except UnreadableFileError as error:
        return Problem("error", str(file), "", str(error))
    name = _valid_name(executable_process_id(xml) or "") or _valid_name(file.stem) or "process"
    resource = ProcessDefinition(metadata=Metadata(name=name), spec=ProcessDefinitionSpec(file=file.name))
    return Located(resource, file, line=1, bpmn=BpmnSource(xml, file))


def _valid_name(text: str) -> str:
    """The nearest resource name: `Order_Fulfilment` becomes `order-fulfilment`; empty if nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:NAME_MAX_LENGTH].strip("-")


class _Done(Exception):  # noqa: N818 - it ends the parser early and says nothing about failure
    """The parser has seen enough."""


def executable_process_id(xml: bytes) -> str | None:
    """Id of the first executable process; None if there is none or the XML cannot be read.

    Reading BPMN is the business of `prokos.processes`; this is just enough to name a file, without its libraries.
    """
    ids: list[str] = []

    def element(name: str, attributes: dict[str, str]) -> None:
        if name == _PROCESS and attributes.get("isExecutable") == "true" and attributes.get("id"):
            ids.append(attributes["id"])
            raise _Done

    def doctype(*_: object) -> None:
        raise _Done

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = element
    parser.StartDoctypeDeclHandler = doctype
    with suppress(_Done, expat.ExpatError, ValueError, LookupError):
        parser.Parse(xml, True)
    return ids[0] if ids else None
