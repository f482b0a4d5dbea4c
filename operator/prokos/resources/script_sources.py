"""Where the script of a TaskExecutor comes from when a ConfigMap of the manifests holds it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prokos.resources.config_maps import find_config_map
from prokos.resources.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources import Resource
    from prokos.resources.config_maps import ConfigMap
    from prokos.resources.executor import TaskExecutor
    from prokos.resources.loaded import Located


def with_script(
    at: Located[Resource], executor: TaskExecutor, config_maps: Mapping[tuple[str, str], ConfigMap]
) -> Located[Resource] | Problem:
    """Put the script that `configMapRef` names in place of the reference, so that a changed script is a change.

    Args:
        at: Where the resource is written.
        executor: The resource itself.
        config_maps: The ConfigMaps of the manifests by namespace and name.

    Returns:
        The executor with the script's text as `source`, or as it is if it refers to none; or why there is none.
    """
    script = executor.spec.script
    if script is None or script.config_map_ref is None:
        return at
    reference = script.config_map_ref
    found = find_config_map(at, ("spec", "script", "configMapRef"), reference, config_maps)
    if isinstance(found, Problem):
        return found
    inline = script.model_copy(update={"source": found.data[reference.key], "config_map_ref": None})
    spec = executor.spec.model_copy(update={"script": inline})
    return replace(at, resource=executor.model_copy(update={"spec": spec}))
