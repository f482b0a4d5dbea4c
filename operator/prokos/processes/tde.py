"""The BPMN that ProkOS brings along: the TDE of an executor, rendered from its template, and the kernel's processes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import prokos
from prokos.resources.names import TDE_ATTEMPTS, mapping_decision, tde_process_id

if TYPE_CHECKING:
    from prokos.resources.executor import TaskExecutor

TEMPLATE = "tde.bpmn.j2"
MAPPINGS_TEMPLATE = "mappings.dmn.j2"

# XML 1.0 has no way to write these, not even escaped.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def bpmn_directory() -> Path:
    """Directory of the BPMN files: within the installed package, or the repository's when installed editable.

    Raises:
        FileNotFoundError: The installation lacks them.
    """
    package = Path(prokos.__file__).parent
    for directory in (package / "_bpmn", package.parents[1] / "bpmn"):
        if (directory / TEMPLATE).is_file():
            return directory
    raise FileNotFoundError(f"the BPMN files of ProkOS are not beside {package}; install the package again")


def render_tde(executor: TaskExecutor) -> bytes:
    """Render the TDE process of an executor.

    Args:
        executor: The executor. Only its name and description matter, and whether it awaits callbacks.

    Returns:
        BPMN XML in UTF-8, the same bytes for the same executor.
    """
    spec = executor.spec
    text = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            name=executor.metadata.name,
            attempts=TDE_ATTEMPTS,
            description=_xml_text(spec.description),
            awaits=spec.http is not None and spec.http.callback is not None,
        )
    )
    return text.encode()


def tde_resources(executor: TaskExecutor) -> dict[str, bytes]:
    """What the engine needs for an executor: its TDE, and the decisions that evaluate its mappings if it has any.

    Returns:
        Resource name to content; the process first.
    """
    process = tde_process_id(executor.metadata.name)
    resources = {f"{process}.bpmn": render_tde(executor)}
    if mappings := render_mappings(executor):
        resources[f"{process}.dmn"] = mappings
    return resources


def render_mappings(executor: TaskExecutor) -> bytes | None:
    """The DMN decisions that evaluate an executor's `inputs` and `outputs`; None without any."""
    name, spec = executor.metadata.name, executor.spec
    decisions = [
        {
            "id": mapping_decision(name, side, mappings),
            "name": f"{side} of {name}",
            "sources": [_xml_text(mapping.source.removeprefix("=")) for mapping in mappings],
        }
        for side, mappings in (("inputs", spec.inputs), ("outputs", spec.outputs))
        if mappings
    ]
    if not decisions:
        return None
    return _environment().get_template(MAPPINGS_TEMPLATE).render(name=name, decisions=decisions).encode()


def kernel_processes() -> dict[str, bytes]:
    """The kernel's BPMN processes: file name to XML, sorted by name."""
    files = sorted((bpmn_directory() / "kernel").glob("*.bpmn"))
    return {file.name: file.read_bytes() for file in files}


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(bpmn_directory()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _xml_text(text: str) -> str:
    """Text without the characters that XML cannot hold, such as most control characters."""
    return _NOT_IN_XML.sub("\ufffd", text)
