"""The charts' files, as far as they can be judged without Helm and a cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from prokos import __version__
from prokos.pdo.metrics import PdoCollector
from prokos.tde.metrics import WorkerMetrics

ROOT = Path(__file__).parents[2]
CHARTS = sorted(path.parent for path in (ROOT / "helm").glob("*/Chart.yaml"))
OURS = [chart for chart in CHARTS if chart.name != "camunda-engine"]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_the_default_values_satisfy_the_schema(chart):
    schema = json.loads((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    jsonschema_rs.validator_for(schema).validate(values)


@pytest.mark.parametrize("chart", OURS, ids=lambda chart: chart.name)
def test_a_chart_has_the_version_of_what_it_installs(chart):
    content = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert content["appVersion"] == __version__
    assert content["version"] == __version__


def test_every_value_is_used():
    chart = ROOT / "helm" / "prokos"
    templates = "".join(path.read_text() for path in (chart / "templates").iterdir())
    for name in yaml.safe_load((chart / "values.yaml").read_text()):
        assert f".Values.{name}" in templates, f"values.yaml has {name}, which no template reads"


def test_the_dashboard_shows_metrics_that_exist():
    text = (ROOT / "helm" / "prokos" / "dashboards" / "prokos.json").read_text()
    json.loads(text)
    code = "".join(
        Path(module.__code__.co_filename).read_text() for module in (PdoCollector.__init__, WorkerMetrics.__init__)
    )
    for metric in set(re.findall(r"prokos_[a-z_]+", text)):
        assert re.sub(r"_(total|bucket)$", "", metric) in code, f"there is no metric {metric}"
