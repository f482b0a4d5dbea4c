"""Desired state from what is in the API server: the same models and checks as for manifest files. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from prokos.kernel import Desired, DesiredProcess
from prokos.processes import BpmnSource, Loaded, Located, Problem, read_definitions, validate
from prokos.registry.cluster import user_part
from prokos.resources import ProcessDefinition, ProkOS, ProkOSSpec, TaskExecutor, TaskRoute
from prokos.resources.problems import format_path
from prokos.resources.validation_errors import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prokos.kube import Manifest
    from prokos.registry import Registry
    from prokos.resources import Resource

KINDS: Mapping[str, type[Resource]] = {
    "ProkOS": ProkOS,
    "TaskExecutor": TaskExecutor,
    "ProcessDefinition": ProcessDefinition,
    "TaskRoute": TaskRoute,
}

ObjectKey = tuple[str, str]
"""Kind and name of a resource of the system's namespace."""


@dataclass(frozen=True)
class Found:
    """The resources of one namespace as the API server has them.

    Attributes:
        manifests: All resources of our kinds that are not being deleted.
        config_maps: Data of the ConfigMaps that ProcessDefinitions name; None for one that is not there.
    """

    manifests: Mapping[ObjectKey, Manifest]
    config_maps: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """The desired state, and what is wrong with the resources it comes from.

    Attributes:
        desired: What is to be. A resource with an error is in it as it was registered before, so that an edit that is
            wrong stops nothing.
        problems: Errors of each resource.
        warnings: What is doubtful in each resource.
    """

    desired: Desired
    problems: Mapping[ObjectKey, list[str]]
    warnings: Mapping[ObjectKey, list[str]]


def config_maps_named(manifests: Mapping[ObjectKey, Manifest]) -> set[str]:
    """Names of the ConfigMaps that hold BPMN."""
    references = (
        (manifest.get("spec") or {}).get("configMapRef")
        for (kind, _), manifest in manifests.items()
        if kind == "ProcessDefinition"
    )
    return {reference["name"] for reference in references if isinstance(reference, dict) and "name" in reference}


def read_wanted(found: Found, registry: Registry) -> Wanted:
    """Read and check the resources.

    Args:
        found: The resources.
        registry: What is registered, which stays where a resource is wrong.
    """
    resources: list[Located[Any]] = []
    problems: list[Problem] = []
    for key, manifest in sorted(found.manifests.items()):
        located, wrong = _read(key, manifest, found)
        problems += wrong
        if located is not None:
            resources.append(located)
    loaded = Loaded(resources, problems)
    by_severity: dict[str, dict[ObjectKey, list[str]]] = {"error": defaultdict(list), "warning": defaultdict(list)}
    for problem in validate(loaded):
        kind, _, name = problem.file.partition("/")
        by_severity[problem.severity][kind, name].append(_text(problem))
    errors = by_severity["error"]
    processes = {
        definition.at.resource.metadata.name: DesiredProcess(
            definition.at.resource.metadata.name, definition.bpmn, tuple(definition.at.resource.spec.job_types)
        )
        for definition in read_definitions(loaded)
    }
    executors = {one.metadata.name: one for one in loaded.only(TaskExecutor)}
    kept = {
        name: registry.executors[name] for kind, name in errors if kind == "TaskExecutor" and name in registry.executors
    }
    desired = Desired(
        system=next((system.spec for system in loaded.only(ProkOS)), ProkOSSpec()),
        executors={name: one for name, one in executors.items() if ("TaskExecutor", name) not in errors} | kept,
        processes={name: one for name, one in processes.items() if ("ProcessDefinition", name) not in errors},
        held_processes=frozenset(name for kind, name in errors if kind == "ProcessDefinition"),
    )
    return Wanted(desired, errors, by_severity["warning"])


def _read(key: ObjectKey, manifest: Manifest, found: Found) -> tuple[Located[Any] | None, list[Problem]]:
    kind, name = key
    file = Path(kind) / name
    model = KINDS[kind]
    try:
        resource = model.model_validate(user_part(manifest), by_alias=True, by_name=False)
    except ValidationError as error:
        return None, [
            Problem("error", str(file), format_path(path), message, None, hint)
            for path, message, hint in explain(model, error)
        ]
    located: Located[Any] = Located(resource, file)
    if isinstance(resource, ProcessDefinition):
        source = _bpmn(resource, located, found)
        if isinstance(source, Problem):
            return None, [source]
        located = replace(located, bpmn=source)
    return located, list(_embedded_only(located))


def _bpmn(resource: ProcessDefinition, at: Located[Any], found: Found) -> BpmnSource | Problem:
    spec = resource.spec
    if spec.bpmn is not None:
        return BpmnSource(spec.bpmn.encode(), at.file)
    if spec.config_map_ref is not None:
        reference = spec.config_map_ref
        data = found.config_maps.get(reference.name)
        path = ("spec", "configMapRef")
        if data is None:
            return at.problem(path, f"there is no ConfigMap {reference.name!r} in the namespace", "create it")
        if reference.key not in data:
            return at.problem(path, f"ConfigMap {reference.name!r} has no key {reference.key!r}", "add it")
        return BpmnSource(data[reference.key].encode(), at.file)
    return at.problem(("spec", "file"), "a cluster has no such files", "use spec.bpmn or spec.configMapRef")


def _embedded_only(at: Located[Any]) -> Iterator[Problem]:
    """What only a laptop has."""
    resource = at.resource
    if isinstance(resource, ProkOS) and resource.spec.engine.embedded is not None:
        yield at.problem(("spec", "engine", "embedded"), "a cluster has no embedded engine", "use helm or external")
    if isinstance(resource, TaskExecutor):
        for index, secret in enumerate(resource.spec.secrets):
            if secret.env is not None:
                yield at.problem(
                    ("spec", "secrets", index, "env"),
                    "a cluster passes no environment on",
                    "put the value into a Secret and name it in secretKeyRef",
                )
        if resource.spec.python is not None and resource.spec.python.path is not None:
            yield at.problem(
                ("spec", "python", "path"), "a cluster has no such directory", "put the module into spec.pod.image"
            )


def _text(problem: Problem) -> str:
    """A problem without its file, which is the resource that shows it."""
    text = f"{problem.field}: {problem.message}" if problem.field else problem.message
    return f"{text} ({problem.hint})" if problem.hint else text
