from __future__ import annotations

from typing import Any

import pytest

from bpmn_samples import process as bpmn
from bpmn_samples import service_task
from prokos.engine import DeployedProcess
from prokos.kernel import Desired, DesiredProcess, WorkerState
from prokos.kernel.plan import (
    Registrations,
    dropped,
    is_changed,
    late_shards,
    plan_boot,
    plan_changes,
    register_version,
    unwell,
)
from prokos.processes import read_bpmn
from prokos.registry import RegisteredProcess
from prokos.registry.model import DEFAULT_RETRIES
from unit.builders import executor, registry

PAY = bpmn(service_task("Pay", "pay", {"region": "eu"}), process_id="orders")


def wanted(xml: str = PAY, name: str = "orders", job_types: tuple[str, ...] = ()) -> DesiredProcess:
    return DesiredProcess(name, read_bpmn(xml.encode(), "orders.bpmn"), job_types)


def registered(process: DesiredProcess, version: int = 1, known: RegisteredProcess | None = None) -> RegisteredProcess:
    (definition,) = process.file.processes
    deployed = DeployedProcess(definition.process_id, version, 10 + version, process.file.resource_name)
    return register_version(definition, process, deployed, known)


def desired(*executors: Any, processes: tuple[DesiredProcess, ...] = ()) -> Desired:
    return Desired(executors={one.metadata.name: one for one in executors}, processes={p.name: p for p in processes})


# --- boot and changes -----------------------------------------------------------------------------------------


def test_at_boot_everything_is_registered():
    plan = plan_boot(desired(executor("payer"), processes=(wanted(),)), registry())
    assert plan == Registrations(("payer",), ("orders",))


def test_at_boot_what_is_no_longer_wanted_is_looked_at_too():
    known = registry([executor("old")], [registered(wanted(name="gone"))])
    assert plan_boot(desired(executor("payer")), known) == Registrations(("old", "payer"), ("gone",))


def test_without_a_difference_there_is_nothing_to_do():
    known = registry([executor("payer")], [registered(wanted())])
    plan = plan_changes(desired(executor("payer"), processes=(wanted(),)), known)
    assert plan == Registrations()


def test_an_executor_that_differs_is_registered_anew():
    known = registry([executor("payer"), executor("shipper")])
    plan = plan_changes(desired(executor("payer", timeout="5s"), executor("shipper")), known)
    assert plan == Registrations(("payer",))


def test_an_executor_that_is_added_or_removed_has_work_to_do():
    plan = plan_changes(desired(executor("new")), registry([executor("old")]))
    assert plan == Registrations(("new", "old"))


def test_a_process_that_is_no_longer_wanted_is_retired_once():
    active, retired = registered(wanted()), registered(wanted()).model_copy(update={"retired": True})
    assert plan_changes(desired(), registry(processes=[active])) == Registrations((), ("orders",))
    assert plan_changes(desired(), registry(processes=[retired])) == Registrations()


def test_a_process_whose_id_was_changed_is_dropped_by_its_resource():
    renamed = wanted(PAY.replace("orders", "orders2"))
    others = registered(wanted(PAY.replace("orders", "parcels"), name="parcels"))
    known = {"orders": registered(wanted()), "orders2": registered(renamed), "parcels": others}
    assert [one.process_id for one in dropped(renamed, known)] == ["orders"]
    assert is_changed(renamed, known)
    known["orders"] = known["orders"].model_copy(update={"retired": True})
    assert dropped(renamed, known) == []
    assert not is_changed(renamed, known)


CHANGED = bpmn(service_task("Pay", "charge"), process_id="orders")


@pytest.mark.parametrize(
    "now",
    [wanted(CHANGED), wanted(name="renamed"), wanted(job_types=("refund",)), wanted(PAY + "\n")],
    ids=["content", "resource", "job types", "white space"],
)
def test_a_process_that_differs_is_changed(now):
    assert is_changed(now, {"orders": registered(wanted())})


def test_a_process_that_is_deployed_as_it_is_wanted_is_not_changed():
    assert not is_changed(wanted(), {"orders": registered(wanted())})


def test_a_process_that_is_unknown_or_retired_is_changed():
    assert is_changed(wanted(), {})
    assert is_changed(wanted(), {"orders": registered(wanted()).model_copy(update={"retired": True})})


def test_going_back_to_an_earlier_version_is_a_change():
    first = registered(wanted())
    second = registered(wanted(CHANGED), 2, first)
    assert is_changed(wanted(), {"orders": second})


# --- versions -------------------------------------------------------------------------------------------------


def test_a_version_is_registered_with_what_its_tasks_say():
    known = registered(wanted(job_types=("refund",)), version=3)
    assert (known.process_id, known.resource, known.job_types) == ("orders", "orders", ["refund"])
    version = known.versions[3]
    assert (version.key, version.sha256) == (13, wanted().file.sha256)
    (task,) = version.tasks
    assert (task.element_id, task.element_name, task.job_type) == ("Pay", "Do Pay", "pay")
    assert task.headers == {"region": "eu"}


def test_earlier_versions_are_kept_because_instances_of_them_may_run():
    second = registered(wanted(CHANGED), 2, registered(wanted(), 1))
    assert {number: version.tasks[0].job_type for number, version in second.versions.items()} == {1: "pay", 2: "charge"}


def test_the_same_version_deployed_again_is_one():
    assert registered(wanted(), 1, registered(wanted(), 1)) == registered(wanted(), 1)


def test_a_process_that_is_wanted_again_is_no_longer_retired():
    retired = registered(wanted()).model_copy(update={"retired": True})
    assert not registered(wanted(), 1, retired).retired


@pytest.mark.parametrize(
    ("written", "read"), [('retries="7"', 7), ('retries="=count"', DEFAULT_RETRIES), ("", DEFAULT_RETRIES)]
)
def test_attempts_are_known_when_the_model_writes_a_number(written, read):
    xml = PAY.replace('type="pay"', f'type="pay" {written}')
    assert registered(wanted(xml)).versions[1].tasks[0].retries == read


# --- health ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beats", "late"),
    [({}, [0, 1]), ({0: 1.0, 1: 1.0}, []), ({0: 1.0, 1: 8.5}, [1]), ({0: 8.0, 1: 7.9, 2: 99.0}, [])],
)
def test_a_shard_is_late_whose_beat_is_old_or_was_never_seen(beats, late):
    assert late_shards(2, beats, late=8.0) == late


def test_an_executor_is_unwell_that_has_fewer_workers_than_it_should():
    workers = {
        "b": WorkerState(2, 1, 0),
        "a": WorkerState(1, 0, 5),
        "c": WorkerState(1, 1, 9),
        "d": WorkerState(0, 0, 0),
    }
    assert unwell(workers) == ["a", "b"]
