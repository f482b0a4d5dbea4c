"""`spec.engine.helm` of ProkOS: the engine as a Helm release."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prokos.resources.base import Duration, Model, Name
from prokos.resources.pods import Quantity, Resources
from prokos.resources.secrets import SecretKeyRef

DeletionPolicy = Literal["Retain", "Delete", "Orphan"]

CAMUNDA_CHART = "camunda-platform"
OWN_CHART = "camunda-engine"

DEFAULT_CAMUNDA_VERSION = "14"
"""Chart version of `camunda-platform` unless a resource says another: the newest 14.x, which is Camunda 8.9."""

CAMUNDA_OF_CHART = {13: "8.8", 14: "8.9"}
"""Camunda's minor version by the major version of its chart (version-matrix of camunda-platform-helm)."""

FIRST_SUPPORTED_CHART = min(CAMUNDA_OF_CHART)

LARGEST_REPLICATION = 3
"""Replication factor unless a resource says another: what Camunda recommends; more brokers share the partitions."""


def chart_major(version: str) -> int | None:
    """Major version of `14`, `14.x`, `14.8.4`, `~14.8` or `^14.8`; None for anything else."""
    match = re.match(r"[~^v]?(\d+)(?:\.|$)", version)
    return int(match[1]) if match else None


class EngineStorage(Model):
    """Where the engine exports its history to, which Operate and the search API read. ProkOS needs none."""

    type: Literal["none", "h2", "postgresql"] = Field(
        "none",
        description="`none`; `h2`, a database in the broker itself, for one broker and for development; `postgresql`.",
    )
    url: str | None = Field(
        None,
        pattern=r"^jdbc:postgresql://[^\s]+$",
        description="JDBC address of a PostgreSQL database, `jdbc:postgresql://HOST:PORT/DATABASE`.",
    )
    username: str | None = None
    password_secret_ref: SecretKeyRef | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = {"url": self.url, "username": self.username, "passwordSecretRef": self.password_secret_ref}
        if self.type == "postgresql" and (missing := [name for name, value in given.items() if value is None]):
            raise ValueError(f"type 'postgresql' needs {' and '.join(missing)}")
        if self.type != "postgresql" and (extra := [name for name, value in given.items() if value is not None]):
            raise ValueError(f"{' and '.join(extra)} would do nothing with type {self.type!r}; take 'postgresql'")
        if self.url and re.search(r"[?&]password=|://[^/@]*@", self.url, re.IGNORECASE):
            raise ValueError("url must not hold a password; name it with username and passwordSecretRef")
        return self


class EngineVolume(Model):
    """The persistent volume of each broker, which holds all running instances."""

    size: Quantity | None = Field(None, description="Default: the chart's.")
    storage_class_name: str | None = Field(None, description="Default: the cluster's.")


class EngineUser(Model):
    """The user that ProkOS is, with basic authentication."""

    username: str = "prokos"
    password_secret_ref: SecretKeyRef


class EngineOidc(Model):
    """An OpenID Connect provider, and the client that both the engine and ProkOS are at it."""

    issuer: str = Field(pattern=r"^https?://\S+$", description="URL of the issuer, as it is in its tokens.")
    token_url: str = Field(pattern=r"^https?://\S+$", description="Where ProkOS gets its tokens.")
    client_id: str
    client_secret_ref: SecretKeyRef
    audience: str = Field("orchestration-api", description="Audience that tokens must have.")


class EngineAuthentication(Model):
    """Who may use the engine's API: exactly one way."""

    basic: EngineUser | None = None
    oidc: EngineOidc | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.basic is None) == (self.oidc is None):
            raise ValueError("give exactly one of basic and oidc, or leave authentication out for an open API")
        return self


