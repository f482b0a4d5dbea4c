"""The chart of a Helm engine, and what tells one desired state of its release from another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prokos.resources.helm_settings import CAMUNDA_CHART, OWN_CHART

if TYPE_CHECKING:
    from prokos.resources.helm_settings import HelmEngine

CAMUNDA_REPOSITORY = "https://helm.camunda.io"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as Helm is told of it.

    Attributes:
        name: Its own name.
        reference: Name, path or `oci://` reference.
        content: Digest of the files of a chart that is a directory, which may change under the same version.
    """

    name: str
    reference: str
    repository: str | None = None
    version: str | None = None
    content: str | None = None


def find_chart(settings: HelmEngine, charts: Path) -> Chart:
    """The chart of an engine; `charts` is where those are that come with the operator."""
    reference = str(charts / OWN_CHART) if settings.chart == OWN_CHART else settings.chart
    directory = Path(reference)
    content = _content(directory) if directory.is_absolute() and directory.is_dir() else None
    repository = settings.repository or (CAMUNDA_REPOSITORY if settings.chart == CAMUNDA_CHART else None)
    return Chart(settings.chart_name, reference, repository, settings.effective_version, content)


def _content(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def desired_digest(chart: Chart, values: dict[str, Any]) -> str:
    """A label's value that tells one desired state of a release from another."""
    state = [chart.reference, chart.repository, chart.version, chart.content, values]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:40]
