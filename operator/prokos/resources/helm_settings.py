"""`spec.engine.helm` of ProkOS: the engine as a Helm release."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from prokos.resources.base import LINE_MAX_LENGTH, Duration, Model, Name
from prokos.resources.cel import Rule, cel
from prokos.resources.engine_shape import EngineAuthentication, EngineStorage, EngineVolume
from prokos.resources.pods import Resources
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


def _is_chart(name: str) -> str:
    """CEL that is true of a HelmEngine whose `chart_name` is this."""
    return f"self.chart.matches('(^|/){name}(-v?[0-9]+([.][0-9]+)+[^/:]*)?([.]tgz)?(:[^/]*)?$')"


_IS_CAMUNDA, _IS_OWN = _is_chart(CAMUNDA_CHART), _is_chart(OWN_CHART)
_PARTITIONS = "self.?partitions.orValue(self.brokers)"
_SAYS_NOTHING = (
    "self.brokers == 1 && !has(self.partitions) && !has(self.replicationFactor) && !has(self.licenseSecretRef) "
    "&& !has(self.heap) && self.storage.type == 'none' "
    "&& !self.?volume.?size.hasValue() && !self.?volume.?storageClassName.hasValue() "
    "&& self.?resources.?requests.orValue({}).size() + self.?resources.?limits.orValue({}).size() == 0"
)
"""CEL that is true when no field of `SHAPE` is set."""


class HelmEngine(Model):
    """A Helm release that the operator installs, upgrades and repairs."""

    chart: str = Field(
        CAMUNDA_CHART,
        pattern=r"^(oci://|/)?[\w.-]+([/:][\w.-]+)*$",
        max_length=LINE_MAX_LENGTH,
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
        max_length=LINE_MAX_LENGTH,
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
    @cel(
        Rule(
            f"self.chart.contains('/') || self.chart in ['{CAMUNDA_CHART}', '{OWN_CHART}'] || has(self.repository)",
            "a chart of another name needs its repository",
            ".chart",
        ),
        Rule(
            f"!has(self.repository) || !(self.chart.contains('/') || self.chart == '{OWN_CHART}')",
            "the chart does not come from a repository; leave repository out",
            ".repository",
        ),
        Rule(
            f"!has(self.version) || !{_IS_OWN}",
            "camunda-engine comes with the operator, in one version; leave version out",
            ".version",
        ),
    )
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
    @cel(
        Rule(
            f"!has(self.version) || !{_IS_CAMUNDA} "
            f"|| self.version.matches('^[~^v]?({'|'.join(map(str, CAMUNDA_OF_CHART))})([.]|$)')",
            "for camunda-platform write for example 14, 13.x or 14.8.4",
            ".version",
        ),
        Rule(
            f"!has(self.version) || !{_IS_CAMUNDA} || !self.version.matches('^[~^v]?{FIRST_SUPPORTED_CHART}([.]|$)') "
            "|| self.storage.type == 'none'",
            "chart 13 (Camunda 8.8) has no relational storage; take version 14",
            ".storage",
        ),
        Rule(
            f"!{_IS_OWN} || (self.brokers == 1 && {_PARTITIONS} == 1 && self.storage.type == 'none')",
            "camunda-engine is 1 broker with 1 partition and no storage; take camunda-platform",
            ".chart",
        ),
        Rule(
            f"!{_IS_OWN} || !has(self.authentication)",
            "camunda-engine has no authentication; take camunda-platform",
            ".authentication",
        ),
        Rule(
            f"{_IS_CAMUNDA} || {_IS_OWN} || ({_SAYS_NOTHING})",
            "ProkOS does not know this chart: brokers, partitions, replicationFactor, storage, volume, "
            "licenseSecretRef, resources and heap would do nothing; use values",
            ".chart",
        ),
        Rule(
            f"{_IS_CAMUNDA} || {_IS_OWN} || has(self.address)",
            "ProkOS does not know this chart: give the address of its gateway",
            ".chart",
        ),
    )
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
            if extra := sorted(_alias(name) for name in _changed(self)):
                raise ValueError(f"chart {self.chart!r} is not known: {', '.join(extra)} would do nothing; use values")
            if self.address is None:
                raise ValueError(f"chart {self.chart!r} is not known: give the address of its gateway")
        return self

    @model_validator(mode="after")
    @cel(
        Rule(
            "self.?replicationFactor.orValue(1) <= self.brokers",
            "replicationFactor needs as many brokers; give brokers",
            ".replicationFactor",
        ),
        Rule(
            f"self.storage.type != 'h2' || (self.brokers == 1 && {_PARTITIONS} == 1)",
            "storage 'h2' lives in the broker: it needs 1 broker and 1 partition; take 'postgresql'",
            ".storage",
        ),
        Rule(
            "!has(self.authentication) || has(self.tlsSecret)",
            "authentication needs tlsSecret; credentials would be sent in the clear",
            ".authentication",
        ),
        Rule(
            "!has(self.authentication) || !has(self.authentication.basic) || self.storage.type != 'none'",
            "authentication.basic needs a storage, where Camunda keeps its users; or take oidc",
            ".authentication",
        ),
    )
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


def _changed(settings: HelmEngine) -> set[str]:
    """The fields of `SHAPE` that say something. The API server writes defaults down, which say nothing."""
    fields = HelmEngine.model_fields
    return {name for name in SHAPE if getattr(settings, name) != fields[name].get_default(call_default_factory=True)}


def _alias(name: str) -> str:
    return HelmEngine.model_fields[name].alias or name
