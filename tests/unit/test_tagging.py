from __future__ import annotations

from prokos.pdo.tagging import element_of, tag
from prokos.registry import RegisteredTask
from prokos.tde import TaggedTask
from unit.builders import job, process, registry, task

PAY = RegisteredTask(
    element_id="Pay", element_name="Pay the order", documentation="Charges the card.", job_type="pay", retries=5
)
KNOWN = registry(processes=[process("orders", PAY)])


def test_a_job_is_tagged_with_its_process_instance_and_element():
    assert tag(job(7), KNOWN, 30) == task(7, max_retries=5)


def test_a_job_of_an_unknown_process_is_tagged_by_its_ids_alone():
    assert tag(job(7), registry(), 30) == task(7, element_name="")


def test_a_job_of_an_unknown_version_is_tagged_by_its_ids_alone():
    assert tag(job(7, version=2), KNOWN, 30).element_name == ""


def test_a_task_had_at_least_the_attempts_it_still_has():
    assert tag(job(7, retries=9), KNOWN, 30).max_retries == 9


def test_the_lease_is_told_in_milliseconds():
    assert tag(job(7), KNOWN, 0.25).lease == 250


def test_a_task_that_may_have_started_before_is_marked():
    assert tag(job(7), KNOWN, 30, verify=True) == task(7, max_retries=5, verify=True)


def test_a_tag_survives_the_way_through_a_process_variable():
    assert TaggedTask.from_variable(task(7, verify=True).to_variable()) == task(7, verify=True)


def test_a_tag_of_a_newer_version_is_read_without_what_is_unknown_here():
    assert TaggedTask.from_variable({**task(7).to_variable(), "priority": 50}) == task(7)


def test_an_element_is_described_by_what_was_registered():
    element = element_of(job(headers={"b": "2", "a": "1"}), KNOWN)
    assert (element.process, element.version, element.element) == ("orders", 1, "Pay")
    assert (element.name, element.documentation) == ("Pay the order", "Charges the card.")
    assert element.headers == (("a", "1"), ("b", "2"))


def test_all_jobs_of_an_element_have_the_same_element():
    one = element_of(job(1, instance=100, variables={"amount": 1}), KNOWN)
    assert one == element_of(job(2, instance=200, variables={"amount": 2}), KNOWN)


def test_an_element_of_an_unknown_process_can_still_be_routed():
    element = element_of(job(), registry())
    assert (element.process, element.job_type, element.name) == ("orders", "pay", "")
