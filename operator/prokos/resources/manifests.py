"""Loading manifests: files and directories become resources, and everything that is wrong with them a `Problem`.

Bad input never raises. Nothing is skipped silently except what belongs to others: Kubernetes kinds of other
groups, and hidden directories.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from prokos.resources.base import API_VERSION
from prokos.resources.bpmn_sources import bare_bpmn, find_bpmn
from prokos.resources.config_maps import ConfigMap
from prokos.resources.executor import TaskExecutor
from prokos.resources.files import BPMN_SUFFIX, UnreadableFileError, decode, find_files, read_bounded, real_path
from prokos.resources.loaded import BpmnSource, Loaded, Located, nearest_line
from prokos.resources.problems import Problem, bounded, did_you_mean, format_path, quote
from prokos.resources.process import ProcessDefinition
from prokos.resources.route import TaskRoute
from prokos.resources.script_sources import with_script
from prokos.resources.system import ProkOS
from prokos.resources.validation_errors import explain
from prokos.resources.yaml_documents import UnreadableYamlError, YamlDocument, read_documents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from prokos.resources import Resource

__all__ = ["BpmnSource", "Loaded", "Located", "load_manifests"]

GROUP = API_VERSION.partition("/")[0]
KINDS: dict[str, type[ProkOS | TaskExecutor | ProcessDefinition | TaskRoute]] = {
    "ProkOS": ProkOS,
    "TaskExecutor": TaskExecutor,
    "ProcessDefinition": ProcessDefinition,
    "TaskRoute": TaskRoute,
}
_ADVICE = f"write apiVersion: {API_VERSION} and kind: {', '.join(KINDS)}"


def load_manifests(paths: Sequence[Path]) -> Loaded:
    """Read manifests from files and directories.

    Directories are searched for `.yaml`, `.yml` and `.bpmn` files, also in those below, hidden ones left out. A
    `.bpmn` file that no ProcessDefinition names becomes one of its own, named after its process.

    Args:
        paths: Files and directories.

    Returns:
        All resources that could be read, and all problems. Of two resources of the same kind, namespace and name
        only the first is there.
    """
    return _Loading().load(paths)


class _Loading:
    """One run of `load_manifests`."""

    def __init__(self) -> None:
        self._found: list[Located[Resource]] = []
        self._problems: list[Problem] = []
        self._config_maps: dict[tuple[str, str], ConfigMap] = {}

    def load(self, paths: Sequence[Path]) -> Loaded:
        bare: list[Path] = []
        for file in find_files(paths):
            if isinstance(file, Problem):
                self._problems.append(file)
            elif file.suffix.lower() == BPMN_SUFFIX:
                bare.append(file)
            else:
                self._problems.extend(self._read_yaml(file))
        named = self._attach_bpmn()
        self._attach_scripts()
        for file in bare:
            if real_path(file) not in named:
                self._add(bare_bpmn(file))
        return Loaded(self._without_duplicates(), sorted(set(self._problems)))

    def _add(self, found: Located[Resource] | Problem) -> None:
        if isinstance(found, Problem):
            self._problems.append(found)
        else:
            self._found.append(found)

    def _read_yaml(self, file: Path) -> Iterator[Problem]:
        try:
            text = decode(read_bounded(file))
        except UnreadableFileError as error:
            yield Problem("error", str(file), "", str(error))
            return
        try:
            for index, document in enumerate(read_documents(text)):
                for part in _unpacked(document):
                    yield from bounded(self._read_document(file, index, part), str(file))
        except UnreadableYamlError as error:
            yield Problem("error", str(file), "", error.message, error.line)

    def _read_document(self, file: Path, index: int, document: YamlDocument) -> Iterator[Problem]:
        value = document.value
        if value is None and not document.flaws:
            return
        if not isinstance(value, dict):
            yield Problem("warning", str(file), "", "not a Kubernetes manifest, ignored", document.line)
            return
        api_version, kind = value.get("apiVersion"), value.get("kind")
        if api_version == "v1" and kind == "ConfigMap":
            yield from _flaws(file, document)
            yield from self._read_config_map(file, document)
        elif api_version == API_VERSION and isinstance(kind, str) and kind in KINDS:
            yield from _flaws(file, document)
            yield from self._read_resource(file, index, document, KINDS[kind])
        else:
            yield from _kind_problem(file, document)

    def _read_resource(
        self, file: Path, index: int, document: YamlDocument, model: type[Resource]
    ) -> Iterator[Problem]:
        try:
            # Strict, as the API server is: "4" is no number.
            resource = model.model_validate(document.value, by_alias=True, by_name=False, strict=True)
        except ValidationError as error:
            for path, message, hint in explain(model, error):
                line = nearest_line(document.positions, path, document.line)
                yield Problem("error", str(file), format_path(path), message, line, hint)
            return
        self._add(Located(resource, file, document.line, index, document.positions, document.blocks))

    def _read_config_map(self, file: Path, document: YamlDocument) -> Iterator[Problem]:
        metadata, data = document.value.get("metadata"), document.value.get("data") or {}
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(metadata, dict) or not isinstance(name, str) or not isinstance(data, dict):
            message = "a ConfigMap needs metadata.name, and data must be a mapping"
            yield Problem("error", str(file), "", message, document.line)
            return
        namespace = metadata.get("namespace") or "default"
        texts = {key: text for key, text in data.items() if isinstance(text, str)}
        new = ConfigMap(str(namespace), name, file, document.line, texts, document.blocks)
        old = self._config_maps.setdefault((new.namespace, new.name), new)
        if old is not new:
            message = f"ConfigMap {name!r} is there twice, first in {old.file}:{old.line}"
            yield Problem("error", str(file), "metadata.name", message, document.line)

    def _attach_bpmn(self) -> set[str]:
        """Give each ProcessDefinition its BPMN; the real paths of the files it is in."""
        named: set[str] = set()
        for index, at in enumerate(self._found):
            if not isinstance(at.resource, ProcessDefinition):
                continue
            bpmn = find_bpmn(at, at.resource, self._config_maps)
            if isinstance(bpmn, Problem):
                self._problems.append(bpmn)
            else:
                self._found[index] = replace(at, bpmn=bpmn)
                named.add(real_path(bpmn.file))
        return named

    def _attach_scripts(self) -> None:
        """Give each TaskExecutor the script that is in a ConfigMap."""
        for index, at in enumerate(self._found):
            if isinstance(at.resource, TaskExecutor):
                found = with_script(at, at.resource, self._config_maps)
                if isinstance(found, Problem):
                    self._problems.append(found)
                else:
                    self._found[index] = found

    def _without_duplicates(self) -> list[Located[Resource]]:
        kept: dict[tuple[str, str, str], Located[Resource]] = {}
        for at in self._found:
            metadata = at.resource.metadata
            first = kept.setdefault((at.resource.kind, metadata.namespace, metadata.name), at)
            if first is not at:
                message = f"{at.resource.kind} {metadata.name!r} is there twice, first in {first.place()}"
                self._problems.append(at.problem(("metadata", "name"), message, "rename one of them"))
        return list(kept.values())


def _unpacked(document: YamlDocument) -> list[YamlDocument]:
    """The items of a `List`, as `kubectl get -o yaml` writes them; any other document itself."""
    value = document.value
    if not (isinstance(value, dict) and value.get("apiVersion") == "v1" and value.get("kind") == "List"):
        return [document]
    items = value.get("items")
    if not isinstance(items, list):
        return []
    parts = [
        YamlDocument(item, document.positions.get(("items", index), document.line), {}, {}, [])
        for index, item in enumerate(items)
    ]
    for source in ("positions", "blocks"):
        for path, line in getattr(document, source).items():
            if path[:1] == ("items",) and len(path) > 2 and isinstance(path[1], int):
                getattr(parts[path[1]], source)[path[2:]] = line
    for path, line, message in document.flaws:
        if path[:1] == ("items",) and len(path) > 1 and isinstance(path[1], int) and path[1] < len(parts):
            parts[path[1]].flaws.append((path[2:], line, message))
    return parts


def _flaws(file: Path, document: YamlDocument) -> Iterator[Problem]:
    for path, line, message in document.flaws:
        yield Problem("error", str(file), format_path(path), message, line)


def _kind_problem(file: Path, document: YamlDocument) -> Iterator[Problem]:
    """What to say of a document that is none of ours: nothing, unless it seems to mean us."""
    value = document.value
    api_version, kind = value.get("apiVersion"), value.get("kind")
    line = document.positions.get(("apiVersion",), document.line)
    group = str(api_version).partition("/")[0]
    if group == GROUP:
        if api_version != API_VERSION:
            message = f"{quote(api_version)} is not a version of {GROUP} that this ProkOS knows"
            yield Problem("error", str(file), "apiVersion", message, line, f"write {API_VERSION}")
        if kind not in list(KINDS):
            message = f"{quote(kind)} is no kind of {GROUP}" if kind else "is required"
            known = f"the kinds are {', '.join(KINDS)}"
            line = document.positions.get(("kind",), document.line)
            hint = did_you_mean(str(kind), KINDS, otherwise=known) if kind else known
            yield Problem("error", str(file), "kind", message, line, hint)
    elif kind in list(KINDS) and (api_version is None or did_you_mean(group, [GROUP])):
        message = f"{quote(api_version)} is not {API_VERSION}" if api_version else "is required"
        yield Problem("error", str(file), "apiVersion", message, line, f"write {API_VERSION}")
    elif api_version is None and {"metadata", "spec"} <= value.keys():
        yield Problem("error", str(file), "apiVersion", "is required", document.line, _ADVICE)
    elif api_version is None:
        yield Problem("warning", str(file), "", "not a Kubernetes manifest, ignored", document.line)
