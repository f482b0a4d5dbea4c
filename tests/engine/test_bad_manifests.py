"""Malformed manifests are refused with file and place, by `prokos validate` and by `prokos dev`; no engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.devsystem import DevSystem
from engine.samples import one_task
from prokos.processes.structure import LONGEST_ID

EXECUTOR = "apiVersion: prokos.io/v1alpha1\nkind: TaskExecutor\nmetadata: {name: NAME}\nspec:\n"
SCRIPT = '  type: script\n  script: {command: ["true"]}\n'
CLAIM = "  accepts: [{jobType: work}]\n"

MALFORMED = {
    "yaml": ({"a.yaml": "kind: [\n"}, ["a.yaml:2"]),
    "not-utf-8": ({"a.yaml": "kind: \udcff\n"}, ["a.yaml"]),
    "bpmn": ({"a.bpmn": "<bpmn:definitions>"}, ["a.bpmn"]),
    "empty-bpmn": ({"a.bpmn": ""}, ["a.bpmn"]),
    "doctype": ({"a.bpmn": '<!DOCTYPE x [<!ENTITY e "e">]><x>&e;</x>'}, ["a.bpmn", "DOCTYPE"]),
    "long-process": ({"a.bpmn": one_task("p" * (LONGEST_ID + 1), "work")}, ["a.bpmn", "50001 bytes", "50000"]),
    "long-element": (
        {"a.bpmn": one_task("p", "work").replace('"Task"', f'"{"t" * (LONGEST_ID + 1)}"')},
        ["a.bpmn", "50001 bytes", "50000"],
    ),
    "unknown-field": ({"a.yaml": EXECUTOR + SCRIPT + "  tmeout: 5s\n"}, ["a.yaml:7", "spec.tmeout", "timeout"]),
    "unknown-executor": (
        {"a.bpmn": one_task("p", "work", headers={"prokos.io/executor": "nobody"})},
        ["a.bpmn", "Task", "nobody"],
    ),
    "two-claims": (
        {
            "a.yaml": EXECUTOR.replace("NAME", "one") + SCRIPT + CLAIM,
            "b.yaml": EXECUTOR.replace("NAME", "two") + SCRIPT + CLAIM,
            "p.bpmn": one_task("p", "work"),
        },
        ["b.yaml", "spec.accepts[0]", "'one' and 'two'", "'Task'"],
    ),
    "fallback": (
        {"a.yaml": EXECUTOR.replace("TaskExecutor", "ProkOS") + "  router: {fallback: nobody}\n"},
        ["a.yaml", "spec.router.fallback", "nobody"],
    ),
}


@pytest.mark.parametrize("command", ["validate", "dev"])
@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_manifests_are_refused_with_file_and_place(tmp_path: Path, kind: str, command: str) -> None:
    files, named = MALFORMED[kind]
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.replace("NAME", "one").encode(errors="surrogateescape"))
    refused = DevSystem(tmp_path / "state", []).run(command, str(tmp_path), check=False)
    assert refused.returncode == 2, refused.stderr
    assert "Traceback" not in refused.stderr
    for words in named:
        assert words in refused.stderr
