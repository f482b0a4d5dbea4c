"""L1, the state engine: the only package that talks to Camunda 8."""

from prokos.engine.client import (
    DeployedProcess,
    EngineClient,
    ProcessInstance,
    ProcessResult,
    Topology,
    to_json,
)
from prokos.engine.connection import Connection
from prokos.engine.errors import (
    AccessDeniedError,
    BackpressureError,
    EngineError,
    EngineUnavailableError,
    EvaluationError,
    NotFoundError,
    PayloadTooLargeError,
    RejectedError,
    WrongStateError,
)
from prokos.engine.job import Job
from prokos.engine.retry import RetryPolicy
from prokos.engine.source import JobSource, Slots
from prokos.engine.steps import StepRefusedError, StepRunner

__all__ = [
    "AccessDeniedError",
    "BackpressureError",
    "Connection",
    "DeployedProcess",
    "EngineClient",
    "EngineError",
    "EngineUnavailableError",
    "EvaluationError",
    "Job",
    "JobSource",
    "NotFoundError",
    "PayloadTooLargeError",
    "ProcessInstance",
    "ProcessResult",
    "RejectedError",
    "RetryPolicy",
    "Slots",
    "StepRefusedError",
    "StepRunner",
    "Topology",
    "WrongStateError",
    "to_json",
]
