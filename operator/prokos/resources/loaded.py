"""What loading manifests gives: resources, each with its place in the files, and the problems found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from prokos.resources.problems import FieldPath, Problem, Severity, format_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prokos.resources import Resource

R = TypeVar("R", bound=BaseModel)
R_co = TypeVar("R_co", bound=BaseModel, covariant=True)


@dataclass(frozen=True, slots=True)
class BpmnSource:
    """The BPMN of a ProcessDefinition, wherever its spec says it is.

    Attributes:
        xml: The XML.
        file: The file that holds it: the `.bpmn` file, or the manifest.
        line: Line of `file` on which the XML starts; None if the XML's lines are not lines of that file.
    """

    xml: bytes = field(repr=False)
    file: Path
    line: int | None = 1


def nearest_line(positions: Mapping[FieldPath, int], path: FieldPath, default: int | None) -> int | None:
    """Line of a field, or of the nearest one around it that is written down, or `default`."""
    for length in range(len(path), 0, -1):
        if (line := positions.get(path[:length])) is not None:
            return line
    return default


@dataclass(frozen=True, slots=True)
class Located(Generic[R_co]):
    """A resource and where it is written.

    Attributes:
        resource: The resource.
        file: Path of the manifest, or of the bare `.bpmn` file.
        line: Line on which the document starts, counted from 1.
        index: Which document of the file, counted from 0.
        positions: Line of each field.
        blocks: Line on which the text of a literal block starts, for the fields that are one.
        bpmn: For a ProcessDefinition whose BPMN could be read, the BPMN.
    """

    resource: R_co
    file: Path
    line: int | None = None
    index: int = 0
    positions: Mapping[FieldPath, int] = field(default_factory=dict, repr=False)
    blocks: Mapping[FieldPath, int] = field(default_factory=dict, repr=False)
    bpmn: BpmnSource | None = None

    def line_of(self, path: FieldPath) -> int | None:
        """Line of a field, or of the nearest one around it that is written down."""
        return nearest_line(self.positions, path, self.line)

    def place(self, path: FieldPath = ()) -> str:
        """`file:line: field`, for messages that point to a second place."""
        line = self.line_of(path)
        text = f"{self.file}:{line}" if line is not None else f"{self.file}"
        return f"{text}: {format_path(path)}" if path else text

    def problem(
        self,
        path: FieldPath,
        message: str,
        hint: str = "",
        *,
        severity: Severity = "error",
        line: int | None = None,
    ) -> Problem:
        """A problem with one of the fields; `line` is found unless it is given."""
        line = self.line_of(path) if line is None else line
        return Problem(severity, str(self.file), format_path(path), message, line, hint)


@dataclass(frozen=True, slots=True)
class Loaded:
    """All resources of the files, in the files' order, and all problems."""

    resources: list[Located[Resource]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def of(self, kind: type[R]) -> list[Located[R]]:
        """The resources of one kind, each with its place."""
        found: list[Located[Any]] = [at for at in self.resources if isinstance(at.resource, kind)]
        return found

    def only(self, kind: type[R]) -> list[R]:
        """The resources of one kind."""
        return [at.resource for at in self.of(kind)]

    @property
    def has_errors(self) -> bool:
        """Whether a problem is an error."""
        return any(problem.severity == "error" for problem in self.problems)
