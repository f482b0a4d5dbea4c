from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prokos.resources import AcceptRule, TaskExecutor
from prokos.resources.matching import claimants, includes, matches

SMALL = st.sampled_from(["a", "b", "c"])
HEADERS = st.dictionaries(SMALL, SMALL, max_size=2)
TASKS = st.fixed_dictionaries({"job_type": st.none() | SMALL, "process": SMALL, "element": SMALL, "headers": HEADERS})


@st.composite
def rules(draw: st.DrawFn) -> AcceptRule:
    fields = {
        "job_type": draw(st.none() | SMALL),
        "process": draw(st.none() | SMALL),
        "element": draw(st.none() | SMALL),
        "headers": draw(HEADERS),
    }
    if not any(fields.values()):
        fields["job_type"] = "a"
    return AcceptRule.model_validate(fields)


def executor(name: str, *accepts: dict[str, object]) -> TaskExecutor:
    return TaskExecutor.model_validate(
        {
            "metadata": {"name": name},
            "spec": {"type": "script", "accepts": accepts, "script": {"command": ["true"]}},
        }
    )


def test_accepts_a_task_whose_fields_all_equal_the_rule():
    rule = AcceptRule(job_type="pay", process="orders", element="Pay", headers={"region": "eu"})
    task = {"job_type": "pay", "process": "orders", "element": "Pay", "headers": {"region": "eu", "more": "x"}}
    assert matches(rule, **task)
    for field, other in {"job_type": "ship", "process": "p", "element": "E", "headers": {"region": "us"}}.items():
        assert not matches(rule, **{**task, field: other})


def test_no_job_type_rule_accepts_a_task_whose_job_type_is_unknown():
    assert not matches(AcceptRule(job_type="pay"), job_type=None, process="p", element="e", headers={})
    assert matches(AcceptRule(element="e"), job_type=None, process="p", element="e", headers={})


def test_claimants_come_in_order_each_once_with_its_first_rule():
    one = executor("one", {"jobType": "ship"}, {"jobType": "pay"}, {"element": "Pay"})
    two = executor("two", {"process": "orders"})
    three = executor("three", {"jobType": "other"})
    found = claimants([two, one, three], job_type="pay", process="orders", element="Pay", headers={})
    assert found == [(two, 0), (one, 1)]


@given(rules(), TASKS)
def test_a_rule_accepts_exactly_the_tasks_that_agree_in_what_it_sets(rule, task):
    wanted = {name: getattr(rule, name) for name in ("job_type", "process", "element")}
    agrees = all(value is None or value == task[name] for name, value in wanted.items())
    agrees = agrees and {**task["headers"], **rule.headers} == task["headers"]
    assert matches(rule, **task) == agrees


@given(rules(), rules(), TASKS)
def test_a_rule_that_includes_another_accepts_whatever_that_one_accepts(general, special, task):
    if includes(general, special) and matches(special, **task):
        assert matches(general, **task)


@given(rules())
def test_every_rule_includes_itself(rule):
    assert includes(rule, rule)
