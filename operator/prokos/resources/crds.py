"""The CustomResourceDefinitions of the four kinds, made from their models. Pure; `make crds` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prokos.resources.base import API_VERSION, Metadata
from prokos.resources.cel import VALIDATIONS
from prokos.resources.executor import TaskExecutor
from prokos.resources.process import ProcessDefinition
from prokos.resources.route import TaskRoute
from prokos.resources.structural import structural_schema
from prokos.resources.system import ProkOS

if TYPE_CHECKING:
    from prokos.resources import Resource

GROUP, _, VERSION = API_VERSION.partition("/")

CATEGORY = "prokos-all"
"""What `kubectl get` takes for all four kinds. Not `prokos`, which kubectl would no longer take for the kind."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; those with `wide` are shown with `-o wide` alone."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What a CRD says beside the schema.

    Attributes:
        model: The model of the kind.
        plural: Name in the API's addresses.
        short_names: Names for kubectl that no well-known CRD has.
        columns: What `kubectl get` shows beside the name.
        selectable: Paths that `kubectl get --field-selector` takes.
        scalable: Whether there is a subresource `scale`.
    """

    model: type[Resource]
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    scalable: bool = False


def _condition(name: str, field: str, *, wide: bool = False) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="Ready")].{field}', wide=wide)


READY = _condition("Ready", "status")
REASON = _condition("Reason", "reason")
MESSAGE = _condition("Message", "message", wide=True)
AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS = (
    Kind(
        ProkOS,
        "prokoses",
        ("pk",),
        (
            READY,
            REASON,
            Column("Engine", ".status.engine.version"),
            Column("Executors", ".status.executors"),
            Column("Processes", ".status.processes", "integer"),
            Column("Shards", ".status.shards"),
            AGE,
            Column("Address", ".status.engine.address", wide=True),
            Column("Release", ".status.engine.release", wide=True),
            Column("Chart", ".status.engine.chart", wide=True),
            MESSAGE,
        ),
    ),
    Kind(
        TaskExecutor,
        "taskexecutors",
        ("tex",),
        (
            Column("Type", ".spec.type"),
            Column("Workers", ".status.workers"),
            Column("Backlog", ".status.backlog", "integer"),
            READY,
            REASON,
            AGE,
            Column("Concurrency", ".spec.concurrency", "integer", wide=True),
            Column("Min", ".spec.scaling.min", "integer", wide=True),
            Column("Max", ".spec.scaling.max", "integer", wide=True),
            MESSAGE,
        ),
        selectable=(".spec.type",),
        scalable=True,
    ),
    Kind(
        ProcessDefinition,
        "processdefinitions",
        ("pdef",),
        (
            Column("Process", ".status.processId"),
            Column("Version", ".status.version", "integer"),
            Column("Routed", ".status.routed"),
            READY,
            REASON,
            AGE,
            Column("Key", ".status.processes[0].key", wide=True),
            MESSAGE,
        ),
    ),
    Kind(
        TaskRoute,
        "taskroutes",
        ("troute",),
        (
            Column("Process", ".spec.process"),
            Column("Element", ".spec.element"),
            Column("Executor", ".spec.executor"),
            Column("Source", ".spec.source"),
            READY,
            AGE,
            Column("Version", ".spec.version", "integer", wide=True),
            Column("Confidence", ".spec.confidence", "number", wide=True),
            Column("Why", ".spec.reason", wide=True),
            MESSAGE,
        ),
        selectable=(".spec.process", ".spec.element", ".spec.executor", ".spec.source"),
    ),
)


def build_crd(kind: Kind) -> dict[str, Any]:
    """One CRD, without labels."""
    name = kind.model.__name__
    subresources: dict[str, Any] = {"status": {}}
    if kind.scalable:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "subresources": subresources,
        "schema": {"openAPIV3Schema": build_schema(kind.model)},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": list(kind.short_names),
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    made = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**made, "priority": 1} if column.wide else made


def build_schema(model: type[Resource]) -> dict[str, Any]:
    """The schema of a kind. Of metadata a CRD may bound the name and nothing else."""
    schema = structural_schema(model)
    properties = schema["properties"]
    name = structural_schema(Metadata)["properties"]["name"]
    made: dict[str, Any] = {
        "description": schema["description"],
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": properties["spec"],
            "status": properties["status"],
        },
    }
    if "spec" in schema["required"]:
        made["required"] = ["spec"]
    return {**made, VALIDATIONS: schema[VALIDATIONS]} if VALIDATIONS in schema else made
