"""Loading and checking manifests in one go, as every command does that needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prokos.processes.definitions import Definition, read_definitions
from prokos.processes.validation import validate
from prokos.resources.manifests import load_manifests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from prokos.resources.loaded import Loaded
    from prokos.resources.problems import Problem


@dataclass(frozen=True, slots=True)
class Checked:
    """Manifests with everything that is wrong with them."""

    loaded: Loaded
    definitions: Sequence[Definition]
    problems: Sequence[Problem]

    @property
    def errors(self) -> list[Problem]:
        """The problems that must be mended; the others are warnings."""
        return [problem for problem in self.problems if problem.severity == "error"]


def check_manifests(paths: Sequence[Path]) -> Checked:
    """Load files and directories, and check them, each by itself and all together."""
    loaded = load_manifests(paths)
    problems = validate(loaded)
    return Checked(loaded, read_definitions(loaded), problems)
