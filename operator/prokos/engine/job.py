"""A job as the engine hands it out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Job:
    """An activated job. Keys are the engine's 64-bit integers."""

    key: int
    type: str
    process_id: str
    process_version: int
    process_definition_key: int
    process_instance_key: int
    element_id: str
    element_instance_key: int
    headers: dict[str, str]
    retries: int
    deadline: int
    """When the engine takes the job back, in milliseconds since the epoch on the engine's clock."""
    tenant_id: str
    raw_variables: str
    """Variables as JSON text, as it came: what is only passed on is not parsed."""
    leased_at: float = field(default_factory=time.monotonic, compare=False)
    """A time on our monotonic clock, in seconds, at which the lease had not begun or just began."""
    received_at: float = field(default_factory=time.monotonic, compare=False)
    """When it was received, on the same clock."""

    @classmethod
    def from_message(cls, message: Any, leased_at: float | None = None) -> Self:
        """Read the gateway's `ActivatedJob`.

        Args:
            message: The message.
            leased_at: See the field; None is now, which is right for a job that was just pushed.
        """
        return cls(
            key=message.key,
            type=message.type,
            process_id=message.bpmnProcessId,
            process_version=message.processDefinitionVersion,
            process_definition_key=message.processDefinitionKey,
            process_instance_key=message.processInstanceKey,
            element_id=message.elementId,
            element_instance_key=message.elementInstanceKey,
            headers=json.loads(message.customHeaders) if message.customHeaders else {},
            retries=message.retries,
            deadline=message.deadline,
            tenant_id=message.tenantId,
            raw_variables=message.variables or "{}",
            leased_at=time.monotonic() if leased_at is None else leased_at,
        )

    @property
    def variables(self) -> dict[str, Any]:
        """Variables, parsed anew at each call."""
        parsed: dict[str, Any] = json.loads(self.raw_variables)
        return parsed
