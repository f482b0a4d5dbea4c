"""What is said when a process or a route goes that instances may still depend on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from prokos.k8s.home import PdoState
from prokos.k8s.notices import notices
from prokos.k8s.system import ClusterSystem
from unit.builders import executor, process, registry, route

PAYER, OTHER = executor("payer"), executor("other", {"jobType": "pay"})


def told(before, now, **running):
    return list(notices(before, now, running))


def test_a_process_that_goes_says_what_still_runs():
    before = registry([PAYER], [process(version=3)])
    ((reason, message),) = told(before, registry([PAYER], [process(version=3, retired=True)]), orders=2)
    assert reason == "ProcessRetired"
    assert "orders" in message
    assert "version 3" in message
    assert "2 tasks in flight" in message


def test_it_is_said_once_and_not_of_what_stays():
    retired = registry([PAYER], [process(retired=True), process("parcels")])
    assert told(retired, retired) == []
    assert told(registry(), registry([PAYER], [process()], [route()])) == []


def test_a_renamed_process_id_says_so_of_the_old_one():
    before = registry([PAYER], [process("old")])
    ((_, message),) = told(before, registry([PAYER], [process("old", retired=True), process("new")]))
    assert "process old" in message
    assert "no task in flight" in message


def test_a_route_that_goes_says_where_tasks_go_now():
    before = registry([PAYER], [process()], [route("payer")])
    ((reason, message),) = told(before, registry([PAYER], [process()]), orders=1)
    assert reason == "RouteChanged"
    assert "orders-pay" in message
    assert "went to executor payer (human)" in message
    assert "an incident: no executor for Pay" in message
    assert "1 task in flight" in message


def test_a_route_that_changes_says_the_new_executor():
    executors = [PAYER, executor("second")]
    before = registry(executors, [process()], [route("payer")])
    ((_, message),) = told(before, registry(executors, [process()], [route("second")]))
    assert "now it is executor second" in message


def test_a_renamed_route_or_one_that_a_rule_overrules_changes_nothing():
    before = registry([PAYER], [process()], [route("payer")])
    assert told(before, registry([PAYER], [process()], [route("payer", name="renamed", reason="same")])) == []
    ruled = registry([PAYER, OTHER], [process()], [route("payer")])
    assert told(ruled, registry([PAYER, OTHER], [process()])) == []


def test_the_model_is_asked_again_for_a_decision_that_is_deleted():
    llm = {"mode": "llm", "model": "openai/gpt-4o-mini"}
    before = registry([PAYER], [process()], [route("payer", source="llm", confidence=0.9)], router=llm)
    ((_, message),) = told(before, registry([PAYER], [process()], router=llm))
    assert "the router's model" in message


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pdo", "said"), [(PdoState(), []), (PdoState(backlog={}, running={"orders": 1}), [{"orders": 1}])]
)
async def test_nothing_is_said_of_tasks_while_the_pdo_does_not_answer(pdo, said):
    """Said once, as if there were none, it would stay wrong."""
    found = []

    async def pdo_state():
        return pdo

    async def pods():
        return None

    system = SimpleNamespace(
        home=SimpleNamespace(pdo_state=pdo_state, pods=pods),
        registry=SimpleNamespace(load=registry),
        _resync_at=float("inf"),
        _tell_changes=found.append,
    )
    await ClusterSystem._repair(system, SimpleNamespace(executors={}))
    assert found == said
