"""Executors as pods: one for each task, and images that are not ours. A real kubelet, a real engine."""

from __future__ import annotations

import hashlib
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cluster.shop import NOOP_BPMN, OPERATOR, resource
from prokos.cli.scaffold import new_executor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.shop import Shop

EXAMPLE = Path(__file__).parents[2] / "examples" / "container"
PLANTED = "correct-horse-battery-staple"

MADE = 180.0
"""Seconds until pods are made that are not there yet, on a machine that does everything else too."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

LEAVES_TRACES = """
import glob, os, pathlib, platform
def main(input):
    found = sorted(glob.glob("/work/trace*") + glob.glob("/tmp/trace*"))
    pathlib.Path("/work/trace").write_text("x")
    pathlib.Path("/tmp/trace").write_text("x")
    return {"pod": platform.node(), "found": found}
"""


def lone(name: str, source: str, **more: Any) -> list[str]:
    """An executor with a pod for each task, and a process of one task for it."""
    spec = {
        "type": "script",
        "script": {"language": "python", "source": source},
        "accepts": [{"jobType": name}],
        "concurrency": 1,
        "scaling": {"podPerTask": True, "min": 0, "max": 3},
        **more,
    }
    return [
        resource("TaskExecutor", name, spec),
        resource("ProcessDefinition", name, {"bpmn": NOOP_BPMN.format(process=name, job_type=name)}),
    ]


def variables(shop: Shop, process: str, given: dict[str, Any] | None = None, timeout: float = 180) -> dict[str, Any]:
    """The variables a process ends with."""
    found: dict[str, Any] = shop.run(process, given, timeout=timeout)["variables"]
    return found


def until_ready(shop: Shop, executor: str, process: str) -> None:
    shop.until_ready("taskexecutor", executor, MADE)
    shop.until_ready("processdefinition", process, MADE)


def incident(shop: Shop, process: str, given: dict[str, Any]) -> str:
    """Run a process whose task becomes an incident; returns its message."""
    start = ("exec", "-i", "deploy/demo-pdo", "--", "prokos", "run", process, "--vars", "-", "--no-wait")
    shop.kubectl(*start, stdin=json.dumps(given))

    def stuck() -> str | None:
        return next((task["message"] for task in shop.tasks(process) if task["state"] == "incident"), None)

    message: str = shop.until(stuck, MADE, lambda: shop.tasks(process))
    return message


# --- a pod for each task --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtime_class(shop: Shop) -> Iterator[str]:
    """A RuntimeClass; the node has one runtime, so that is the one it names."""
    name = "prokos-test-sandbox"
    made = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "runc"}
    shop.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    yield name
    shop.cluster.kubectl("delete", "runtimeclass", name)


def test_two_tasks_run_in_two_pods_and_each_pod_ends(shop: Shop, runtime_class: str) -> None:
    shop.apply(*lone("traces", LEAVES_TRACES, pod={"runtimeClassName": runtime_class}))
    try:
        until_ready(shop, "traces", "traces")
        assert shop.pods("traces") == []
        with ThreadPoolExecutor(2) as runs:
            first, second = runs.map(lambda _: variables(shop, "traces"), range(2))
        third = variables(shop, "traces")
        names = {one["pod"] for one in (first, second, third)}
        assert len(names) == 3, "two tasks shared a pod"
        assert [one["found"] for one in (first, second, third)] == [[], [], []]

        def ended() -> bool:
            pods = [pod for pod in shop.pods("traces") if pod["metadata"]["name"] in names]
            return len(pods) == 3 and all(pod["status"]["phase"] == "Succeeded" for pod in pods)

        shop.until(ended, MADE, lambda: [(pod["metadata"]["name"], pod["status"]) for pod in shop.pods("traces")])
        for pod in shop.pods("traces"):
            assert pod["spec"]["runtimeClassName"] == runtime_class
            assert pod["metadata"]["ownerReferences"][0]["kind"] == "Job"
        assert "traces-tde" not in shop.kubectl("get", "deployments", "-o", "name")
        shop.until_ready("taskexecutor", "traces", MADE)
        # One that was made too many waits for a while before it goes.
        shop.until(lambda: shop.get("taskexecutor", "traces")["status"]["workers"] == "0/0", MADE)
    finally:
        shop.kubectl("delete", "taskexecutor/traces", "processdefinition/traces")
    shop.until(lambda: not shop.pods("traces"), MADE, lambda: shop.pods("traces"))


def test_a_task_whose_pod_breaks_gets_another_one(shop: Shop) -> None:
    source = """
import platform, time
def main(input):
    print("it began", flush=True)
    time.sleep(input["seconds"])
    return platform.node()
