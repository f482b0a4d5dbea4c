"""How tasks end: results, business errors, failures, incidents, and how a person mends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.conftest import TEST_ENGINE
from engine.devsystem import PATIENCE, DevSystem, wait_until
from engine.samples import one_task, python_executor, write
from prokos.cli.doctor import FEATURES
from prokos.engine.distribution import DEFAULT_VERSION

SOURCES = {
    "double": "def main(input):\n    return {'doubled': input['n'] * 2, 'big': 2**63 + 1, 'seen': input}\n",
    "reject": "def main(input):\n    raise BusinessError('REJECTED', 'too much', {'reason': 'too much'})\n",
    "flaky": """\
        import os, pathlib
        def main(input):
            marker = pathlib.Path(input["marker"])
            attempts = int(marker.read_text()) if marker.exists() else 0
            marker.write_text(str(attempts + 1))
            if attempts < input["failures"]:
                raise RetryableFailure(f"attempt {attempts + 1} failed")
            return {"attempts": attempts + 1}
        """,
    "fatal": """\
        import pathlib
        def main(input):
            if not pathlib.Path(input["mended"]).exists():
                raise FatalFailure("the disk is missing; plug it in")
            return {"mended": True}
        """,
    "endless": "def main(input):\n    while True:\n        pass\n",
    "sleeper": """\
        import os, pathlib, time
        def main(input):
            draft = pathlib.Path(input["directory"], "draft")
            draft.write_text(str(os.getpid()))
            draft.rename(draft.with_name("pid"))
            time.sleep(600)
        """,
    "no-json": "output = {'value': object()}\n",
}


@pytest.fixture(scope="module")
def dev(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSystem]:
    directory = tmp_path_factory.mktemp("outcomes")
    fast = {"backoff": {"initial": "100ms"}}
    resources = [
        python_executor(f"out-{name}", source, job_type=f"out-{name}", **fast) for name, source in SOURCES.items()
    ]
    for resource in resources:
        if resource["metadata"]["name"] == "out-endless":
            resource["spec"]["timeout"] = "500ms"
        if resource["metadata"]["name"] == "out-double":
            resource["spec"]["inputSchema"] = {"required": ["n"], "properties": {"n": {"type": "integer"}}}
            resource["spec"]["outputSchema"] = {"properties": {"doubled": {"maximum": 100}}}
    mapped = python_executor(
        "out-mapped", "def main(input):\n    return {'sum': input['a'] + input['b']['c']}\n", job_type="out-mapped"
    )
    mapped["spec"]["inputs"] = [{"source": "=n", "target": "a"}, {"source": "=n * 10", "target": "b.c"}]
    mapped["spec"]["outputs"] = [{"source": "=sum + modulo(1, divisor)", "target": "result"}]
    at_once = {"backoff": {"initial": "20ms", "multiplier": 1}}
    resources += [mapped, python_executor("out-stubborn", SOURCES["flaky"], job_type="out-stubborn", **at_once)]
    processes = {f"out-{name}": one_task(f"out-{name}", f"out-{name}") for name in [*SOURCES, "mapped"]}
    processes["out-reject"] = one_task("out-reject", "out-reject", error="REJECTED")
    processes["out-stubborn"] = one_task("out-stubborn", "out-stubborn", retries=200)
    processes["out-uncaught"] = one_task("out-uncaught", "out-reject")
    processes["out-nobody"] = one_task("out-nobody", "out-nobody", name="Nobody does this")
    manifests = write(directory / "manifests", processes=processes, resources=resources)
    with DevSystem(directory, [manifests], engine=engine_address) as system:
        yield system


def test_a_result_becomes_variables_with_every_digit(dev: DevSystem) -> None:
    variables = dev.run_process("out-double", {"n": 21, "exact": 9007199254740993})
    assert variables["doubled"] == 42
    assert variables["big"] == 2**63 + 1
    assert variables["seen"] == {"n": 21, "exact": 9007199254740993}


def test_input_that_breaks_the_schema_is_an_incident_that_names_the_path(dev: DevSystem) -> None:
    failed = dev.run("run", "out-double", "--var", "n=text", check=False)
    assert failed.returncode == 1
    assert "inputSchema" in failed.stderr
    assert "$.n" in failed.stderr


def test_output_that_breaks_the_schema_is_an_incident_that_names_the_path(dev: DevSystem) -> None:
    failed = dev.run("run", "out-double", "--var", "n=51", check=False)
    assert "outputSchema" in failed.stderr
    assert "$.doubled" in failed.stderr


def test_a_business_error_is_caught_by_its_boundary_event(dev: DevSystem) -> None:
    assert dev.run_process("out-reject")["caught"] == "too much"
    dev.wait_for_task(process="out-reject", state="error")


def test_a_retryable_failure_is_tried_again_and_its_result_counts(dev: DevSystem, tmp_path: Path) -> None:
    assert dev.run_process("out-flaky", {"marker": f"{tmp_path}/attempts", "failures": 2})["attempts"] == 3


def test_a_task_that_is_alone_is_tried_again_however_often_it_failed(dev: DevSystem, tmp_path: Path) -> None:
    """An engine as Camunda sets it up loses one job in a hundred whose second or later back-off it keeps itself."""
    variables = {"marker": f"{tmp_path}/attempts", "failures": 120}
    # The wait is in a variable of the task's own, which its process does not get.
    assert dev.run_process("out-stubborn", variables, timeout=400) == {**variables, "attempts": 121}


def test_exhausted_attempts_become_an_incident_with_the_last_message(dev: DevSystem, tmp_path: Path) -> None:
    failed = dev.run("run", "out-flaky", "--var", f"marker={tmp_path}/attempts", "--var", "failures=9", check=False)
    assert failed.returncode == 1
    assert "attempt 3 failed" in failed.stderr
    assert "prokos retry" in failed.stderr


def test_retry_gives_an_incident_a_fresh_start(dev: DevSystem, tmp_path: Path) -> None:
    failed = dev.run("run", "out-fatal", "--var", f"mended={tmp_path}/mended", check=False)
    assert "the disk is missing; plug it in" in failed.stderr
    task = dev.wait_for_task(process="out-fatal", state="incident")
    (tmp_path / "mended").touch()
    dev.run("retry", task["job"])
    dev.wait_for_task(process="out-fatal", instance=task["instance"], state="completed")


def test_a_script_that_never_ends_is_stopped_by_its_time_out(dev: DevSystem) -> None:
    failed = dev.run("run", "out-endless", check=False)
    assert "spec.timeout" in failed.stderr


def test_an_output_that_is_no_json_is_an_incident(dev: DevSystem) -> None:
    failed = dev.run("run", "out-no-json", check=False)
    assert failed.returncode == 1
    assert "JSON" in failed.stderr


def test_feel_mappings_are_evaluated_on_both_sides(dev: DevSystem) -> None:
    assert dev.run_process("out-mapped", {"n": 4, "divisor": 2})["result"] == 45


def test_a_mapping_that_cannot_be_computed_is_an_incident_of_the_task(dev: DevSystem) -> None:
    failed = dev.run("run", "out-mapped", "--var", "n=4", "--var", "divisor=0", check=False)
    assert failed.returncode == 1
    assert "spec.outputs cannot be computed" in failed.stderr
    assert "Division by zero" in failed.stderr
    assert "prokos retry" in failed.stderr


def test_a_task_nobody_accepts_is_an_incident_that_says_what_to_do(dev: DevSystem) -> None:
    failed = dev.run("run", "out-nobody", check=False)
    assert "no executor for Task (Nobody does this) of process out-nobody version 1" in failed.stderr
    assert "accepts" in failed.stderr


def test_the_task_list_says_which_process_where_and_why(dev: DevSystem) -> None:
    dev.run_process("out-double", {"n": 1})
    task = dev.wait_for_task(process="out-double", state="completed")
    assert task["element"] == "Task"
    assert task["executor"] == "out-double"
    assert task["source"] == "rule"
    assert "jobType=out-double" in task["reason"]
    assert task["beat"] >= 0


def test_a_cancelled_instance_stops_its_tde(dev: DevSystem, tmp_path: Path) -> None:
    started = dev.json("run", "out-sleeper", "--no-wait", "--var", f"directory={tmp_path}")
    pid_file = tmp_path / "pid"
    wait_until(pid_file.exists, timeout=PATIENCE, describe=dev.logs)
    dev.run("cancel", started["instance"])
    wait_until(lambda: not psutil.pid_exists(int(pid_file.read_text())), timeout=PATIENCE, describe=dev.logs)
    assert dev.wait_for_task(instance=started["instance"], state="gone")["message"] == "the task was cancelled"


def test_cancelling_what_does_not_run_says_so(dev: DevSystem) -> None:
    started = dev.json("run", "out-double", "--no-wait", "--var", "n=1")
    dev.wait_for_task(instance=started["instance"], state="completed")
    failed = dev.run("cancel", started["instance"], check=False)
    assert failed.returncode == 1
    assert f"no process instance {started['instance']} runs" in failed.stderr


def test_an_unknown_process_is_named(dev: DevSystem) -> None:
    failed = dev.run("run", "no-such-process", check=False)
    assert failed.returncode == 2
    assert "no-such-process" in failed.stderr


def test_doctor_names_the_engines_version_and_what_it_lacks(dev: DevSystem) -> None:
    (engine,) = [
        check
        for check in json.loads(dev.run("doctor", "--output", "json", check=False).stdout)
        if check["check"] == "engine"
    ]
    assert engine["ok"]
    assert f"version {TEST_ENGINE or DEFAULT_VERSION} (tested)" in engine["detail"]
    lacks = [feature for _, feature in FEATURES if feature in engine["detail"]]
    assert ("ad-hoc sub-processes" in lacks) == (TEST_ENGINE is None)
    assert "conditional events" in lacks
