"""ProcessDefinition: a BPMN process that ProkOS deploys and whose tasks it dispatches."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from prokos.resources.base import API_VERSION, Metadata, Model
from prokos.resources.cel import AS_SET, Rule, cel, one_of, refused_in_cluster
from prokos.resources.config_maps import ConfigMapRef
from prokos.resources.status import ProcessDefinitionStatus


class ProcessDefinitionSpec(Model):
    """Where the BPMN is: one of `bpmn`, `file` and `configMapRef`."""

    bpmn: str | None = Field(None, description="The BPMN XML itself.")
    file: str | None = Field(
        None,
        description="Path relative to the manifest; embedded home only.",
        json_schema_extra=refused_in_cluster("file is for the embedded home; in a cluster give bpmn or configMapRef"),
    )
    config_map_ref: ConfigMapRef | None = None
    job_types: list[str] = Field(
        default_factory=list,
        description="Further job types to serve: those that FEEL expressions of this process evaluate to.",
        json_schema_extra=AS_SET,
    )

    @model_validator(mode="after")
    @cel(Rule(one_of("bpmn", "file", "configMapRef"), "give exactly one of bpmn, file or configMapRef"))
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.bpmn, self.file, self.config_map_ref)) != 1:
            raise ValueError("give exactly one of bpmn, file or configMapRef")
        return self


class ProcessDefinition(Model):
    """A process to deploy and to serve. A bare `.bpmn` file beside manifests is one with default settings."""

    api_version: Literal["prokos.io/v1alpha1"] = API_VERSION
    kind: Literal["ProcessDefinition"] = "ProcessDefinition"
    metadata: Metadata
    spec: ProcessDefinitionSpec
    status: ProcessDefinitionStatus | None = None
