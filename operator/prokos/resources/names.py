"""Names that ProkOS gives to things in the engine, composed in one place."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prokos.resources.executor import FeelMapping

RESERVED_JOB_TYPE_PREFIX = "prokos."
"""Job types that start with this are the kernel's and the TDEs'; a user's process must not use them."""

RESERVED_PROCESS_PREFIXES = ("prokos-", "tde-")
"""BPMN process ids that start with one of these are the kernel's and the TDEs'."""

USER_TASK_JOB_TYPE = "io.camunda.zeebe:userTask"
"""Job type the engine gives to a job-based user task, whatever its `zeebe:taskDefinition` says."""

FOREIGN_JOB_TYPE_PREFIXES = ("io.camunda:", "io.camunda.")
"""Job types that Camunda's own workers serve: connectors, agents, user tasks."""

CALLBACK_MESSAGE = "prokos.callback"
"""Name of the message that brings a long call's result; its correlation key is the token of the call."""

TDE_ATTEMPTS = 3
"""Attempts that a TDE's own job has; they count where a process calls the TDE itself."""

TDE_RESULT_ELEMENT = "Result"
"""Id of the TDE's task that reports what a callback brought."""


def tde_process_id(name: str) -> str:
    """BPMN process id of the TDE of the executor `name`."""
    return f"tde-{name}"


def tde_message(name: str) -> str:
    """Name of the message that starts the TDE of the executor `name`."""
    return f"prokos.tde.{name}"


def tde_job_type(name: str) -> str:
    """Type of the TDE's Execute job."""
    return f"prokos.tde.{name}"


def mapping_decision(name: str, side: str, mappings: Sequence[FeelMapping]) -> str:
    """Id of the decision that evaluates the `inputs` or `outputs` (`side`) of an executor.

    It names these very mappings: while an executor changes, workers of both revisions evaluate their own.
    """
    digest = hashlib.sha256("\0".join(mapping.source for mapping in mappings).encode()).hexdigest()
    return f"tde-{name}-{side}-{digest[:12]}"


def is_reserved_job_type(job_type: str) -> bool:
    """Whether a job type is ProkOS's own."""
    return job_type.startswith(RESERVED_JOB_TYPE_PREFIX)


def is_reserved_process_id(process_id: str) -> bool:
    """Whether a BPMN process id is ProkOS's own."""
    return process_id.startswith(RESERVED_PROCESS_PREFIXES)


def is_foreign_job_type(job_type: str) -> bool:
    """Whether a job type belongs to Camunda's own workers, so ProkOS leaves it alone unless told otherwise."""
    return job_type.startswith(FOREIGN_JOB_TYPE_PREFIXES)
