"""The custom resources of ProkOS as pydantic models, the same in a cluster and on a laptop."""

from prokos.resources.base import API_VERSION, Metadata, format_duration
from prokos.resources.executor import AcceptRule, TaskExecutor, TaskExecutorSpec
from prokos.resources.process import ProcessDefinition, ProcessDefinitionSpec
from prokos.resources.route import TaskRoute, TaskRouteSpec
from prokos.resources.system import ProkOS, ProkOSSpec

Resource = ProkOS | TaskExecutor | ProcessDefinition | TaskRoute

__all__ = [
    "API_VERSION",
    "AcceptRule",
    "Metadata",
    "ProcessDefinition",
    "ProcessDefinitionSpec",
    "ProkOS",
    "ProkOSSpec",
    "Resource",
    "TaskExecutor",
    "TaskExecutorSpec",
    "TaskRoute",
    "TaskRouteSpec",
    "format_duration",
]