class HelmEngine(Model):
    """A Helm release that the operator installs, upgrades and repairs."""

    chart: str = Field(
        CAMUNDA_CHART,
        pattern=r"^(oci://|/)?[\w.-]+([/:][\w.-]+)*$",
        description="`camunda-platform` (Camunda's chart), `camunda-engine` (one broker, comes with the operator), a "
        "path in the operator's image or an `oci://` reference.",
    )
    repository: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="Chart repository; for camunda-platform Camunda's own.",
    )
    version: str | None = Field(
        None,
        pattern=r"^\S+$",
        description="Chart version; for camunda-platform 13.x (8.8) or 14.x (8.9), default the newest 14.x.",
    )
    release: Name | None = Field(
        None, description="Name of the release; one that exists is adopted. Default: NAME-engine."
    )
    brokers: int = Field(1, ge=1, le=99, description="Brokers, each a pod; three survive the loss of one.")
    partitions: int | None = Field(
        None, ge=1, le=99, description="Partitions the work is spread over, never changed later. Default: brokers."
    )
    replication_factor: int | None = Field(
        None, ge=1, le=99, description="Brokers that hold a copy of each partition. Default: 3, or 1 below 3 brokers."
    )
    storage: EngineStorage = Field(default_factory=EngineStorage)
    volume: EngineVolume = Field(default_factory=EngineVolume)
    authentication: EngineAuthentication | None = Field(
        None, description="Without it the API is open to whoever reaches its Service."
    )
    tls_secret: str | None = Field(
        None,
        description="Secret with `tls.crt`, `tls.key` (PKCS 8) and `ca.crt` for TLS at the gateway; authentication "
        "needs it.",
    )
    license_secret_ref: SecretKeyRef | None = Field(None, description="Camunda's licence key; production needs one.")
    resources: Resources = Field(default_factory=Resources, description="Of each broker. Default: the chart's.")
    heap: str | None = Field(None, pattern=r"^[1-9]\d*[mg]$", description="Java heap of each broker.")
    address: str | None = Field(
        None,
        pattern=r"^[^/\s]+:\d+$",
        description="Host and port of the gRPC gateway, for a chart that ProkOS does not know.",
    )
    values: dict[str, Any] = Field(
        default_factory=dict, description="Merged over the values that ProkOS generates; null removes one."
    )
    timeout: Duration = Field(
        timedelta(minutes=15),
        gt=timedelta(),
        description="How long an upgrade may take to be ready before it is rolled back.",
    )
    deletion_policy: DeletionPolicy = Field(
        "Retain",
        description="What becomes of the release when the ProkOS is deleted: `Retain` uninstalls it and keeps its "
        "volumes, `Delete` removes these too, `Orphan` leaves the release as it is.",
    )

    @property
    def chart_name(self) -> str:
        """Name of the chart, whether `chart` is the name, a path or a reference."""
        last = self.chart.rpartition("/")[2].partition(":")[0].removesuffix(".tgz")
        return re.sub(r"-v?\d+(\.\d+)+.*$", "", last)

    @property
    def effective_version(self) -> str | None:
        """The chart version, or constraint, to install."""
        return self.version or (DEFAULT_CAMUNDA_VERSION if self.chart_name == CAMUNDA_CHART else None)

    @property
    def effective_partitions(self) -> int:
        """How many partitions there are."""
        return self.partitions or self.brokers

    @property
    def effective_replication(self) -> int:
        """How many brokers hold each partition."""
        return self.replication_factor or (LARGEST_REPLICATION if self.brokers >= LARGEST_REPLICATION else 1)

    @model_validator(mode="after")
    def _chart_is_consistent(self) -> Self:
        named = "/" not in self.chart
        if named and self.chart not in (CAMUNDA_CHART, OWN_CHART) and self.repository is None:
            raise ValueError(f"chart {self.chart!r} needs its repository")
        if self.repository is not None and (not named or self.chart == OWN_CHART):
            raise ValueError(f"chart {self.chart!r} does not come from a repository; leave repository out")
        if self.version is not None and self.chart_name == OWN_CHART:
            raise ValueError("camunda-engine comes with the operator, in one version; leave version out")
        return self

    @model_validator(mode="after")
    def _chart_can_do_it(self) -> Self:
        if self.chart_name == CAMUNDA_CHART:
            major = chart_major(self.effective_version or "")
            if major not in CAMUNDA_OF_CHART:
                raise ValueError(f"version {self.version!r}: for camunda-platform write for example 14, 13.x or 14.8.4")
            if major == FIRST_SUPPORTED_CHART and self.storage.type != "none":
                raise ValueError(
                    f"storage {self.storage.type!r}: chart 13 (Camunda 8.8) has no relational storage; take version 14"
                )
        elif self.chart_name == OWN_CHART:
            if (self.brokers, self.effective_partitions, self.storage.type) != (1, 1, "none"):
                raise ValueError("camunda-engine is 1 broker with 1 partition and no storage; take camunda-platform")
            if self.authentication is not None:
                raise ValueError("camunda-engine has no authentication; take camunda-platform")
        else:
            if extra := sorted(_alias(name) for name in self.model_fields_set & SHAPE):
                raise ValueError(f"chart {self.chart!r} is not known: {', '.join(extra)} would do nothing; use values")
            if self.address is None:
                raise ValueError(f"chart {self.chart!r} is not known: give the address of its gateway")
        return self

    @model_validator(mode="after")
    def _engine_is_possible(self) -> Self:
        if self.effective_replication > self.brokers:
            raise ValueError(f"replicationFactor {self.effective_replication} needs as many brokers; give brokers")
        if self.storage.type == "h2" and (self.brokers, self.effective_partitions) != (1, 1):
            raise ValueError("storage 'h2' lives in the broker: it needs 1 broker and 1 partition; take 'postgresql'")
        if self.authentication is not None and self.tls_secret is None:
            raise ValueError("authentication needs tlsSecret; credentials would be sent in the clear")
        if self.authentication and self.authentication.basic and self.storage.type == "none":
            raise ValueError("authentication.basic needs a storage, where Camunda keeps its users; or take oidc")
        return self


SHAPE = frozenset(
    {"brokers", "partitions", "replication_factor", "storage", "volume", "license_secret_ref", "resources", "heap"}
)
"""Fields that ProkOS turns into values, which it can for charts it knows."""


def _alias(name: str) -> str:
    return HelmEngine.model_fields[name].alias or name
