"""Which executors claim a task: the accept rules, read the same way by the router and by offline validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prokos.resources.executor import AcceptRule, TaskExecutor

EXECUTOR_HEADER = "prokos.io/executor"
"""Task header that names the executor; it goes before every rule."""


def matches(rule: AcceptRule, *, job_type: str | None, process: str, element: str, headers: Mapping[str, str]) -> bool:
    """Whether a rule accepts a task: every field the rule sets equals the task's.

    Args:
        rule: The rule.
        job_type: The task's job type; None when only the engine knows it (FEEL), which no `jobType` equals.
        process: BPMN process id.
        element: Element id.
        headers: The task's headers. Those the rule does not name do not matter.
    """
    return (
        (rule.job_type is None or rule.job_type == job_type)
        and (rule.process is None or rule.process == process)
        and (rule.element is None or rule.element == element)
        and all(headers.get(key) == value for key, value in rule.headers.items())
    )


def claimants(
    executors: Iterable[TaskExecutor],
    *,
    job_type: str | None,
    process: str,
    element: str,
    headers: Mapping[str, str],
) -> list[tuple[TaskExecutor, int]]:
    """The executors that claim a task, each with the index of its first rule that does, in the order given.

    More than one is a contradiction in the manifests, which validation refuses: no rule is "better" than another.
    """
    found: list[tuple[TaskExecutor, int]] = []
    for executor in executors:
        for index, rule in enumerate(executor.spec.accepts):
            if matches(rule, job_type=job_type, process=process, element=element, headers=headers):
                found.append((executor, index))
                break
    return found


def includes(general: AcceptRule, special: AcceptRule) -> bool:
    """Whether `general` accepts every task that `special` accepts, because it asks for nothing more."""
    return (
        general.job_type in (None, special.job_type)
        and general.process in (None, special.process)
        and general.element in (None, special.element)
        and general.headers.items() <= special.headers.items()
    )
