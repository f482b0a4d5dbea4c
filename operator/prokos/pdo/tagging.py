"""Tagging: a job becomes a task of a process. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prokos.registry.model import DEFAULT_RETRIES
from prokos.router import Element
from prokos.tde import TaggedTask

if TYPE_CHECKING:
    from prokos.engine import Job
    from prokos.registry import Registry


def tag(job: Job, registry: Registry, lease: float, *, verify: bool = False) -> TaggedTask:
    """Say which process, instance and element a job belongs to.

    Args:
        job: An activated job.
        registry: What is known of the process; a process that is not registered is tagged by its ids alone.
        lease: Seconds for which the job was activated.
        verify: Whether a TDE of this task may have been started before.
    """
    known = registry.tasks.get((job.process_id, job.process_version, job.element_id))
    return TaggedTask(
        process_id=job.process_id,
        process_version=job.process_version,
        process_instance_key=job.process_instance_key,
        element_id=job.element_id,
        element_name=known.element_name if known else "",
        element_instance_key=job.element_instance_key,
        job_key=job.key,
        job_type=job.type,
        retries=job.retries,
        max_retries=max(known.retries if known else DEFAULT_RETRIES, job.retries),
        deadline=job.deadline,
        lease=int(lease * 1000),
        tenant_id=job.tenant_id,
        verify=verify,
    )


def element_of(job: Job, registry: Registry) -> Element:
    """The element whose route the job takes."""
    known = registry.tasks.get((job.process_id, job.process_version, job.element_id))
    return Element(
        process=job.process_id,
        version=job.process_version,
        element=job.element_id,
        job_type=job.type,
        name=known.element_name if known else "",
        documentation=known.documentation if known else "",
        headers=tuple(sorted(job.headers.items())),
    )
