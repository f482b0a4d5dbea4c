"""L3, the Task Definition Executors: each task is executed by a process of its own, Input -> Execute -> Output."""

from prokos.tde.contract import (
    BusinessError,
    Context,
    Environment,
    Executor,
    FatalFailure,
    RetryableFailure,
    Secrets,
    TaggedTask,
)

__all__ = [
    "BusinessError",
    "Context",
    "Environment",
    "Executor",
    "FatalFailure",
    "RetryableFailure",
    "Secrets",
    "TaggedTask",
]
