"""The embedded home: what it makes of settings that only a cluster can follow."""

from __future__ import annotations

import pytest
import yaml

from prokos.dev.home import EmbeddedHome, Ports, workers_of
from prokos.dev.state import StateDirectory
from resource_samples import executor as document
from unit.builders import executor


def test_an_executor_with_a_pod_for_each_task_gets_an_ordinary_worker_and_a_warning(tmp_path):
    spec = {"scaling": {"podPerTask": True, "min": 0, "max": 9}, "concurrency": 1, "accepts": [{"jobType": "x"}]}
    (tmp_path / "lone.yaml").write_text(yaml.safe_dump(document(**spec)))
    state = StateDirectory(tmp_path / "state")
    state.create()
    home = EmbeddedHome(state, [tmp_path / "lone.yaml"], Ports("a:1", "b:2", "c:3"))
    (problem,) = home.reload()
    assert problem.severity == "warning"
    assert "spec.scaling.podPerTask: there are no pods here" in str(problem)
    (one,) = home.desired().executors.values()
    assert workers_of(one) == 1


@pytest.mark.parametrize(
    ("spec", "workers"),
    [
        ({}, 1),
        ({"scaling": {"min": 0, "max": 9}}, 0),
        ({"scaling": {"min": 2, "max": 9}}, 2),
        ({"scaling": {"min": 2, "max": 9, "podPerTask": True}, "concurrency": 1}, 2),
        ({"scaling": {"min": 0, "podPerTask": True}, "concurrency": 1, "replicas": 0}, 0),
    ],
)
def test_how_many_workers_there_are(spec, workers):
    assert workers_of(executor(**spec)) == workers
