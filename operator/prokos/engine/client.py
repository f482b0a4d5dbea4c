"""The one module that talks to the engine: every command of Camunda 8's gRPC gateway that ProkOS uses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
import grpc.aio
from pyzeebe.proto import gateway_pb2 as pb
from pyzeebe.proto.gateway_pb2_grpc import GatewayStub

from prokos.engine import errors
from prokos.engine.job import Job
from prokos.engine.losses import Losses
from prokos.engine.retry import RetryPolicy
from prokos.engine.window import Window

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from prokos.engine.connection import Connection

    Response = TypeVar("Response")

COMMAND_TIMEOUT = 15.0
"""Seconds a single attempt of a command may take; the gateway itself gives up after 15 s."""

CONNECTING = 10.0
"""Seconds that starting or modifying an instance waits for a connection, if the policy is as patient. They are not
repeated once they may have been executed; before they are sent there is nothing to lose."""

RESULT_AWAITED = 24 * 3600
"""Seconds the gateway awaits the result of an instance. When this time is over, the gateway cuts its connection to the
broker, and with it the requests of everybody else (8.6.0); so it is much longer than anybody waits, and the deadline of
the call is what ends it."""

DEFAULT_TENANT = "<default>"
"""The one tenant that is served. Requests for jobs name it: an engine with tenants gives nothing to one that names
none, and neither does the stream of the in-memory engine."""


@dataclass(frozen=True, slots=True)
class DeployedProcess:
    """What the engine says of a process it has accepted."""

    process_id: str
    version: int
    key: int
    resource_name: str


@dataclass(frozen=True, slots=True)
class ProcessInstance:
    """A running process instance."""

    key: int
    process_id: str
    version: int


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """A process instance that ran to its end."""

    key: int
    process_id: str
    version: int
    variables: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Topology:
    """The cluster as the gateway sees it."""

    gateway_version: str
    brokers: int
    partitions: int
    leaders: int
    """Partitions with a leader that is not dead. One may be unhealthy for a while, and still does its work."""
    healthy_leaders: int

    @property
    def ready(self) -> bool:
        """Every partition has a leader."""
        return 0 < self.partitions == self.leaders

    @property
    def healthy(self) -> bool:
        """Every partition has a leader that calls itself healthy."""
        return 0 < self.partitions == self.healthy_leaders


def to_json(variables: Mapping[str, Any]) -> str:
    """Variables as the gateway takes them.

    Raises:
        ValueError: They hold what is no JSON (not-a-number, infinity, objects such as dates), or are nested beyond
            Python's stack.
    """
    try:
        return json.dumps(variables, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("they are nested too deeply") from None
    except TypeError as error:
        raise ValueError(str(error)) from None


class EngineClient:
    """Commands to one engine. All methods raise `EngineError`s; keys are the engine's 64-bit integers.

    Commands that name a key are idempotent by nature: repeated after a lost answer, they raise `NotFoundError`
    if the first attempt was executed.
    """

    def __init__(self, connection: Connection, policy: RetryPolicy | None = None) -> None:
        self.connection = connection
        self.policy = policy or RetryPolicy()
        self._channel = connection.open_channel()
        self._gateway: Any = GatewayStub(self._channel)
        self.window = Window()
        self.losses = Losses(self._channel)
        """Known from the time on that the client is entered."""
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self.losses.watch(), name="engine connection")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; commands that are under way fail."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._channel.close()

    async def _call(self, rpc: Any, request: Any, *, idempotent: bool = True, timeout: float = COMMAND_TIMEOUT) -> Any:
        async with self.window:
            return await self._call_at_once(rpc, request, idempotent=idempotent, timeout=timeout)

    async def _call_at_once(
        self, rpc: Any, request: Any, *, idempotent: bool = True, timeout: float = COMMAND_TIMEOUT
    ) -> Any:
        """For what must not wait for other commands: what keeps a lease, and what waits long for its answer."""

        async def attempt() -> Any:
            try:
                response = await rpc(request, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                raise self._noted(errors.from_grpc(error)) from error
            self.window.taken()
            return response

        return await self.policy.run(attempt, idempotent=idempotent)

    async def _connected(self) -> None:
        """Wait for a connection; without one the command is tried all the same, and says what is wrong."""
        patience = self.policy.patience
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECTING if patience is None else min(patience, CONNECTING)):
                await self._channel.channel_ready()

    def _noted(self, error: errors.EngineError) -> errors.EngineError:
        if isinstance(error, errors.BackpressureError):
            self.window.refused()
        return error

    async def topology(self) -> Topology:
        """Ask the gateway how the cluster is, once and without retries: callers want to know it as it is."""
        try:
            response = await self._gateway.Topology(pb.TopologyRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            raise errors.from_grpc(error) from error
        health = [
            partition.health
            for broker in response.brokers
            for partition in broker.partitions
            if partition.role == pb.Partition.LEADER and partition.health != pb.Partition.DEAD
        ]
        return Topology(
            gateway_version=response.gatewayVersion,
            brokers=len(response.brokers),
            partitions=response.partitionsCount,
            leaders=len(health),
            healthy_leaders=health.count(pb.Partition.HEALTHY),
        )

    async def deploy(self, resources: Mapping[str, bytes]) -> list[DeployedProcess]:
        """Deploy BPMN and DMN resources together, all or none.

        The engine keeps the version of a process whose resource name and content are what it has already.

        Args:
            resources: Resource name (ending in `.bpmn` or `.dmn`) to content.

        Returns:
            The processes among them.

        Raises:
            RejectedError: The engine refuses a resource; its message names the elements.
        """
        request = pb.DeployResourceRequest(
            resources=[pb.Resource(name=name, content=content) for name, content in resources.items()]
        )
        response = await self._call(self._gateway.DeployResource, request, timeout=60)
        processes = [item.process for item in response.deployments if item.HasField("process")]
        return [DeployedProcess(p.bpmnProcessId, p.version, p.processDefinitionKey, p.resourceName) for p in processes]

    async def evaluate_decision(self, decision_id: str, variables: Mapping[str, Any]) -> Any:
        """Have the newest version of a decision evaluated.

        Returns:
            Its output, from JSON.

        Raises:
            EvaluationError: FEEL cannot compute it from these variables.
            NotFoundError: There is no such decision; before 8.8 a `RejectedError`.
            RejectedError: The variables are too large.
        """
        request = pb.EvaluateDecisionRequest(decisionId=decision_id, variables=to_json(variables))
        response = await self._call(self._gateway.EvaluateDecision, request)
        if response.failureMessage:
            raise errors.EvaluationError(response.failureMessage)
        return json.loads(response.decisionOutput)

    async def create_instance(
        self, process_id: str, variables: Mapping[str, Any] | None = None, *, version: int = -1
    ) -> ProcessInstance:
        """Start a process instance; not repeated after a lost connection, as that could start two."""
        request = pb.CreateProcessInstanceRequest(
            bpmnProcessId=process_id, version=version, variables=to_json(variables or {})
        )
        await self._connected()
        response = await self._call(self._gateway.CreateProcessInstance, request, idempotent=False)
        return ProcessInstance(response.processInstanceKey, response.bpmnProcessId, response.version)

    async def run_instance(
        self, process_id: str, variables: Mapping[str, Any] | None = None, *, version: int = -1, timeout: float
    ) -> ProcessResult:
        """Start a process instance and wait for its end.

        Args:
            process_id: BPMN process id.
            variables: Its first variables.
            version: -1 is the latest.
            timeout: Seconds to wait; the instance goes on when they are over.

        Raises:
            EngineUnavailableError: The time is over, or the connection was lost; the instance may be running.
        """
        create = pb.CreateProcessInstanceRequest(
            bpmnProcessId=process_id, version=version, variables=to_json(variables or {})
        )
        request = pb.CreateProcessInstanceWithResultRequest(request=create, requestTimeout=RESULT_AWAITED * 1000)
        await self._connected()
        response = await self._call_at_once(
            self._gateway.CreateProcessInstanceWithResult, request, idempotent=False, timeout=timeout
        )
        return ProcessResult(
            response.processInstanceKey, response.bpmnProcessId, response.version, json.loads(response.variables)
        )

    async def cancel_instance(self, key: int) -> None:
        """Cancel a process instance and everything in it."""
        await self._call(self._gateway.CancelProcessInstance, pb.CancelProcessInstanceRequest(processInstanceKey=key))

    async def publish_message(
        self,
        name: str,
        correlation_key: str,
        variables: Mapping[str, Any] | str | None = None,
        *,
        ttl: float = 0,
        message_id: str = "",
        idempotent: bool = True,
    ) -> bool:
        """Publish a message.

        Args:
            name: Message name.
            correlation_key: Started instances are unique per process and correlation key.
            variables: Variables, as a mapping or as JSON text that is already there.
            ttl: Seconds the message is kept if nobody waits for it; 0 drops it.
            message_id: Two messages with one id, name and key are one while the first is kept.
            idempotent: Whether to publish again when an answer is lost.

        Returns:
            False when a message with this id is there already.
        """
        request = pb.PublishMessageRequest(
            name=name,
            correlationKey=correlation_key,
            timeToLive=int(ttl * 1000),
            messageId=message_id,
            variables=variables if isinstance(variables, str) else to_json(variables or {}),
        )
        try:
            await self._call(self._gateway.PublishMessage, request, idempotent=idempotent)
        except errors.RejectedError as error:
            if "already" in str(error) and message_id:
                return False
            raise
        return True

    async def activate_jobs(
        self, job_type: str, *, worker: str, limit: int, lease: float, wait: float = -1
    ) -> list[Job]:
        """Take up to `limit` jobs that wait, oldest first.

        Args:
            job_type: Job type.
            worker: Name under which the engine records who has them.
            limit: Most jobs to take.
            lease: Seconds they are ours; then the engine offers them again.
            wait: Seconds the gateway may hold the request until there is a job; -1 answers at once.
        """
        request = pb.ActivateJobsRequest(
            type=job_type,
            worker=worker,
            maxJobsToActivate=limit,
            timeout=int(lease * 1000),
            requestTimeout=-1 if wait < 0 else int(wait * 1000),
            tenantIds=[DEFAULT_TENANT],
        )

        async def attempt() -> list[Job]:
            jobs: list[Job] = []
            asked = time.monotonic()
            try:
                async for response in self._gateway.ActivateJobs(request, timeout=max(wait, 0) + COMMAND_TIMEOUT):
                    jobs.extend(Job.from_message(job, asked) for job in response.jobs)
            except grpc.aio.AioRpcError as error:
                # What has arrived is leased to us: it is worth more than the rest of the answer.
                if not jobs:
                    raise self._noted(errors.from_grpc(error)) from error
            return jobs

        if wait > 0:
            return await self.policy.run(attempt, idempotent=True)
        async with self.window:
            return await self.policy.run(attempt, idempotent=True)

    async def stream_jobs(self, job_type: str, *, worker: str, lease: float) -> AsyncGenerator[Job, None]:
        """Jobs as the engine makes them, from now on; ends with an `EngineError` when the stream breaks.

        Jobs that were there before are never pushed: poll for them with `activate_jobs`.
        """
        request = pb.StreamActivatedJobsRequest(
            type=job_type, worker=worker, timeout=int(lease * 1000), tenantIds=[DEFAULT_TENANT]
        )
        call = self._gateway.StreamActivatedJobs(request)
        try:
            async for job in call:
                yield Job.from_message(job)
        except grpc.aio.AioRpcError as error:
            raise errors.from_grpc(error) from error
        finally:
            call.cancel()

    async def complete_job(self, key: int, variables: Mapping[str, Any] | None = None) -> None:
        """Complete a job; anybody may who knows its key."""
        await self._call(
            self._gateway.CompleteJob, pb.CompleteJobRequest(jobKey=key, variables=to_json(variables or {}))
        )

    async def fail_job(
        self,
        key: int,
        message: str,
        *,
        retries: int,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """Fail a job; the engine offers it again at once. Its own back-off may never end (docs/decisions/0017).

        Args:
            key: Job key.
            message: Shown in the incident; cut to the engine's limit.
            retries: Attempts left; 0 makes an incident.
            variables: Local variables of the job's element.
        """
        request = pb.FailJobRequest(
            jobKey=key,
            retries=retries,
            errorMessage=cut(message),
            variables=to_json(variables or {}),
        )
        await self._call(self._gateway.FailJob, request)

    async def throw_error(
        self, key: int, code: str, message: str = "", variables: Mapping[str, Any] | None = None
    ) -> None:
        """Throw a BPMN error at a job's element; uncaught it becomes an incident."""
        request = pb.ThrowErrorRequest(
            jobKey=key, errorCode=code, errorMessage=cut(message), variables=to_json(variables or {})
        )
        await self._call(self._gateway.ThrowError, request)

    async def extend_lease(self, key: int, lease: float) -> None:
        """Keep a job for `lease` more seconds from now.

        Raises:
            NotFoundError: The job has ended.
            RejectedError: The job is not leased to anybody now.
        """
        request = pb.UpdateJobTimeoutRequest(jobKey=key, timeout=int(lease * 1000))
        await self._call_at_once(self._gateway.UpdateJobTimeout, request)

    async def restart_element(self, instance_key: int, element_id: str, element_instance_key: int) -> None:
        """Terminate an element instance, with its incident, and activate the element anew."""
        request = pb.ModifyProcessInstanceRequest(
            processInstanceKey=instance_key,
            activateInstructions=[pb.ModifyProcessInstanceRequest.ActivateInstruction(elementId=element_id)],
            terminateInstructions=[
                pb.ModifyProcessInstanceRequest.TerminateInstruction(elementInstanceKey=element_instance_key)
            ],
        )
        await self._connected()
        await self._call(self._gateway.ModifyProcessInstance, request, idempotent=False)


MESSAGE_LIMIT = 5_000
"""Characters of an error message that are sent; the engine stores at most 10,000 (measured on 8.6.0)."""


def cut(message: str, limit: int = MESSAGE_LIMIT) -> str:
    """Shorten a message to the engine's limit, keeping its beginning and its end."""
    if len(message) <= limit:
        return message
    half = (limit - 5) // 2
    return f"{message[:half]} ... {message[-half:]}"
