"""ProkOS: the whole system as one resource."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from prokos.resources.base import API_VERSION, Duration, Metadata, Model, Name
from prokos.resources.cel import AS_SET, Rule, cel
from prokos.resources.engine_settings import EngineSettings, SecretValue
from prokos.resources.pods import PodSettings
from prokos.resources.status import ProkOSStatus


class PdoSettings(Model):
    """The heartbeat and its bounds."""

    shards: int = Field(1, ge=1, le=64, description="Parallel heartbeats; job types are spread over them.")
    beat_interval: Duration = Field(
        timedelta(seconds=1),
        ge=timedelta(milliseconds=100),
        le=timedelta(seconds=5),
        description="Length of one beat, 100ms to 5s: the watchdog restarts a heartbeat that is 8 s late.",
    )
    scan_interval: Duration = Field(
        timedelta(seconds=5),
        ge=timedelta(milliseconds=100),
        description="How often each job type is polled, beside its stream.",
    )
    lease: Duration = Field(
        timedelta(seconds=30),
        ge=timedelta(seconds=1),
        description="How long a task stays with the PDO before the engine offers it again.",
    )
    window: int = Field(256, ge=1, le=10_000, description="Tasks of one job type dispatched and not yet ended.")
    replicas: int = Field(1, ge=0, le=64, description="PDO pods in a cluster; the shards are spread over them.")
    pod: PodSettings = Field(default_factory=PodSettings)
    include: list[str] = Field(
        default_factory=list, description="Job types to serve beside the registered ones.", json_schema_extra=AS_SET
    )
    exclude: list[str] = Field(
        default_factory=list, description="Job types to leave to other workers.", json_schema_extra=AS_SET
    )


class RouterSettings(Model):
    """How a task without a rule finds its executor."""

    mode: Literal["rules", "llm"] = Field(
        "rules", description="Whether a model is asked for elements that no rule and no TaskRoute decides."
    )
    model: str | None = Field(None, description="litellm model name, e.g. `openai/gpt-4o-mini`.")
    endpoint: str | None = Field(None, description="Base URL of the provider, for others than the model's own.")
    api_key: SecretValue | None = None
    timeout: Duration = Field(timedelta(seconds=30), gt=timedelta(), description="Longest wait for an answer.")
    min_confidence: float = Field(0.5, ge=0, le=1, description="Below this the answer counts as none.")
    fallback: Name | None = Field(None, description="Executor of every task that nothing else claims.")
    pod: PodSettings = Field(default_factory=PodSettings)

    @model_validator(mode="after")
    @cel(Rule("self.mode != 'llm' || has(self.model)", "mode is 'llm', so model is needed", ".model"))
    def _llm_has_model(self) -> Self:
        if self.mode == "llm" and self.model is None:
            raise ValueError("mode is 'llm', so model is needed")
        return self


class ExecutorDefaults(Model):
    """What holds for every executor that does not say otherwise."""

    pod: PodSettings = Field(default_factory=PodSettings)


class ProkOSSpec(Model):
    """Desired state of the system."""

    cluster_rules: ClassVar = (
        Rule(
            "self.?engine.?external.hasValue() == oldSelf.?engine.?external.hasValue()",
            "engine cannot change between helm and external: what runs on the old one would stay there; make another "
            "ProkOS",
        ),
    )

    engine: EngineSettings = Field(default_factory=EngineSettings)
    pdo: PdoSettings = Field(default_factory=PdoSettings)
    router: RouterSettings = Field(default_factory=RouterSettings)
    executor_defaults: ExecutorDefaults = Field(default_factory=ExecutorDefaults)


class ProkOS(Model):
    """A system: its engine, its heartbeat and its router. There is one in a namespace."""

    api_version: Literal["prokos.io/v1alpha1"] = API_VERSION
    kind: Literal["ProkOS"] = "ProkOS"
    metadata: Metadata
    spec: ProkOSSpec = Field(default_factory=ProkOSSpec)
    status: ProkOSStatus | None = None
