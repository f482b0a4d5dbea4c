"""`spec.engine` of ProkOS: where the engine comes from and how it is reached."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from prokos.resources.base import Model
from prokos.resources.cel import Rule, cel, one_of, refused_in_cluster
from prokos.resources.helm_settings import HelmEngine
from prokos.resources.secrets import SecretKeyRef


class SecretValue(Model):
    """A secret by reference: exactly one of the fields."""

    env: str | None = Field(
        None,
        description="Name of an environment variable; embedded home only.",
        json_schema_extra=refused_in_cluster("env is for the embedded home; in a cluster give secretKeyRef"),
    )
    file: str | None = Field(
        None,
        description="Path of a file; embedded home only.",
        json_schema_extra=refused_in_cluster("file is for the embedded home; in a cluster give secretKeyRef"),
    )
    secret_key_ref: SecretKeyRef | None = None

    @model_validator(mode="after")
    @cel(Rule(one_of("env", "file", "secretKeyRef"), "give exactly one of env, file or secretKeyRef"))
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.secret_key_ref)) != 1:
            raise ValueError("give exactly one of env, file or secretKeyRef")
        return self


class TlsSettings(Model):
    """TLS to the engine's gateway."""

    enabled: bool = Field(False, description="Credentials need it.")
    ca_file: str | None = Field(
        None,
        description="PEM file of the certificate authority, if not a public one; `oauth.tokenUrl` may be of it too.",
        json_schema_extra=refused_in_cluster("caFile is for the embedded home; in a cluster give caSecretRef"),
    )
    ca_secret_ref: SecretKeyRef | None = Field(None, description="The same as a Secret; for a cluster.")

    @model_validator(mode="after")
    @cel(Rule("!(has(self.caFile) && has(self.caSecretRef))", "give caFile or caSecretRef, not both"))
    def _one_authority(self) -> Self:
        if self.ca_file is not None and self.ca_secret_ref is not None:
            raise ValueError("give caFile or caSecretRef, not both")
        return self


class OAuthSettings(Model):
    """OAuth 2 client credentials."""

    token_url: str = Field(description="Where tokens come from.", pattern=r"^https://\S+$")
    client_id: str = Field(description="Id of the client that ProkOS is.")
    client_secret: SecretValue
    audience: str | None = Field(None, description="Sent with the token request.")
    scope: str | None = Field(None, description="Sent with the token request.")


class BasicSettings(Model):
    """User name and password, as 8.8's gateway takes them."""

    username: str = Field(description="Name of the user that ProkOS is.")
    password: SecretValue


class ExternalEngine(Model):
    """An engine that runs elsewhere."""

    address: str = Field(description="Host and port of the gRPC gateway.", pattern=r"^[^/\s]+:\d+$")
    tls: TlsSettings = Field(default_factory=TlsSettings)
    oauth: OAuthSettings | None = None
    basic: BasicSettings | None = None

    @model_validator(mode="after")
    @cel(
        Rule("!(has(self.oauth) && has(self.basic))", "give oauth or basic, not both"),
        Rule(
            "!(has(self.oauth) || has(self.basic)) || self.tls.enabled",
            "credentials need tls.enabled: true; they would be sent in the clear",
            ".tls",
        ),
    )
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

    embedded: EmbeddedEngine | None = Field(
        None,
        json_schema_extra=refused_in_cluster("embedded is an engine of prokos dev; in a cluster give helm or external"),
    )
    helm: HelmEngine | None = None
    external: ExternalEngine | None = None

    @model_validator(mode="after")
    @cel(Rule("!(has(self.helm) && has(self.external))", "give helm or external, not both"))
    def _one(self) -> Self:
        if sum(way is not None for way in (self.embedded, self.helm, self.external)) > 1:
            raise ValueError("give one of embedded, helm and external")
        return self
