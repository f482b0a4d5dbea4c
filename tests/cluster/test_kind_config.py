"""kind-config.yaml, read by kind's own loader. Where there is no Docker, kind gets no further than that."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hack.cluster.binaries import ensure_built, kind_build

CONFIG = Path(__file__).parents[2] / "kind-config.yaml"

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def kind() -> Path:
    return ensure_built(kind_build()) / "kind"


def refusal(kind: Path, config: Path, nowhere: Path) -> str:
    """Why kind makes no cluster of a file on a machine without Docker."""
    done = subprocess.run(
        [kind, "create", "cluster", "--config", config, "--kubeconfig", nowhere / "kubeconfig"],
        env={**os.environ, "PATH": str(nowhere), "KIND_EXPERIMENTAL_PROVIDER": "docker"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    return done.stderr


def test_kind_understands_its_configuration(kind, tmp_path):
    said = refusal(kind, CONFIG, tmp_path)
    assert "docker" in said
    assert "config" not in said.replace("kubeconfig", "")


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [("role:", "rolle:", "field rolle not found"), ("v1alpha4", "v9", "v9")],
)
def test_kind_would_complain(kind, tmp_path, right, wrong, complaint):
    changed = tmp_path / "changed.yaml"
    changed.write_text(CONFIG.read_text().replace(right, wrong))
    assert complaint in refusal(kind, changed, tmp_path)
