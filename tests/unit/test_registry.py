from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import finished
from prokos.registry import FileRegistry, RegisteredTask
from prokos.resources import ProkOSSpec
from unit.builders import executor, process, registry, route

SYSTEM = ProkOSSpec.model_validate({"pdo": {"shards": 4, "beatInterval": "250ms"}, "router": {"fallback": "payer"}})


@pytest.fixture
def store(tmp_path):
    return FileRegistry(tmp_path)


def job_types(*types: str | None, listed: tuple[str, ...] = (), **pdo: object) -> frozenset[str]:
    """What the PDO serves of a process with tasks of these types."""
    tasks = [RegisteredTask(element_id=f"T{number}", job_type=name) for number, name in enumerate(types)]
    return registry(processes=[process("orders", *tasks, job_types=list(listed))], pdo=pdo).job_types


def test_an_empty_directory_is_an_empty_registry(store):
    assert store.load() == registry()


def test_reads_back_what_was_recorded(store):
    one = executor("payer", {"jobType": "pay"}, timeout="90s", backoff={"initial": "250ms"})
    finished(store.put_system(SYSTEM))
    finished(store.put_executor(one))
    finished(store.put_process(process("orders", version=3)))
    finished(store.put_route(route("payer", source="llm", confidence=0.75, reason="it says so")))
    loaded = FileRegistry(store.directory).load()
    assert loaded.system == SYSTEM
    assert loaded.executors == {"payer": one}
    assert loaded.processes == {"orders": process("orders", version=3)}
    assert loaded.routes == (route("payer", source="llm", confidence=0.75, reason="it says so"),)


def test_forgets_what_was_removed(store):
    finished(store.put_executor(executor()))
    finished(store.put_process(process()))
    finished(store.put_route(route()))
    finished(store.remove_executor("payer"))
    finished(store.remove_process("orders"))
    finished(store.remove_route("orders-pay"))
    assert store.load() == registry()


def test_removing_what_is_not_there_is_no_error(store):
    finished(store.remove_executor("nobody"))
    finished(store.remove_process("nothing"))
    finished(store.remove_route("nowhere"))


@given(first=st.text(min_size=1), second=st.text(min_size=1))
def test_processes_of_any_id_are_kept_apart(tmp_path_factory, first, second):
    store = FileRegistry(tmp_path_factory.mktemp("registry"))
    for process_id in (first, second):
        finished(store.put_process(process(process_id, name=process_id)))
    assert {known.name for known in store.load().processes.values()} == {first, second}
    assert store.load().processes[first] == process(first, name=first)


@pytest.mark.parametrize(
    "process_id", ["../../etc/passwd", ".", "Bestellung prüfen", "x" * 300, "a/b", "ORDERS", "orders"]
)
def test_no_process_id_leaves_the_directory(store, process_id):
    finished(store.put_process(process(process_id)))
    (written,) = (store.directory / "processes").iterdir()
    assert written.suffix == ".json"
    assert len(written.name) < 200


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"processId": 1}', b"\xff\xfe", b""])
def test_a_document_that_cannot_be_read_is_left_out(store, content):
    finished(store.put_process(process("orders")))
    (store.directory / "processes" / "broken.json").write_bytes(content)
    (store.directory / "routes" / "broken.yaml").write_bytes(content or b"- x: [")
    loaded = store.load()
    assert set(loaded.processes) == {"orders"}
    assert loaded.routes == ()


def test_a_process_that_is_not_recorded_is_none(store):
    assert "orders" not in store.load().processes


def test_the_signature_stays_while_nothing_changes(store):
    finished(store.put_executor(executor()))
    before = store.signature()
    store.load()
    assert store.signature() == before


def test_the_signature_changes_with_every_write_even_of_the_same_size(store):
    seen = {store.signature()}
    for description in ("aaaa", "bbbb", "cccc"):
        finished(store.put_executor(executor(description=description)))
        seen.add(store.signature())
    assert len(seen) == 4


