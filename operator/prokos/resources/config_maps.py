"""ConfigMaps of the manifests, and what resources refer to in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from prokos.resources.base import Model
from prokos.resources.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prokos.resources import Resource
    from prokos.resources.loaded import Located
    from prokos.resources.problems import FieldPath, Problem


class ConfigMapRef(Model):
    """A key of a ConfigMap in the resource's namespace."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    name: str = Field(description="Name of the ConfigMap.")
    key: str = Field(description="Key in its data.")


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap of the manifests, which BPMN or scripts may be in."""

    namespace: str
    name: str
    file: Path
    line: int
    data: Mapping[str, str] = field(repr=False)
    blocks: Mapping[FieldPath, int] = field(repr=False)


def find_config_map(
    at: Located[Resource], path: FieldPath, reference: ConfigMapRef, config_maps: Mapping[tuple[str, str], ConfigMap]
) -> ConfigMap | Problem:
    """Find the ConfigMap that a resource refers to, and see that it has the key.

    Args:
        at: The resource.
        path: The field that is the reference.
        reference: The reference.
        config_maps: The ConfigMaps of the manifests.

    Returns:
        The ConfigMap, or why there is none.
    """
    namespace = at.resource.metadata.namespace
    found = config_maps.get((namespace, reference.name))
    if found is None:
        known = [name for (space, name) in config_maps if space == namespace]
        return at.problem(
            (*path, "name"),
            f"no ConfigMap {reference.name!r} of namespace {namespace!r} is in the manifests",
            did_you_mean(reference.name, known, otherwise="add it to the files given"),
        )
    if reference.key not in found.data:
        return at.problem(
            (*path, "key"),
            f"ConfigMap {reference.name!r} has no key {reference.key!r} in data",
            did_you_mean(reference.key, found.data),
        )
    return found
