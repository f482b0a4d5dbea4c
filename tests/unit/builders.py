"""Valid values for tests; a test names only what matters to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prokos.engine import Job
from prokos.registry import RegisteredProcess, RegisteredTask, RegisteredVersion, Registry
from prokos.resources import ProkOSSpec, TaskExecutor, TaskRoute
from prokos.router import Element
from prokos.tde import TaggedTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEASE_MS = 30_000
LEASED_AT = 1_700_000_000_000
"""When tasks of these builders were leased, in milliseconds on the engine's clock."""


def job(
    key: int = 1,
    job_type: str = "pay",
    variables: Mapping[str, Any] | str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    retries: int = 3,
    deadline: int = LEASED_AT + LEASE_MS,
    process: str = "orders",
    version: int = 1,
    element: str = "Pay",
    instance: int = 100,
) -> Job:
    """An activated job of the element `Pay` of the process `orders`."""
    raw = variables if isinstance(variables, str) else json.dumps(dict(variables or {}))
    return Job(
        key=key,
        type=job_type,
        process_id=process,
        process_version=version,
        process_definition_key=10,
        process_instance_key=instance,
        element_id=element,
        element_instance_key=instance + 1,
        headers=dict(headers or {}),
        retries=retries,
        deadline=deadline,
        tenant_id="<default>",
        raw_variables=raw,
    )


def task(key: int = 1, **changes: Any) -> TaggedTask:
    """The tag of `job(key)`."""
    values: dict[str, Any] = {
        "process_id": "orders",
        "process_version": 1,
        "process_instance_key": 100,
        "element_id": "Pay",
        "element_name": "Pay the order",
        "element_instance_key": 101,
        "job_key": key,
        "job_type": "pay",
        "retries": 3,
        "max_retries": 3,
        "deadline": LEASED_AT + LEASE_MS,
        "lease": LEASE_MS,
    }
    return TaggedTask(**{**values, **changes})


def executor(name: str = "payer", *accepts: Mapping[str, Any], **spec: Any) -> TaskExecutor:
    """An executor; `spec` holds fields as in YAML."""
    base = {"type": "script", "script": {"command": ["true"]}, "accepts": list(accepts)}
    return TaskExecutor.model_validate({"metadata": {"name": name}, "spec": {**base, **spec}})


def element(process: str = "orders", version: int = 1, element: str = "Pay", **changes: Any) -> Element:
    """The element that `job()` belongs to."""
    return Element(**{"process": process, "version": version, "element": element, "job_type": "pay", **changes})


def process(process_id: str = "orders", *tasks: RegisteredTask, version: int = 1, **changes: Any) -> RegisteredProcess:
    """A registered process with one version; by default with the task that `job()` belongs to."""
    known = tasks or (RegisteredTask(element_id="Pay", element_name="Pay the order", job_type="pay"),)
    deployed = RegisteredVersion(version=version, key=10, sha256="0" * 64, tasks=list(known))
    return RegisteredProcess(
        **{"process_id": process_id, "resource": "orders", "versions": {version: deployed}, **changes}
    )


def route(executor: str = "payer", *, name: str = "orders-pay", **changes: Any) -> TaskRoute:
    """A routing decision for the element that `job()` belongs to."""
    spec = {"process": "orders", "element": "Pay", "executor": executor, **changes}
    return TaskRoute.model_validate({"metadata": {"name": name}, "spec": spec})


def registry(
    executors: Iterable[TaskExecutor] = (),
    processes: Iterable[RegisteredProcess] = (),
    routes: Iterable[TaskRoute] = (),
    **system: Any,
) -> Registry:
    """A registry; `system` holds `pdo` and `router` as in YAML."""
    return Registry(
        executors={one.metadata.name: one for one in executors},
        processes={one.process_id: one for one in processes},
        routes=tuple(routes),
        system=ProkOSSpec.model_validate(system),
    )
