"""TaskRoute: one routing decision, kept as a document that can be read, edited and pinned in Git."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prokos.resources.base import API_VERSION, Metadata, Model, Name
from prokos.resources.cel import immutable
from prokos.resources.status import TaskRouteStatus

RouteSource = Literal["rule", "llm", "human", "fallback"]


class TaskRouteSpec(Model):
    """Which executor serves an element of a process."""

    process: str = Field(
        description="BPMN process id.",
        json_schema_extra=immutable("process cannot change; delete this TaskRoute and make another"),
    )
    version: int | None = Field(None, ge=1, description="Process version; without it the route holds for every one.")
    element: str = Field(
        description="Element id.",
        json_schema_extra=immutable("element cannot change; delete this TaskRoute and make another"),
    )
    executor: Name = Field(description="Name of the TaskExecutor.")
    source: RouteSource = Field("human", description="Who decided; `human` goes before the others.")
    confidence: float | None = Field(None, ge=0, le=1, description="Of the model that decided.")
    reason: str = Field("", description="Why this executor: shown wherever the route is shown.")


class TaskRoute(Model):
    """One routing decision: which executor serves an element of a process."""

    api_version: Literal["prokos.io/v1alpha1"] = API_VERSION
    kind: Literal["TaskRoute"] = "TaskRoute"
    metadata: Metadata
    spec: TaskRouteSpec
    status: TaskRouteStatus | None = None
