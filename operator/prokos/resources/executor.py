"""TaskExecutor: one type of TDE, what it accepts and how its workers run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from prokos.resources.base import API_VERSION, ITEMS_MAX, Duration, Metadata, Model
from prokos.resources.cel import Rule, cel, immutable, keyed
from prokos.resources.container_settings import ContainerSettings
from prokos.resources.grpc_settings import GrpcSettings
from prokos.resources.http_settings import HttpSettings
from prokos.resources.pods import NetworkSettings, PodSettings
from prokos.resources.python_settings import PythonSettings
from prokos.resources.script_settings import ScriptSettings
from prokos.resources.secrets import Secret
from prokos.resources.sql_settings import SqlSettings
from prokos.resources.status import TaskExecutorStatus

ExecutorType = Literal["script", "http", "grpc", "sql", "container", "python"]

Settings = ScriptSettings | HttpSettings | GrpcSettings | SqlSettings | ContainerSettings | PythonSettings
"""The blocks of settings, one for each type."""

RESERVED_NAMES = frozenset({"engine", "kernel", "pdo", "router", "none"})
"""Names no executor may have: those of the system's own parts, and the router model's word for no executor."""


class AcceptRule(Model):
    """A task is accepted when every field that is set equals the task's."""

    job_type: str | None = Field(None, description="The job type, exactly as the process writes it.")
    process: str | None = Field(None, description="The BPMN process id.")
    element: str | None = Field(None, description="The id of the task's element.")
    headers: dict[str, str] = Field(default_factory=dict, description="Task headers that must have these values.")

    @model_validator(mode="after")
    @cel(
        Rule(
            "[self.?jobType, self.?process, self.?element].exists(field, field.orValue('') != '') "
            "|| self.?headers.orValue({}).size() > 0",
            "an empty rule would accept every task; set jobType, process, element or headers",
        )
    )
    def _says_something(self) -> Self:
        if not (self.job_type or self.process or self.element or self.headers):
            raise ValueError("an empty rule would accept every task; set jobType, process, element or headers")
        return self


class FeelMapping(Model):
    """One variable mapping, evaluated by the engine, with the meaning of `zeebe:input` and `zeebe:output`."""

    source: str = Field(description="FEEL expression, starting with `=`.", pattern=r"^=")
    target: str = Field(
        description="Name of the variable, dots descend into it.", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
    )


class Backoff(Model):
    """How long a failed task waits before its next attempt. The task itself says how many attempts it has."""

    initial: Duration = Field(timedelta(seconds=1), ge=timedelta(), description="After the first attempt.")
    multiplier: float = Field(2.0, ge=1, description="1 is a fixed back-off, 2 doubles it each time.")
    maximum: Duration = Field(timedelta(minutes=5), description="Longest wait.")
    jitter: float = Field(0.2, ge=0, le=1, description="Share of the delay that is random.")

    @model_validator(mode="after")
    @cel(
        Rule("duration(self.initial) <= duration(self.maximum)", "initial must not be longer than maximum", ".initial")
    )
    def _ordered(self) -> Self:
        if self.initial > self.maximum:
            raise ValueError(f"initial ({self.initial}) is longer than maximum ({self.maximum})")
        return self


class TaskRate(Model):
    """How often a worker begins a task. Tasks beyond it wait, and their time does not run meanwhile."""

    tasks_per_second: float = Field(gt=0, description="In the long run.")
    burst: int = Field(1, ge=1, description="Tasks that may begin at once after a pause.")


class Scaling(Model):
    """How many workers run."""

    min: int = Field(1, ge=0, description="Workers that run without tasks, too.")
    max: int = Field(1, ge=1, description="Most workers that run for a backlog.")
    cooldown: Duration = Field(
        timedelta(seconds=60),
        ge=timedelta(),
        description="How long fewer workers must have been enough before some are taken away. Cluster only.",
    )
    pod_per_task: bool = Field(
        False,
        description="Each worker is a pod that takes one task and ends; `min` of them wait for tasks. Cluster only.",
    )

    @model_validator(mode="after")
    @cel(Rule("self.min <= self.max", "min must not be greater than max", ".min"))
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is greater than max ({self.max})")
        return self


