"""Settings of executors of type `python`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from prokos.resources.base import Model
from prokos.resources.cel import refused_in_cluster


class PythonSettings(Model):
    """A class of the user's, a subclass of `prokos.tde.Executor`."""

    executor: str = Field(description="`package.module:Class`", pattern=r"^[\w.]+:\w+$")
    settings: dict[str, Any] = Field(default_factory=dict, description="Given to the class.")
    path: str | None = Field(
        None,
        description="Directory to import from, relative to the manifest; embedded home only.",
        json_schema_extra=refused_in_cluster(
            "path is for the embedded home; in a cluster install the package in the image, pod.image"
        ),
    )
