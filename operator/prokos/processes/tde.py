"""The BPMN that ProkOS brings along: the TDE of an executor, rendered from its template, and the kernel's processes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import prokos
from prokos.resources.names import TDE_ATTEMPTS

if TYPE_CHECKING:
    from prokos.resources.executor import FeelMapping, TaskExecutor

TEMPLATE = "tde.bpmn.j2"

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
        executor: The executor. Only its name, description, inputs and outputs matter, and whether it awaits
            callbacks.

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
            inputs=_mappings(spec.inputs),
            outputs=_mappings(spec.outputs),
            awaits=spec.http is not None and spec.http.callback is not None,
        )
    )
    return text.encode()


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


def _mappings(mappings: list[FeelMapping]) -> list[dict[str, str]]:
    return [{"source": _xml_text(mapping.source), "target": mapping.target} for mapping in mappings]


def _xml_text(text: str) -> str:
    """Text without the characters that XML cannot hold, such as most control characters."""
    return _NOT_IN_XML.sub("\ufffd", text)