class TaskExecutorSpec(Model):
    """What an executor does, what it accepts and how it runs."""

    type: ExecutorType = Field(
        description="Which block of settings there is: exactly the one of this name.",
        json_schema_extra=immutable("type cannot change; delete this TaskExecutor and make another"),
    )
    description: str = Field("", description="What it does, in words: the LLM router reads this and nothing else.")
    accepts: list[AcceptRule] = Field(default_factory=list, max_length=ITEMS_MAX, description="Tasks it claims.")
    script: ScriptSettings | None = None
    http: HttpSettings | None = None
    grpc: GrpcSettings | None = None
    sql: SqlSettings | None = None
    container: ContainerSettings | None = None
    python: PythonSettings | None = None
    input_schema: dict[str, Any] | None = Field(None, description="JSON Schema the input must satisfy.")
    output_schema: dict[str, Any] | None = Field(None, description="JSON Schema the output must satisfy.")
    inputs: list[FeelMapping] = Field(default_factory=list, description="What builds the input; default: variables.")
    outputs: list[FeelMapping] = Field(default_factory=list, description="What builds the task's variables.")
    backoff: Backoff = Field(default_factory=Backoff)
    timeout: Duration = Field(timedelta(seconds=60), gt=timedelta(), description="Longest execution of one attempt.")
    concurrency: int = Field(4, ge=1, le=256, description="Tasks one worker runs at a time.")
    rate_limit: TaskRate | None = None
    scaling: Scaling = Field(default_factory=Scaling)
    replicas: int | None = Field(
        None,
        ge=0,
        description="Workers that run, whatever `scaling` says: set by `kubectl scale` or a HorizontalPodAutoscaler.",
    )
    pod: PodSettings = Field(default_factory=PodSettings)
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    secrets: list[Secret] = Field(
        default_factory=list,
        max_length=ITEMS_MAX,
        description="Secrets the executor may use.",
        json_schema_extra=keyed("name"),
    )

    @model_validator(mode="after")
    @cel(
        *(
            Rule(
                f"has(self.{name}) == (self.type == '{name}')",
                f"the block {name} goes with type: {name}, and only there",
            )
            for name in get_args(ExecutorType)
        )
    )
    def _settings_match_type(self) -> Self:
        blocks = {name: getattr(self, name) for name in get_args(ExecutorType)}
        if blocks[self.type] is None:
            raise ValueError(f"type is {self.type!r}, so the block {self.type!r} is needed")
        if others := [name for name, block in blocks.items() if block is not None and name != self.type]:
            raise ValueError(f"type is {self.type!r}, so the block {others[0]!r} does not belong here")
        return self

    @model_validator(mode="after")
    @cel(
        Rule(
            "!self.scaling.podPerTask || self.concurrency == 1",
            "with scaling.podPerTask a worker takes one task; set concurrency: 1",
            ".concurrency",
        )
    )
    def _one_task_for_each_pod(self) -> Self:
        if self.scaling.pod_per_task and self.concurrency != 1:
            raise ValueError(
                f"concurrency is {self.concurrency}, but with scaling.podPerTask a worker takes one task: "
                "set concurrency: 1"
            )
        return self

    @model_validator(mode="after")
    @cel(
        Rule(
            "!has(self.http) || !has(self.http.callback) || self.scaling.min > 0",
            "with http.callback a worker must be there when a callback comes; set scaling.min to 1 or more",
            ".scaling.min",
        )
    )
    def _someone_awaits_callbacks(self) -> Self:
        if self.http is not None and self.http.callback is not None and self.scaling.min == 0:
            raise ValueError(
                "scaling.min is 0, but with http.callback a worker must be there when a callback comes: set it to 1 "
                "or more"
            )
        return self

    @property
    def workers(self) -> int:
        """Workers to run as far as the resource says; in between `scaling` the backlog decides."""
        return self.scaling.min if self.replicas is None else self.replicas

    @property
    def settings(self) -> Settings:
        """The block of settings that belongs to `type`."""
        block = getattr(self, self.type)
        assert isinstance(block, Settings)  # noqa: S101
        return block


class TaskExecutor(Model):
    """A type of task, and how it is done: it becomes a TDE process and the workers that execute it."""

    api_version: Literal["prokos.io/v1alpha1"] = API_VERSION
    kind: Literal["TaskExecutor"] = "TaskExecutor"
    metadata: Metadata
    spec: TaskExecutorSpec
    status: TaskExecutorStatus | None = None

    @model_validator(mode="after")
    @cel(
        Rule(
            f"!(self.metadata.name in {sorted(RESERVED_NAMES)})",
            f"metadata.name must be none of {', '.join(sorted(RESERVED_NAMES))}, the names of parts of ProkOS",
        )
    )
    def _name_is_free(self) -> Self:
        if self.metadata.name in RESERVED_NAMES:
            raise ValueError(f"metadata.name {self.metadata.name!r} is the name of a part of ProkOS; choose another")
        return self
