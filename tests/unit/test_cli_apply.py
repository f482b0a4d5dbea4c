"""What `prokos apply` keeps of a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from prokos.cli.apply import _to_yaml
from prokos.processes import load_manifests

if TYPE_CHECKING:
    from pathlib import Path

EXECUTOR = {
    "apiVersion": "prokos.io/v1alpha1",
    "kind": "TaskExecutor",
    "metadata": {"name": "scorer"},
    "spec": {"type": "python", "accepts": [{"jobType": "score"}], "python": {"executor": "score:Score", "path": "src"}},
}


def test_a_path_leads_to_the_same_place_as_from_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "executor.yaml").write_text(yaml.safe_dump(EXECUTOR))
    (located,) = load_manifests([tmp_path]).resources
    assert yaml.safe_load(_to_yaml(located))["spec"]["python"]["path"] == str(tmp_path / "src")
