"""`prokos apply` and `prokos delete`: what was applied is kept in the state directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from prokos.cli.output import FAILED, INVALID, print_error, print_note, print_problems
from prokos.cli.running import runtime_or_exit
from prokos.dev.state import StateDirectory
from prokos.resources import ProcessDefinition, ProcessDefinitionSpec, TaskExecutor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prokos.resources import Resource
    from prokos.resources.loaded import Located


def apply_manifests(paths: Sequence[Path], state: Path | None) -> int:
    """Check the manifests together with what runs, then add them."""
    from prokos.processes import check_manifests, load_manifests

    if missing := [path for path in paths if not path.exists()]:
        print_error(f"{missing[0]} does not exist")
        return INVALID
    runtime = runtime_or_exit(state)
    directory = StateDirectory.find(state)
    loaded = load_manifests(paths)
    replaced = {_applied_file(directory, located.resource) for located in loaded.resources}
    kept = [path for path in sorted(directory.manifests.glob("*.yaml")) if path not in replaced]
    checked = check_manifests([*map(Path, runtime.manifests), *kept, *paths])
    print_problems(checked.problems)
    if checked.errors:
        return INVALID
    if not loaded.resources:
        print_error("there is no ProkOS resource in these manifests")
        return INVALID
    for located in loaded.resources:
        resource = located.resource
        target = _applied_file(directory, resource)
        existed = target.exists()
        temporary = target.with_suffix(".new")
        try:
            temporary.write_text(_to_yaml(located))
        except UnicodeDecodeError:
            print_error(f"{located.file}: the BPMN is not encoded in UTF-8, which is all that apply can take")
            return INVALID
        temporary.replace(target)
        print_note(f"{resource.kind} {resource.metadata.name} {'configured' if existed else 'created'}")
    return 0


def delete_manifest(kind: str, name: str, state: Path | None) -> int:
    """Take an applied resource back."""
    directory = StateDirectory.find(state)
    matching = [path for path in directory.manifests.glob("*.yaml") if path.stem.lower() == f"{kind}.{name}".lower()]
    if not matching:
        applied = ", ".join(sorted(path.stem.replace(".", " ") for path in directory.manifests.glob("*.yaml")))
        print_error(
            f"{kind} {name} was not added by prokos apply (there are: {applied or 'none'}); "
            "what stands in a manifest directory is removed there"
        )
        return FAILED
    matching[0].unlink()
    print_note(f"{kind} {name} deleted")
    return 0


def _applied_file(directory: StateDirectory, resource: Resource) -> Path:
    return directory.manifests / f"{resource.kind}.{resource.metadata.name}.yaml"


def _to_yaml(located: Located[Resource]) -> str:
    from prokos.dev.home import located_executor

    resource = located.resource
    if isinstance(resource, ProcessDefinition) and located.bpmn is not None:
        # The file it names lies beside its manifest, not beside our copy.
        spec = ProcessDefinitionSpec(bpmn=located.bpmn.xml.decode(), job_types=resource.spec.job_types)
        resource = resource.model_copy(update={"spec": spec})
    elif isinstance(resource, TaskExecutor):
        resource = located_executor(cast("Located[TaskExecutor]", located))
    document = resource.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