"""
    shop.apply(*lone("breaks", source))
    try:
        until_ready(shop, "breaks", "breaks")
        with ThreadPoolExecutor(1) as runs:
            running = runs.submit(variables, shop, "breaks", {"seconds": 25}, 400)

            def busy() -> str | None:
                running = [pod for pod in shop.pods("breaks") if pod["status"]["phase"] == "Running"]
                names = [str(pod["metadata"]["name"]) for pod in running]
                return next((name for name in names if "it began" in shop.kubectl("logs", name)), None)

            broken = shop.until(busy, MADE, lambda: shop.pods("breaks"))
            shop.kubectl("delete", "pod", broken, "--grace-period=0", "--force")
            ended_in = running.result()["result"]
        assert ended_in != broken
    finally:
        shop.kubectl("delete", "taskexecutor/breaks", "processdefinition/breaks")


def test_a_waiting_pod_is_replaced_when_its_executor_changes_and_is_gone_with_it(shop: Shop) -> None:
    scaling = {"podPerTask": True, "min": 1, "max": 3}
    shop.apply(*lone("waits", LEAVES_TRACES, scaling=scaling))
    try:
        shop.until(lambda: shop.get("taskexecutor", "waits").get("status", {}).get("workers") == "1/1", MADE)
        before = {pod["metadata"]["name"] for pod in shop.pods("waits")}
        shop.apply(*lone("waits", LEAVES_TRACES + "# changed\n", scaling=scaling))

        def replaced() -> bool:
            now = {pod["metadata"]["name"] for pod in shop.pods("waits")}
            return bool(now) and not now & before

        shop.until(replaced, MADE, lambda: shop.pods("waits"))
        assert variables(shop, "waits")["pod"] not in before
    finally:
        shop.kubectl("delete", "taskexecutor/waits", "processdefinition/waits")
    shop.until(lambda: not shop.pods("waits"), MADE, lambda: shop.pods("waits"))


# --- an executor in Python, in an image of its own -------------------------------------------------------------


def test_a_new_executor_becomes_an_image_that_does_its_tasks(shop: Shop, tmp_path: Path) -> None:
    from hack.cluster import images

    new_executor("rate", tmp_path)
    tag = images.load_executor("rate", tmp_path)
    # As its comments say for a cluster: without the path, and with the image.
    manifest = yaml.safe_load((tmp_path / "rate.yaml").read_text())
    del manifest["spec"]["python"]["path"]
    manifest["spec"]["pod"] = {"image": tag}
    process = resource("ProcessDefinition", "rate", {"bpmn": NOOP_BPMN.format(process="rate", job_type="rate")})
    shop.apply(yaml.safe_dump(manifest), process)
    try:
        until_ready(shop, "rate", "rate")
        assert variables(shop, "rate", {"amount": 25})["score"] == 0.25
    finally:
        shop.kubectl("delete", "taskexecutor/rate", "processdefinition/rate")


# --- an image of somebody else's ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(shop: Shop) -> None:
    shop.cluster.load_images("scorer")


@pytest.fixture(scope="module")
def scorer(shop: Shop, image: None) -> Iterator[Shop]:
    """The example `container`, with its key in a Secret."""
    shop.kubectl("create", "secret", "generic", "scorer", f"--from-literal=signing-key={PLANTED}")
    for name in ("executor.yaml", "process.yaml"):
        shop.kubectl("apply", "-f", str(EXAMPLE / name))
    until_ready(shop, "scorer", "score-payment")
    yield shop
    for name in ("executor.yaml", "process.yaml"):
        shop.kubectl("delete", "-f", str(EXAMPLE / name))
    shop.kubectl("delete", "secret", "scorer")


def test_an_image_in_go_gives_a_result_with_a_key_from_a_secret(scorer: Shop) -> None:
    found = variables(scorer, "score-payment", {"customer": "ada", "amount": 250})
    assert found["score"] == 0.75
    assert found["signature"] == hmac.new(PLANTED.encode(), b"ada:0.750", hashlib.sha256).hexdigest()


def test_its_business_error_is_caught_by_the_process(scorer: Shop) -> None:
    found = variables(scorer, "score-payment", {"customer": "ada", "amount": 2000})
    assert (found["limit"], "score" in found) == (1000, False)


def test_its_failure_is_an_incident_with_its_message(scorer: Shop) -> None:
    assert "needs an amount that is not negative" in incident(scorer, "score-payment", {"customer": "b", "amount": -1})


def test_no_secret_is_in_anything_that_kubectl_shows_but_the_secret(scorer: Shop) -> None:
    variables(scorer, "score-payment", {"customer": "ada", "amount": 250})
    kinds = "taskexecutors,prokoses,processdefinitions,pods,deployments,configmaps,events,networkpolicies,jobs"
    shown = scorer.kubectl("get", kinds, "-o", "yaml")
    assert "scorer" in shown
    logs = scorer.kubectl("logs", "deploy/scorer-tde", "--all-containers") + scorer.kubectl("logs", "deploy/demo-pdo")
    assert "task ended" in logs
    tasks = json.dumps(scorer.tasks("score-payment"))
    operator = scorer.cluster.kubectl("logs", "--namespace", OPERATOR, "deploy/prokos")
    assert [place for place in (shown, logs, tasks, operator) if PLANTED in place] == []


def test_each_task_leaves_one_structured_line_with_its_process_element_and_job(scorer: Shop) -> None:
    variables(scorer, "score-payment", {"customer": "ada", "amount": 250})
    lines = scorer.kubectl("logs", "deploy/scorer-tde", "--container", "worker").splitlines()
    ends = [json.loads(line) for line in lines if '"task ended"' in line]
    (end,) = [one for one in ends if one["job"] == ends[-1]["job"]]
    assert (end["process"], end["element"], end["executor"]) == ("score-payment", "Score", "scorer")
    assert (end["outcome"], end["seconds"] >= 0) == ("completed", True)


def test_an_image_that_does_not_answer_is_told_with_what_to_check(shop: Shop, image: None) -> None:
    silent = yaml.safe_load((EXAMPLE / "executor.yaml").read_text())
    silent["metadata"]["name"] = "silent"
    silent["spec"] |= {"accepts": [{"jobType": "silence"}], "secrets": []}
    silent["spec"]["container"] |= {
        "secretEnv": {},
        "env": {"SIGNING_KEY": "k"},
        "healthPath": "/nothing-here",
        "startTimeout": "5s",
    }
    shop.apply(json.dumps(silent))
    try:
        shop.until_unready("taskexecutor", "silent", "settings do not work", "--previous")
        (pod,) = shop.pods("silent")
        log = shop.kubectl("logs", pod["metadata"]["name"], "--container", "worker", "--previous")
        assert "GET http://127.0.0.1:8080/nothing-here" in log
    finally:
        shop.kubectl("delete", "taskexecutor", "silent")
