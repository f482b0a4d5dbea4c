"""What the settings of a Helm engine ask of its release. Pure, but for reading a chart that is a directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prokos.k8s.chart import Chart, desired_digest, find_chart
from prokos.k8s.engine_values import Values, build_values
from prokos.k8s.release_plan import WantedRelease

if TYPE_CHECKING:
    from pathlib import Path

    from prokos.resources.helm_settings import HelmEngine


@dataclass(frozen=True, slots=True)
class Target:
    """A release as it shall be, and what Helm needs to make it so."""

    release: str
    chart: Chart
    values: Values
    settings: HelmEngine
    wanted: WantedRelease


def release_name(system: str, settings: HelmEngine) -> str:
    """Name of a system's release."""
    return settings.release or f"{system}-engine"


def build_target(system: str, settings: HelmEngine, charts: Path) -> Target:
    """The release of a system; `charts` is where the charts are that come with the operator."""
    chart, values = find_chart(settings, charts), build_values(settings)
    return Target(
        release=release_name(system, settings),
        chart=chart,
        values=values,
        settings=settings,
        wanted=WantedRelease(
            system=system,
            chart=chart.name,
            version=chart.version,
            digest=desired_digest(chart, values),
            named=settings.release is not None,
            version_given=settings.version is not None,
            settled=None,
            timeout=settings.timeout,
        ),
    )
