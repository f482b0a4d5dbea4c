"""How the pods of one part of a system run. Only a cluster has pods; the embedded home ignores these settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from prokos.resources.base import ITEMS_MAX, Model
from prokos.resources.cel import AS_SET, Rule, cel
from prokos.resources.networks import Network

Quantity = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?([EPTGMk]i?|m)?$")]
"""An amount as Kubernetes writes it: `100m`, `1.5`, `256Mi`."""


class Resources(Model):
    """Requests and limits of a container, by resource name (`cpu`, `memory`, ...)."""

    requests: dict[str, Quantity] = Field(default_factory=dict, description="What a node must have left for it.")
    limits: dict[str, Quantity] = Field(default_factory=dict, description="What it may take at most.")


class PodSettings(Model):
    """What may be said of pods; what is not said is restricted as far as Pod Security `restricted` asks."""

    image: str | None = Field(None, description="Container image; default: the one that comes with this version.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="When the image is pulled; default: as in a pod."
    )
    image_pull_secrets: list[str] = Field(
        default_factory=list, description="Names of Secrets of the namespace.", json_schema_extra=AS_SET
    )
    resources: Resources = Field(default_factory=Resources)
    runtime_class_name: str | None = Field(None, description="RuntimeClass, for example that of a sandbox.")
    priority_class_name: str | None = Field(None, description="PriorityClass of the pods.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that nodes must have.")
    tolerations: list[dict[str, Any]] = Field(default_factory=list, description="As in a pod.")
    labels: dict[str, str] = Field(default_factory=dict, description="Further labels of the pods.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of the pods.")


class Port(Model):
    """A port that may be reached."""

    port: int = Field(ge=1, le=65535, description="Its number.")
    protocol: Literal["TCP", "UDP"] = Field("TCP", description="What is spoken to it.")


class Egress(Model):
    """One destination the pods may reach, besides the engine, the PDO and the name service."""

    cidr: Network | None = Field(None, description="Network, for example `10.1.0.0/16` or `192.0.2.7/32`.")
    namespace: str | None = Field(None, description="Name of a namespace; with `pods`, those pods in it.")
    pods: dict[str, str] = Field(default_factory=dict, description="Labels of pods, in `namespace` or the own one.")
    ports: list[Port] = Field(min_length=1, description="Ports that may be reached there.")

    @model_validator(mode="after")
    @cel(
        Rule(
            "has(self.cidr) != (has(self.namespace) || (has(self.pods) && self.pods.size() > 0))",
            "give either cidr, or namespace and pods",
        )
    )
    def _one_destination(self) -> Self:
        if (self.cidr is None) == (self.namespace is None and not self.pods):
            raise ValueError("give either cidr, or namespace and pods")
        return self


class NetworkSettings(Model):
    """What an executor's pods may reach; everything else is closed."""

    egress: list[Egress] = Field(
        default_factory=list, max_length=ITEMS_MAX, description="What may be reached besides what settings name."
    )
    policy: Literal["Managed", "None"] = Field(
        "Managed", description="`None` makes no NetworkPolicy, for clusters whose policies come from elsewhere."
    )
