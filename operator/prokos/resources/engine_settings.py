"""`spec.engine` of ProkOS: where the engine comes from and how it is reached."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from prokos.resources.base import Model
from prokos.resources.helm_settings import HelmEngine
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
    ca_secret_ref: SecretKeyRef | None = Field(None, description="The same as a Secret; for a cluster.")

    @model_validator(mode="after")
    def _one_authority(self) -> Self:
        if self.ca_file is not None and self.ca_secret_ref is not None:
            raise ValueError("give caFile or caSecretRef, not both")
        return self


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
    """One of the ways to have an engine. Default: embedded under `prokos dev`, helm in a cluster."""

    embedded: EmbeddedEngine | None = None
    helm: HelmEngine | None = None
    external: ExternalEngine | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(way is not None for way in (self.embedded, self.helm, self.external)) > 1:
            raise ValueError("give one of embedded, helm and external")
        return self
