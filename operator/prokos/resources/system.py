"""ProkOS: the whole system as one resource."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prokos.resources.base import API_VERSION, Duration, Metadata, Model, Name
from prokos.resources.secrets import SecretKeyRef


class SecretValue(Model):
    """A secret by reference: exactly one of the fields."""

    env: str | None = None
    file: str | None = None
    secret_key_ref: SecretKeyRef | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.secret_key_ref)) != 1:
            raise ValueError("give exactly one of env, file or secretKeyRef")
        return self


class TlsSettings(Model):
    """TLS to the engine's gateway."""

    enabled: bool = False
    ca_file: str | None = Field(None, description="PEM file of the certificate authority, if not a public one.")


class OAuthSettings(Model):
    """OAuth 2 client credentials."""

    token_url: str
    client_id: str
    client_secret: SecretValue
    audience: str | None = None
    scope: str | None = None


class BasicSettings(Model):
    """User name and password, as 8.8's gateway takes them."""

    username: str
    password: SecretValue


class ExternalEngine(Model):
    """An engine that runs elsewhere."""

    address: str = Field(description="Host and port of the gRPC gateway.", pattern=r"^[^/\s]+:\d+$")
    tls: TlsSettings = Field(default_factory=TlsSettings)
    oauth: OAuthSettings | None = None
    basic: BasicSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.oauth is not None and self.basic is not None:
            raise ValueError("give oauth or basic, not both")
        if (self.oauth or self.basic) and not self.tls.enabled:
            raise ValueError("credentials need tls.enabled: true; they would be sent in the clear")
        return self


class EmbeddedEngine(Model):
    """The Camunda broker as a child process of `prokos dev`."""

    version: str = Field("8.6.0", description="Version of the distribution to install.")
    heap: str = Field("512m", pattern=r"^[1-9]\d*[mg]$", description="Java heap.")


class EngineSettings(Model):
    """One of the ways to have an engine; embedded is the default of `prokos dev`."""

    embedded: EmbeddedEngine | None = None
    external: ExternalEngine | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.embedded is not None and self.external is not None:
            raise ValueError("give embedded or external, not both")
        return self


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
    include: list[str] = Field(default_factory=list, description="Job types to serve beside the registered ones.")
    exclude: list[str] = Field(default_factory=list, description="Job types to leave to other workers.")


class RouterSettings(Model):
    """How a task without a rule finds its executor."""

    mode: Literal["rules", "llm"] = "rules"
    model: str | None = Field(None, description="litellm model name, e.g. `openai/gpt-4o-mini`.")
    endpoint: str | None = Field(None, description="Base URL of the provider, for others than the model's own.")
    api_key: SecretValue | None = None
    timeout: Duration = Field(timedelta(seconds=30), gt=timedelta())
    min_confidence: float = Field(0.5, ge=0, le=1, description="Below this the answer counts as none.")
    fallback: Name | None = Field(None, description="Executor of every task that nothing else claims.")

    @model_validator(mode="after")
    def _llm_has_model(self) -> Self:
        if self.mode == "llm" and self.model is None:
            raise ValueError("mode is 'llm', so model is needed")
        return self


class ProkOSSpec(Model):
    """Desired state of the system."""

    engine: EngineSettings = Field(default_factory=EngineSettings)
    pdo: PdoSettings = Field(default_factory=PdoSettings)
    router: RouterSettings = Field(default_factory=RouterSettings)


class ProkOS(Model):
    """The resource."""

    api_version: Literal["prokos.io/v1alpha1"] = API_VERSION
    kind: Literal["ProkOS"] = "ProkOS"
    metadata: Metadata
    spec: ProkOSSpec = Field(default_factory=ProkOSSpec)
    status: dict[str, Any] | None = None
