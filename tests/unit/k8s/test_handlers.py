"""What the operator does with a ProkOS that goes, or that came second."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
import pytest

from prokos.k8s import handlers
from prokos.k8s.handlers import FINALIZER, Operator, register
from prokos.k8s.helm_errors import HelmError
from prokos.k8s.home import Images
from unit.k8s.manifests import SYSTEM, resource

pytestmark = pytest.mark.anyio

GOING = resource("ProkOS", "demo", {"engine": {"helm": {"chart": "camunda-engine"}}}, creationTimestamp="2026-01-01")


async def refused(*_: Any) -> None:
    raise HelmError("Forbidden", "the operator may not delete StatefulSets")


async def hangs(*_: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(("removal", "words"), [(refused, "may not delete"), (hangs, "took too long")])
async def test_a_system_is_let_go_although_its_release_cannot_be_removed(monkeypatch, removal, words):
    events = []
    monkeypatch.setattr(handlers, "REMOVAL", 0.05)
    monkeypatch.setattr(handlers, "remove_release", removal)
    monkeypatch.setattr(handlers.kopf, "event", lambda _, **said: events.append(said))
    operator = Operator(None, Images("system", "worker"))  # type: ignore[arg-type]
    await operator._remove(SYSTEM, GOING)
    (event,) = events
    assert (event["type"], event["reason"]) == ("Warning", "RemovalFailed")
    assert "stays" in event["message"]
    assert words in event["message"]


async def test_an_engine_of_somebody_else_is_not_touched(monkeypatch):
    monkeypatch.setattr(handlers, "remove_release", refused)
    external = {**GOING, "spec": {"engine": {"external": {"address": "zeebe:26500"}}}}
    await Operator(None, Images("system", "worker"))._remove(SYSTEM, external)  # type: ignore[arg-type]


async def test_a_system_goes_as_its_resource_says_in_the_end(monkeypatch):
    """The policy of the spec that the daemon began with would delete volumes that are to stay."""
    policies = []

    async def remove(_client: Any, _system: Any, settings: Any, *_: Any) -> None:
        policies.append(settings.deletion_policy)

    async def keep(*_: Any) -> None:
        body._replace_with({**GOING, "spec": {"engine": {"helm": {"deletionPolicy": "Retain"}}}})

    monkeypatch.setattr(handlers, "remove_release", remove)
    body = kopf.Body({**GOING, "spec": {"engine": {"helm": {"deletionPolicy": "Delete"}}}})
    operator = Operator(None, Images("system", "worker"))  # type: ignore[arg-type]
    monkeypatch.setattr(operator, "_keep", keep)
    registry = kopf.OperatorRegistry()
    register(registry, operator)
    (daemon,) = registry._spawning.get_all_handlers()
    await daemon.fn(body=body, stopped=Stopped(kopf.DaemonStoppingReason.RESOURCE_DELETED))
    assert policies == ["Retain"]


class Stopped:
    """kopf's flag of a daemon, as it is while and after it is set."""

    def __init__(self, reason: Any) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("lived", "finalizers", "removed"),
    [(False, [FINALIZER], True), (True, [FINALIZER], False), (False, ["foregroundDeletion"], False)],
    ids=["deleted while no operator ran", "its daemon removes it", "was let go"],
)
async def test_what_was_deleted_while_no_operator_ran_is_removed(monkeypatch, lived, finalizers, removed):
    systems = []

    async def remove(_client: Any, system: Any, *_: Any) -> None:
        systems.append(system)

    monkeypatch.setattr(handlers, "remove_release", remove)
    operator = Operator(None, Images("system", "worker"))  # type: ignore[arg-type]
    going = {**GOING, "metadata": {**GOING["metadata"], "deletionTimestamp": "2026-01-02", "finalizers": finalizers}}
    if lived:
        operator.seen(None, GOING)
    operator.seen("MODIFIED" if lived else None, going)
    await operator.bury(going)
    assert systems == [SYSTEM] * removed