def test_the_signature_changes_with_a_write_within_a_tick_of_the_clock(store, monkeypatch):
    finished(store.put_executor(executor(description="aaaa")))
    before = store.signature()
    (path,) = (store.directory / "executors").iterdir()
    # As where the new file is given the number of an old one, and the clock of the file system has not moved on.
    write_text = type(path).write_text

    def within_the_tick(temporary, text):
        write_text(temporary, text)
        os.utime(temporary, ns=(0, 0))

    monkeypatch.setattr(type(path), "write_text", within_the_tick)
    os.utime(path, ns=(0, 0))
    at = path.stat().st_mtime_ns
    finished(store.put_executor(executor(description="bbbb")))
    assert path.stat().st_mtime_ns == at + 1
    assert store.signature() != before


def test_the_signature_changes_when_a_document_is_removed(store):
    finished(store.put_executor(executor()))
    before = store.signature()
    finished(store.remove_executor("payer"))
    assert store.signature() != before


def test_a_route_is_a_document_a_person_can_edit(store):
    finished(store.put_route(route("payer", reason="für Zahlungen")))
    text = (store.directory / "routes" / "orders-pay.yaml").read_text()
    assert "executor: payer\n" in text
    assert "reason: für Zahlungen\n" in text


def test_serves_the_job_types_of_registered_tasks():
    assert job_types("pay", "ship", None) == {"pay", "ship"}


def test_serves_further_types_that_a_process_lists():
    assert job_types("pay", listed=("refund",)) == {"pay", "refund"}


def test_leaves_its_own_job_types_alone_even_when_told_to_serve_them():
    assert job_types("pay", "prokos.tde.payer", include=["prokos.pdo.scan"]) == {"pay"}


def test_leaves_job_types_of_camundas_own_workers_alone():
    assert job_types("pay", "io.camunda:http-json:1", "io.camunda.agenticai:aiagent:1") == {"pay"}


def test_serves_a_foreign_type_when_told_so():
    assert job_types("io.camunda:http-json:1", include=["io.camunda:http-json:1"]) == {"io.camunda:http-json:1"}


def test_serves_a_type_of_a_process_it_does_not_know_when_told_so():
    assert job_types("pay", include=["mail"]) == {"pay", "mail"}


def test_leaves_excluded_types_to_other_workers():
    assert job_types("pay", "ship", include=["mail"], exclude=["ship", "mail"]) == {"pay"}


def test_serves_a_retired_process_to_its_end():
    assert registry(processes=[process(retired=True)]).job_types == {"pay"}


def test_finds_a_task_by_process_version_and_element():
    known = registry(processes=[process(version=2)])
    assert known.tasks["orders", 2, "Pay"].element_name == "Pay the order"
    assert ("orders", 1, "Pay") not in known.tasks


LISTENED_TO = (
    RegisteredTask(element_id="Pay", element_type="executionListener", job_type="before"),
    RegisteredTask(element_id="Pay", element_type="serviceTask", job_type="pay"),
    RegisteredTask(element_id="Pay", element_type="executionListener", job_type="after"),
)


def test_serves_an_element_and_its_listeners_which_share_an_id():
    known = registry(processes=[process("orders", *LISTENED_TO)])
    assert known.job_types == {"before", "pay", "after"}
    assert known.tasks["orders", 1, "Pay"].job_type == "pay"


def test_a_listener_of_an_element_that_makes_no_job_stands_for_it():
    known = registry(processes=[process("orders", LISTENED_TO[0])])
    assert known.tasks["orders", 1, "Pay"].job_type == "before"


def test_the_latest_version_is_the_highest_one():
    nine, ten = process(version=9), process(version=10)
    both = process(versions={**ten.versions, **nine.versions})
    assert both.latest == ten.latest


def test_a_process_without_versions_has_no_latest_one():
    assert process(versions={}).latest is None


def test_reads_a_document_again_only_when_it_has_changed(store):
    finished(store.put_process(process("orders")))
    finished(store.put_process(process("returns")))
    before = store.load().processes
    finished(store.put_process(process("returns", version=2)))
    after = store.load().processes
    assert after["orders"] is before["orders"]
    assert after["returns"] == process("returns", version=2)


def test_says_once_that_a_document_is_not_readable(store, capsys):
    finished(store.put_process(process("orders")))
    (store.directory / "processes" / "broken.json").write_text("{")
    for _ in range(2):
        assert list(store.load().processes) == ["orders"]
    said = capsys.readouterr()
    assert (said.out + said.err).count("not readable") == 1
    (store.directory / "processes" / "broken.json").write_text("[]")
    store.load()
    said = capsys.readouterr()
    assert (said.out + said.err).count("not readable") == 1
