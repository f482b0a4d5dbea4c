"""`spec.engine` of ProkOS: where the engine comes from and how it is reached."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prokos.resources.base import Duration, Model, Name
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


DeletionPolicy = Literal["Retain", "Delete", "Orphan"]


class HelmEngine(Model):
    """A Helm release that the operator installs, upgrades and repairs."""

    chart: str = Field(
        "camunda-platform",
        description="`camunda-platform` (Camunda's chart), `camunda-engine` (one broker, comes with the operator), a "
        "path in the operator's image or an `oci://` reference.",
    )
    repository: str | None = Field(None, description="Chart repository; for camunda-platform Camunda's own.")
    version: str | None = Field(None, description="Chart version; for camunda-platform 13.x (8.8) or 14.x (8.9).")
    release: Name | None = Field(
        None, description="Name of the release; one that exists is adopted. Default: NAME-engine."
    )
    values: dict[str, Any] = Field(default_factory=dict, description="Merged over the values that ProkOS generates.")
    timeout: Duration = Field(timedelta(minutes=15), gt=timedelta(), description="Longest install or upgrade.")
    deletion_policy: DeletionPolicy = Field(
        "Retain",
        description="What becomes of the release when the ProkOS is deleted: `Retain` uninstalls it and keeps its "
        "volumes, `Delete` removes these too, `Orphan` leaves the release as it is.",
    )


class EngineSettings(Model):
    """One of the ways to have an engine. Default: embedded under `prokos dev`, helm in a cluster."""

    embedded: EmbeddedEngine | None = None
    helm: HelmEngine | None = None
    external: ExternalEngine | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(way is not None for way in (self.embedded, self.helm, self.external)) > 1:
            raise ValueError("give one of embedded, helm and external")
        return self
