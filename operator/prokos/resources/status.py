"""What a cluster reports in `status` of the resources. The embedded home shows the same with `prokos status`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prokos.resources.base import Model
from prokos.resources.cel import keyed


class Condition(Model):
    """One statement about a resource, as Kubernetes' own resources make it."""

    type: str = Field(description="What is said.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: str = Field(description="One word, for programs.")
    message: str = Field("", description="For people: what is wrong, where, and what to do.")
    observed_generation: int | None = Field(None, description="The generation of the spec it was seen at.")
    last_transition_time: str = Field(description="RFC 3339; when `status` last changed.")


class Status(Model):
    """What every resource's status has."""

    observed_generation: int | None = Field(None, description="The generation of the spec this status speaks of.")
    conditions: list[Condition] = Field(
        default_factory=list, description="`Ready` sums the others up.", json_schema_extra=keyed("type")
    )


class EngineStatus(Model):
    """The engine that is used."""

    address: str | None = Field(None, description="Host and port of the gateway.")
    version: str | None = Field(None, description="Version of the gateway.")
    release: str | None = Field(None, description="Helm release, if there is one.")
    revision: int | None = Field(None, description="Revision of the release.")
    chart: str | None = Field(None, description="Chart and version of the release.")
    settled_revision: int | None = Field(
        None, description="The last revision that was seen ready; an upgrade that does not get ready goes back to it."
    )


class ProkOSStatus(Status):
    """Status of a ProkOS."""

    engine: EngineStatus = Field(default_factory=EngineStatus)
    executors: str | None = Field(None, description="Ready executors of all, `3/4`.")
    processes: int | None = Field(None, description="Process definitions that are deployed.")
    shards: str | None = Field(None, description="Shards that beat of all, `1/1`.")


class TaskExecutorStatus(Status):
    """Status of a TaskExecutor."""

    replicas: int = Field(0, description="Worker pods there are.")
    ready_replicas: int = Field(0, description="Worker pods that take tasks.")
    selector: str | None = Field(None, description="Label selector of the worker pods, for autoscalers.")
    workers: str | None = Field(None, description="Worker pods that take tasks of all that shall run, `1/2`.")
    backlog: int | None = Field(None, description="Tasks that are dispatched to it and have not ended.")


class TaskStatus(Model):
    """A task of a process definition and the route it takes."""

    element: str = Field(description="Element id.")
    job_type: str | None = Field(None, description="Job type, unless the engine evaluates it.")
    executor: str | None = Field(None, description="None while no rule or route says.")
    source: str | None = Field(None, description="What decided: header, rule, human, llm or fallback.")
    message: str | None = Field(None, description="Why there is no executor.")


class ProcessStatus(Model):
    """One process of a process definition on the engine."""

    process_id: str = Field(description="BPMN process id.")
    version: int = Field(description="Version on the engine.")
    key: str = Field(description="Key of the process definition; a string, since JSON readers round large numbers.")
    tasks: list[TaskStatus] = Field(default_factory=list, description="Its tasks and their routes.")


class ProcessDefinitionStatus(Status):
    """Status of a ProcessDefinition."""

    process_id: str | None = Field(None, description="BPMN process id; of the first process, if there are several.")
    version: int | None = Field(None, description="Version on the engine.")
    routed: str | None = Field(None, description="Tasks with a route of all tasks, `3/4`.")
    processes: list[ProcessStatus] = Field(
        default_factory=list, description="All processes of the BPMN.", json_schema_extra=keyed("processId")
    )


class TaskRouteStatus(Status):
    """Status of a TaskRoute."""
