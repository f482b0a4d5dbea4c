from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prokos.resources.base import NAME_MAX_LENGTH, NAME_PATTERN
from prokos.resources.matching import EXECUTOR_HEADER
from prokos.router import Decision, Refused, Undecided, decide, fallback, to_route
from prokos.router.steps import element_variable, read_element
from unit.builders import element, executor, registry, route

PAYER = executor("payer", {"jobType": "pay"})
OTHER = executor("other", {"process": "invoices"})
LLM = {"mode": "llm", "model": "openai/test"}


def named(name: str):
    return element(headers=((EXECUTOR_HEADER, name),))


def test_a_header_that_names_the_executor_goes_before_the_rules():
    decision = decide(named("other"), registry([PAYER, OTHER]))
    assert decision == Decision("other", "header", f"task header {EXECUTOR_HEADER}")


def test_a_header_that_names_nobody_is_refused_even_where_a_rule_fits():
    refused = decide(named("nobody"), registry([PAYER, OTHER]))
    assert isinstance(refused, Refused)
    assert "'nobody', which does not exist; there are: other, payer" in refused.message
    assert "correct the header" in refused.message


def test_a_rule_goes_before_a_stored_route():
    decision = decide(element(), registry([PAYER, OTHER], routes=[route("other")]))
    assert decision == Decision("payer", "rule", "spec.accepts[0]: jobType=pay")


def test_the_reason_names_the_rule_that_fits():
    one = executor("payer", {"process": "invoices"}, {"element": "Pay", "process": "orders"})
    decision = decide(element(), registry([one]))
    assert isinstance(decision, Decision)
    assert decision.reason == "spec.accepts[1]: process=orders, element=Pay"


def test_two_executors_that_claim_a_task_are_no_route():
    refused = decide(element(), registry([PAYER, executor("rival", {"element": "Pay"})]))
    assert isinstance(refused, Refused)
    assert not refused.transient
    assert "payer, rival all accept this task" in refused.message
    assert "narrow their spec.accepts" in refused.message


def test_a_stored_route_goes_before_model_and_fallback():
    known = registry([OTHER], routes=[route("other", source="llm", confidence=0.9, reason="fits")], router=LLM)
    assert decide(element(), known) == Decision("other", "llm", "fits", 0.9)


def test_a_persons_route_goes_before_the_models():
    routes = [route("other", name="a", source="llm", version=1), route("payer", name="b", source="human")]
    decision = decide(element(), registry([executor("payer"), OTHER], routes=routes))
    assert isinstance(decision, Decision)
    assert decision.executor == "payer"


def test_a_route_for_this_version_goes_before_one_for_all():
    routes = [route("other", name="a"), route("payer", name="b", version=1)]
    decision = decide(element(), registry([executor("payer"), OTHER], routes=routes))
    assert isinstance(decision, Decision)
    assert decision.executor == "payer"


@pytest.mark.parametrize("changes", [{"version": 2}, {"element": "Ship"}, {"process": "invoices"}])
def test_a_route_for_something_else_does_not_matter(changes):
    assert isinstance(decide(element(), registry([OTHER], routes=[route("other", **changes)])), Refused)


def test_a_record_of_a_rule_that_is_gone_is_no_route():
    assert isinstance(decide(element(), registry([OTHER], routes=[route("other", source="rule")])), Refused)


def test_a_stored_route_to_an_executor_that_is_gone_is_refused():
    refused = decide(element(), registry([OTHER], routes=[route("payer")]))
    assert isinstance(refused, Refused)
    assert "TaskRoute orders-pay names the executor 'payer', which does not exist" in refused.message


def test_what_no_rule_decides_is_for_the_model():
    assert decide(element(), registry([OTHER], router=LLM)) == Undecided()


def test_without_a_model_the_fallback_takes_what_nothing_else_claims():
    decision = decide(element(), registry([OTHER], router={"fallback": "other"}))
    assert isinstance(decision, Decision)
    assert (decision.executor, decision.source) == ("other", "fallback")


def test_without_a_fallback_the_refusal_says_how_to_make_a_route():
    refused = decide(element(name="Pay the order"), registry([OTHER]))
    assert isinstance(refused, Refused)
    assert "no executor for Pay (Pay the order) of process orders version 1" in refused.message
    assert "spec.accepts: [{jobType: pay}]" in refused.message
    assert EXECUTOR_HEADER in refused.message
    assert "TaskRoute" in refused.message
    assert "retry the task" in refused.message


def test_a_fallback_that_does_not_exist_is_named_in_the_refusal():
    refused = decide(element(), registry([OTHER], router={"fallback": "nobody"}))
    assert isinstance(refused, Refused)
    assert "the fallback executor 'nobody' does not exist" in refused.message


@pytest.mark.parametrize("name", [None, "other"])
def test_a_fallback_for_want_of_an_answer_is_not_for_keeping(name):
    outcome = fallback(element(), registry([OTHER], router={"fallback": name}), "no answer", transient=True)
    assert not isinstance(outcome, Undecided)
    assert outcome.transient


@given(st.text(min_size=1), st.integers(1, 2**31 - 1), st.text(min_size=1))
def test_every_route_name_is_a_valid_resource_name(process, version, name):
    route_name = element(process, version, name).route_name
    assert re.fullmatch(NAME_PATTERN, route_name)
    assert len(route_name) <= NAME_MAX_LENGTH


ELEMENTS = st.tuples(st.text("ab-", min_size=1), st.integers(1, 3), st.text("ab-", min_size=1))


@given(ELEMENTS, ELEMENTS)
def test_route_names_differ_where_elements_do(one, other):
    assert (element(*one).route_name == element(*other).route_name) == (one == other)


@given(st.text(min_size=1), st.text(), st.dictionaries(st.text(), st.text()))
def test_an_element_survives_the_way_through_a_process_variable(process, documentation, headers):
    one = element(process, documentation=documentation, headers=tuple(sorted(headers.items())))
    assert read_element(element_variable(one)) == one


def test_a_kept_decision_is_found_again():
    decision = Decision("other", "llm", "it ships", 0.8)
    kept = to_route(element(), decision)
    assert decide(element(), registry([OTHER], routes=[kept], router=LLM)) == decision
    assert decide(element(version=2), registry([OTHER], routes=[kept], router=LLM)) == Undecided()
