"""A pod for each task: what its Job is, when one is made or told to end, and what a person sees of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prokos.k8s.scaling import PodChange, decide_pods
from prokos.k8s.single_use import SingleUse, read_single_use, single_use_statement
from prokos.k8s.single_use_pods import SingleUsePods
from prokos.k8s.workers import build_single_use, build_workers, worker_revision
from unit.builders import executor
from unit.k8s.manifests import SYSTEM, context, pod, resource, waiting

OWNER = {"apiVersion": "prokos.io/v1alpha1", "kind": "TaskExecutor", "name": "payer", "uid": "1", "controller": True}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def lone(least: int = 0, most: int = 5, **spec: Any) -> Any:
    return executor(scaling={"podPerTask": True, "min": least, "max": most}, concurrency=1, **spec)


def job(one: Any = None, **defaults: Any) -> Any:
    return build_single_use(one or lone(), OWNER, context(**defaults), "x1")


# --- the Job -------------------------------------------------------------------------------------------------


def test_a_job_has_one_pod_that_is_never_tried_again() -> None:
    made = job()
    assert (made["apiVersion"], made["kind"], made["metadata"]["name"]) == ("batch/v1", "Job", "payer-tde-x1")
    assert made["metadata"]["ownerReferences"] == [OWNER]
    assert made["spec"]["backoffLimit"] == 0
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert made["spec"]["ttlSecondsAfterFinished"] > 0


def test_its_pod_is_that_of_the_other_workers_but_for_one_variable() -> None:
    (single,) = job()["spec"]["template"]["spec"]["containers"]
    deployment = build_workers(executor(concurrency=1), OWNER, context(), 1)[-1]
    (lasting,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "PROKOS_SINGLE_USE", "value": "1"} in single["env"]
    assert [one for one in single["env"] if one["name"] != "PROKOS_SINGLE_USE"] == lasting["env"]
    assert single["securityContext"] == lasting["securityContext"]
    both = (job()["spec"]["template"], deployment["spec"]["template"])
    assert both[0]["spec"]["securityContext"] == both[1]["spec"]["securityContext"]
    # Scrapers, policies and `kubectl get` find both by the same labels.
    labels = [{**one["metadata"]["labels"], "prokos.io/revision": "any"} for one in both]
    assert labels[0] == labels[1]


def test_the_runtime_class_is_the_executors() -> None:
    pod = job(lone(pod={"runtimeClassName": "gvisor"}), runtimeClassName="kata")["spec"]["template"]["spec"]
    assert pod["runtimeClassName"] == "gvisor"


def test_a_container_beside_the_worker_does_not_keep_its_pod() -> None:
    made = job(lone(type="container", script=None, container={"image": "shop/scorer:3"}))["spec"]["template"]["spec"]
    assert [one["name"] for one in made["containers"]] == ["worker"]
    ((name, policy, security),) = [
        (one["name"], one["restartPolicy"], one["securityContext"]) for one in made["initContainers"]
    ]
    assert (name, policy) == ("executor", "Always")
    assert security == made["containers"][0]["securityContext"]


def test_there_is_no_deployment_then() -> None:
    kinds = [one["kind"] for one in build_workers(lone(), OWNER, context(), 1)]
    assert kinds == ["ConfigMap", "ServiceAccount", "NetworkPolicy"]


# --- how many ------------------------------------------------------------------------------------------------


def active(*names: str) -> list[SingleUse]:
    return [SingleUse(name, current=True) for name in names]


def broken(*ended_ago: float) -> list[SingleUse]:
    return [SingleUse(f"b{ago}", current=True, ended_ago=ago, failed=True) for ago in ended_ago]


@pytest.mark.parametrize(
    ("least", "backlog", "there", "made"),
    [(0, 0, 0, 0), (0, 1, 0, 1), (0, 3, 1, 2), (0, 9, 2, 3), (0, 3, 3, 0), (2, 0, 0, 2), (2, 1, 2, 1), (2, 9, 5, 0)],
)
def test_one_for_each_task_and_as_many_that_wait_as_min_says_up_to_max(least, backlog, there, made) -> None:
    assert decide_pods(lone(least), backlog, active(*"abcde"[:there]), None, 0.0) == PodChange(made)


def test_a_surplus_is_told_to_end_after_the_cooldown_the_newest_first() -> None:
    pods = active("old", "middle", "new")
    first = decide_pods(lone(), 1, pods, None, 10.0)
    assert first == PodChange(surplus_since=10.0)
    assert decide_pods(lone(), 1, pods, 10.0, 69.0) == PodChange(surplus_since=10.0)
    assert decide_pods(lone(), 1, pods, 10.0, 70.0) == PodChange(end=("middle", "new"))
    assert decide_pods(lone(), 3, pods, 10.0, 20.0) == PodChange()


def test_pods_of_an_older_revision_are_told_to_end_and_replaced() -> None:
    old = SingleUse("old", current=False)
    assert decide_pods(lone(1), 0, [old], None, 0.0) == PodChange(1, ("old",))


def test_a_person_overrules_the_backlog() -> None:
    assert decide_pods(lone(replicas=2), 9, active("a"), None, 0.0) == PodChange(1)


def test_without_a_pdo_everything_stays_as_it_is() -> None:
    assert decide_pods(lone(2), None, active("a"), None, 0.0) == PodChange()


@pytest.mark.parametrize(
    ("ended", "made"),
    [
        (broken(9.0), 0),
        (broken(11.0), 1),
        (broken(15.0, 40.0), 0),
        (broken(21.0, 40.0), 1),
        (broken(59.0, *range(120, 320, 20)), 0),
        (broken(61.0, *range(120, 320, 20)), 1),
        ([SingleUse("well", current=True, ended_ago=1.0), *broken(2.0)], 1),
        ([SingleUse("b", current=False, ended_ago=1.0, failed=True)], 1),
    ],
)
def test_pods_that_break_are_replaced_ever_later_until_one_works_or_the_executor_changes(ended, made) -> None:
    assert decide_pods(lone(), 1, ended, None, 0.0).make == made


# --- what the Jobs tell ---------------------------------------------------------------------------------------


def kube_job(name: str, revision: str = "r1", ended: str | None = None, ago: float = 5.0, **metadata: Any) -> Any:
    at = (NOW - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [{"type": ended, "status": "True", "lastTransitionTime": at}] if ended else []
    labels = {"prokos.io/revision": revision, "prokos.io/executor": "payer"}
    created = {"creationTimestamp": "2026-01-01T11:00:00Z", "namespace": "shop"}
    return {"metadata": {"name": name, "labels": labels, **created, **metadata}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (kube_job("a"), [SingleUse("a", True)]),
        (kube_job("a", "r0"), [SingleUse("a", False)]),
        (kube_job("a", ended="Complete"), [SingleUse("a", True, 5.0)]),
        (kube_job("a", ended="SuccessCriteriaMet"), [SingleUse("a", True, 5.0)]),
        (kube_job("a", ended="Failed"), [SingleUse("a", True, 5.0, True)]),
        (kube_job("a", ended="Suspended"), [SingleUse("a", True)]),
        (kube_job("a", deletionTimestamp="2026-01-01T11:59:00Z"), []),
    ],
)
def test_whether_a_job_is_there_for_a_task(given, read) -> None:
    assert read_single_use([given], "r1", NOW) == read


def test_the_oldest_comes_first() -> None:
    jobs = [kube_job("b", creationTimestamp="2026-01-01T11:30:00Z"), kube_job("c"), kube_job("a")]
    assert [use.name for use in read_single_use(jobs, "r1", NOW)] == ["a", "c", "b"]


def job_pod(name: str, **status: Any) -> Any:
    made = pod(f"{name}-z9", **status)
    made["metadata"]["labels"]["batch.kubernetes.io/job-name"] = name
    return made


def ended(code: int, reason: str = "Error") -> Any:
    return {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "reason": reason}}}]}


def statement(uses: list[SingleUse], *pods: Any, **more: Any) -> tuple[str, str, str]:
    said = single_use_statement("WorkersReady", uses, pods, **more)
    return said.status, said.reason, said.message


def test_pods_that_work_or_are_not_needed_are_well() -> None:
    assert statement([])[:2] == ("True", "ScaledToZero")
    assert statement(active("a", "b"))[:2] == ("True", "Running")
    assert statement([SingleUse("w", True, 1.0), *broken(9.0)])[:2] == ("True", "ScaledToZero")


def test_a_missing_secret_and_an_image_that_cannot_be_pulled_are_told() -> None:
    assert statement([], missing_secrets=["there is no Secret 'a'"])[:2] == ("False", "SecretMissing")
    lost = job_pod("a", **waiting("ImagePullBackOff", "no such image"))
    assert statement(active("a"), lost)[:2] == ("False", "ImagePullBackOff")
    beside = job_pod("a", initContainerStatuses=waiting("ErrImagePull", "lost")["containerStatuses"])
    assert statement(active("a"), beside)[:2] == ("False", "ErrImagePull")


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [(78, "Error", "its settings do not work"), (137, "OOMKilled", "OOMKilled, exit code 137")],
)
def test_a_pod_that_broke_is_told_with_where_to_look(code, reason, words) -> None:
    (use,) = broken(1.0)
    status, why, message = statement([use], job_pod(use.name, **ended(code, reason)))
    assert (status, why) == ("False", "PodFailed")
    assert words in message
    assert f"kubectl logs job/{use.name}" in message


# --- making and ending them -----------------------------------------------------------------------------------


class Kube:
    """The API server's Jobs."""

    def __init__(self, *jobs: Any) -> None:
        self.jobs = {one["metadata"]["name"]: one for one in jobs}

    async def list_all(self, api_version: str, kind: str, namespace: str, selector: str) -> list[Any]:
        assert (api_version, kind, namespace) == ("batch/v1", "Job", "shop")
        assert "prokos.io/system=demo" in selector
        return list(self.jobs.values())

    async def create(self, manifest: Any) -> Any:
        self.jobs[manifest["metadata"]["name"]] = manifest
        return manifest

    async def delete(self, api_version: str, kind: str, namespace: str, name: str) -> None:
        del self.jobs[name]


async def test_jobs_are_made_as_tasks_come_and_removed_with_the_executor() -> None:
    kube = Kube()
    pods = SingleUsePods(kube, SYSTEM)  # type: ignore[arg-type]
    one, manifest = lone(), resource("TaskExecutor", "payer")

    async def serve(backlog: int) -> int:
        uses = (await pods.read([one, executor("other")], context()))["payer-tde"]
        await pods.serve(one, manifest, context(), backlog, uses)
        return len(kube.jobs)

    assert [await serve(backlog) for backlog in (0, 2, 2, 3)] == [0, 2, 2, 3]
    assert {made["metadata"]["labels"]["prokos.io/revision"] for made in kube.jobs.values()} == {
        worker_revision(one, context())
    }
    await pods.remove("payer")
    assert kube.jobs == {}


async def test_nothing_is_asked_for_where_no_executor_has_it_so() -> None:
    assert await SingleUsePods(None, SYSTEM).read([executor()], context()) == {}  # type: ignore[arg-type]
