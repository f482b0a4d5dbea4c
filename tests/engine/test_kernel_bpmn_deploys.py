"""The kernel's BPMN and the TDE template on the real engine; the tests do the workers' part by hand."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from pyzeebe.proto import gateway_pb2 as pb
from pyzeebe.proto.gateway_pb2_grpc import GatewayStub

from engine.samples import HEAD
from prokos.cli.doctor import describe_engine
from prokos.processes import render_tde
from unit import builders

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.engine

BPMN_DIR = Path(__file__).parents[2] / "bpmn"
DEADLINE = 20.0
"""Seconds an expected job may take to appear on a busy machine."""


class Workers:
    """Takes single jobs, and tells the engine how they ended."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway

    def deploy(self, resources: dict[str, str]) -> set[str]:
        request = pb.DeployResourceRequest(
            resources=[pb.Resource(name=name, content=xml.encode()) for name, xml in resources.items()]
        )
        return {item.process.bpmnProcessId for item in self.gateway.DeployResource(request).deployments}

    def publish(self, message: str, key: str, *, ttl: int = 0, **variables: Any) -> None:
        self.gateway.PublishMessage(
            pb.PublishMessageRequest(name=message, correlationKey=key, timeToLive=ttl, variables=json.dumps(variables))
        )

    def take(self, job_type: str, **expected: Any) -> tuple[int, dict[str, Any]]:
        """The key and variables of a job of this type that has the expected variables among its own."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            request = pb.ActivateJobsRequest(
                type=job_type, worker="test", timeout=60_000, maxJobsToActivate=1, requestTimeout=1_000
            )
            for response in self.gateway.ActivateJobs(request):
                for job in response.jobs:
                    variables = json.loads(job.variables)
                    if all(variables.get(name) == value for name, value in expected.items()):
                        return job.key, variables
        raise AssertionError(f"no job of type {job_type!r} with {expected} within {DEADLINE} s")

    def complete(self, key: int, **variables: Any) -> None:
        self.gateway.CompleteJob(pb.CompleteJobRequest(jobKey=key, variables=json.dumps(variables)))

    def throw(self, key: int, code: str, **variables: Any) -> None:
        self.gateway.ThrowError(pb.ThrowErrorRequest(jobKey=key, errorCode=code, variables=json.dumps(variables)))

    def work(self, job_type: str, expected: dict[str, Any], **result: Any) -> dict[str, Any]:
        """Take a job and complete it; returns its variables."""
        key, variables = self.take(job_type, **expected)
        self.complete(key, **result)
        return variables


@pytest.fixture(name="workers", scope="module")
def _workers(engine_address: str) -> Iterator[Workers]:
    with grpc.insecure_channel(engine_address) as channel:
        workers = Workers(GatewayStub(channel))
        workers.deploy({file.name: file.read_text("utf-8") for file in (BPMN_DIR / "kernel").glob("*.bpmn")})
        yield workers


@pytest.fixture(name="unique")
def _unique() -> str:
    """A name nobody else on this engine uses."""
    return f"test-{uuid.uuid4().hex[:8]}"


def deploy_tde(workers: Workers, name: str) -> None:
    xml = render_tde(builders.executor(name, description='Says "5 < 6" & more')).decode()
    assert workers.deploy({f"tde-{name}.bpmn": xml}) == {f"tde-{name}"}


AD_HOC = f"""{HEAD}<bpmn:process id="ad-hoc" isExecutable="true">
<bpmn:startEvent id="Start"><bpmn:outgoing>f</bpmn:outgoing></bpmn:startEvent>
<bpmn:sequenceFlow id="f" sourceRef="Start" targetRef="AdHoc"/>
<bpmn:adHocSubProcess id="AdHoc"><bpmn:incoming>f</bpmn:incoming><bpmn:task id="Task"/></bpmn:adHocSubProcess>
</bpmn:process></bpmn:definitions>
"""


def test_what_doctor_says_an_engine_lacks_is_refused_by_it(workers: Workers) -> None:
    version = workers.gateway.Topology(pb.TopologyRequest()).gatewayVersion
    if "ad-hoc sub-processes" in describe_engine(version, embedded=True):
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            workers.deploy({"ad-hoc.bpmn": AD_HOC})
    else:
        assert workers.deploy({"ad-hoc.bpmn": AD_HOC}) == {"ad-hoc"}


def test_a_beat_starts_the_next_beat_of_its_shard(workers: Workers, unique: str) -> None:
    workers.publish("prokos.pdo.beat", unique, shard=unique, beat=1)
    for beat in (1, 2, 3):
        scan = workers.work("prokos.pdo.scan", {"shard": unique}, summary={"tasks": beat})
        assert scan["beat"] == beat
        key, variables = workers.take("prokos.pdo.beat", shard=unique)
        assert variables["summary"] == {"tasks": beat}
        if beat < 3:
            workers.publish("prokos.pdo.beat", unique, ttl=60_000, shard=unique, beat=beat + 1)
        workers.complete(key)


def test_boot_registers_what_is_planned_then_starts_pdo_and_health_check(workers: Workers, unique: str) -> None:
    kept, gone, process = f"{unique}-kept", f"{unique}-gone", f"{unique}-process"
    workers.publish("prokos.kernel.boot", unique, system=unique)
    system = {"system": unique}
    workers.work("prokos.kernel.check-engine", system)
    workers.work("prokos.kernel.plan-registrations", system, executors=[kept, gone], processes=[process])
    # A called registration knows the one name and nothing else of the boot; loopCounter is the engine's.
    for executor, desired in ((kept, True), (gone, False)):
        seen = workers.work("prokos.kernel.inspect-executor", {"executor": executor}, desired=desired)
        assert seen.keys() == {"executor", "loopCounter"}
    workers.work("prokos.kernel.deploy-tde", {"executor": kept})
    workers.work("prokos.kernel.start-workers", {"executor": kept})
    workers.work("prokos.kernel.record-executor", {"executor": kept})
    workers.work("prokos.kernel.stop-workers", {"executor": gone})
    workers.work("prokos.kernel.forget-executor", {"executor": gone})
    seen = workers.work("prokos.kernel.inspect-process", {"process": process}, desired=True)
    assert seen.keys() == {"process", "loopCounter"}
    workers.work("prokos.kernel.deploy-process", {"process": process})
    workers.work("prokos.kernel.plan-routes", {"process": process})
    workers.work("prokos.kernel.record-process", {"process": process})
    start_pdo = workers.work("prokos.kernel.start-pdo", system)
    assert start_pdo == {"system": unique, "executors": [kept, gone], "processes": [process]}
    workers.work("prokos.kernel.start-health", system)


def test_boot_with_nothing_to_register_starts_the_pdo(workers: Workers, unique: str) -> None:
    workers.publish("prokos.kernel.boot", unique, system=unique)
    workers.work("prokos.kernel.check-engine", {"system": unique})
    workers.work("prokos.kernel.plan-registrations", {"system": unique}, executors=[], processes=[])
    workers.work("prokos.kernel.start-pdo", {"system": unique})
    workers.work("prokos.kernel.start-health", {"system": unique})


@pytest.mark.parametrize("kind", ["executor", "process"])
def test_a_resource_that_cannot_be_read_is_refused(workers: Workers, unique: str, kind: str) -> None:
    workers.publish(f"prokos.kernel.{kind}-changed", unique, ttl=60_000, **{kind: unique})
    key, _ = workers.take(f"prokos.kernel.inspect-{kind}", **{kind: unique})
    workers.throw(key, "REGISTRATION_REFUSED", refusal="no such field")
    recorded = workers.work("prokos.kernel.record-refusal", {kind: unique})
    assert recorded == {kind: unique, "refusal": "no such field"}


@pytest.mark.parametrize(("kind", "deploy"), [("executor", "deploy-tde"), ("process", "deploy-process")])
def test_a_resource_that_the_engine_rejects_is_refused(workers: Workers, unique: str, kind: str, deploy: str) -> None:
    workers.publish(f"prokos.kernel.{kind}-changed", unique, ttl=60_000, **{kind: unique})
    workers.work(f"prokos.kernel.inspect-{kind}", {kind: unique}, desired=True)
    key, _ = workers.take(f"prokos.kernel.{deploy}", **{kind: unique})
    workers.throw(key, "REGISTRATION_REFUSED", refusal="not valid")
    assert workers.work("prokos.kernel.record-refusal", {kind: unique})["refusal"] == "not valid"


def test_a_process_that_is_gone_is_forgotten(workers: Workers, unique: str) -> None:
    workers.publish("prokos.kernel.process-changed", unique, ttl=60_000, process=unique)
    workers.work("prokos.kernel.inspect-process", {"process": unique}, desired=False)
    workers.work("prokos.kernel.forget-process", {"process": unique})


def test_health_check_waits_before_it_asks_for_the_next(workers: Workers, unique: str) -> None:
    workers.publish("prokos.kernel.health", unique, system=unique, interval="PT1S")
    for check in ("engine", "workers"):
        workers.work(f"prokos.kernel.check-{check}", {"system": unique})
    last, _ = workers.take("prokos.kernel.check-heartbeat", system=unique)
    checked = time.monotonic()
    workers.complete(last)
    assert workers.work("prokos.kernel.health-again", {"system": unique})["interval"] == "PT1S"
    assert time.monotonic() - checked >= 1


@pytest.mark.parametrize(("decided", "then"), [(True, "prokos.route.record"), (False, "prokos.route.refuse")])
def test_a_route_is_recorded_or_refused(workers: Workers, unique: str, decided: bool, then: str) -> None:
    workers.publish("prokos.route.requested", unique, element=unique)
    workers.work("prokos.route.decide", {"element": unique}, decided=decided)
    workers.work(then, {"element": unique})


def test_plain_tde_hands_the_variables_of_its_message_to_the_worker(workers: Workers, unique: str) -> None:
    deploy_tde(workers, unique)
    workers.publish(f"prokos.tde.{unique}", "1", task={"job": 1}, input={"amount": 5})
    variables = workers.work(f"prokos.tde.{unique}", {})
    assert variables == {"task": {"job": 1}, "input": {"amount": 5}}


def test_second_start_of_a_tde_for_the_same_task_is_dropped(workers: Workers, unique: str) -> None:
    deploy_tde(workers, unique)
    for attempt in (1, 2):
        workers.publish(f"prokos.tde.{unique}", "1", attempt=attempt)
    workers.publish(f"prokos.tde.{unique}", "2", attempt=3)
    taken = [workers.work(f"prokos.tde.{unique}", {})["attempt"] for _ in range(2)]
    assert taken == [1, 3]


def test_tde_can_be_called_directly(workers: Workers, unique: str) -> None:
    deploy_tde(workers, unique)
    running = workers.gateway.CreateProcessInstanceWithResult.future(
        pb.CreateProcessInstanceWithResultRequest(
            request=pb.CreateProcessInstanceRequest(
                bpmnProcessId=f"tde-{unique}", version=-1, variables='{"amount": 5}'
            ),
            requestTimeout=int(DEADLINE * 1000),
        )
    )
    assert workers.work(f"prokos.tde.{unique}", {}, net=4) == {"amount": 5}
    assert json.loads(running.result(timeout=DEADLINE).variables)["net"] == 4
