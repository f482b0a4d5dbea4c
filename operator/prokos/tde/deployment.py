"""What an executor's workers need, as plain values: the embedded home makes processes of it, a cluster pods. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources import TaskExecutor

NOT_ITS_OWN = {"accepts", "description", "scaling", "replicas", "pod", "network"}
"""Fields of the spec that a worker does not read: a change of them replaces no worker by itself."""


@dataclass(frozen=True, slots=True)
class WorkerDeployment:
    """Desired state of one executor's workers."""

    name: str
    document: str
    """The TaskExecutor as JSON, which the worker reads from a file."""
    environment: Mapping[str, str]
    secret_environment: tuple[str, ...]
    """Names of environment variables whose values the home passes on, because secrets come from them."""

    @property
    def revision(self) -> str:
        """Changes when workers must be replaced."""
        content = json.dumps([self.document, sorted(self.environment.items()), self.secret_environment])
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def build_worker_deployment(
    executor: TaskExecutor, engine_environment: Mapping[str, str], hints_address: str | None
) -> WorkerDeployment:
    """Build the desired state of an executor's workers.

    Args:
        executor: The resource.
        engine_environment: Variables from which a worker makes its engine connection.
        hints_address: Where the PDO takes hints, host:port.
    """
    environment = {**engine_environment, "PROKOS_LOG_FORMAT": "json"}
    if hints_address:
        environment["PROKOS_HINTS_ADDRESS"] = hints_address
    document = executor.model_dump_json(by_alias=True, exclude_none=True, exclude={"status": True, "spec": NOT_ITS_OWN})
    return WorkerDeployment(
        name=executor.metadata.name,
        document=document,
        environment=environment,
        secret_environment=tuple(sorted(secret.env for secret in executor.spec.secrets if secret.env)),
    )
