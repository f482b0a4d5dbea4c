"""Secrets by reference: a resource names them, and only the worker that uses one ever holds its value."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from prokos.resources.base import Model
from prokos.resources.cel import Rule, cel, one_of, refused_in_cluster

SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class SecretKeyRef(Model):
    """A key of a Kubernetes Secret in the resource's namespace."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    name: str = Field(description="Name of the Secret.")
    key: str = Field(description="Key in its data.")


class Secret(Model):
    """A secret the executor may use, by reference. Its value never enters variables, logs or errors."""

    name: SecretName = Field(description="What the executor's settings call it.")
    env: str | None = Field(
        None,
        description="Name of an environment variable that holds the value; embedded home only.",
        json_schema_extra=refused_in_cluster("env is for the embedded home; in a cluster give secretKeyRef"),
    )
    file: str | None = Field(None, description="Absolute path of a file that holds the value.")
    secret_key_ref: SecretKeyRef | None = None

    @model_validator(mode="after")
    @cel(Rule(one_of("env", "file", "secretKeyRef"), "a secret needs exactly one of env, file or secretKeyRef"))
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.env, self.file, self.secret_key_ref)) != 1:
            raise ValueError(f"secret {self.name!r} needs exactly one of env, file or secretKeyRef")
        return self
