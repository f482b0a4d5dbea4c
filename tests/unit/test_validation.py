from __future__ import annotations

import os
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bpmn_samples import element, process, service_task
from prokos.processes import read_definitions, validate
from prokos.resources.manifests import load_manifests
from resource_samples import GRPC


def resource(kind: str, name: str, spec: dict[str, object], namespace: str = "default") -> dict[str, object]:
    return {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def executor(name: str, *accepts: dict[str, object], **spec: object) -> dict[str, object]:
    base: dict[str, object] = {"type": "script", "accepts": list(accepts)}
    if spec.get("type", "script") == "script" and "script" not in spec:
        base["script"] = {"command": ["true"]}
    return resource("TaskExecutor", name, base | spec)


def system(**spec: object) -> dict[str, object]:
    return resource("ProkOS", "prokos", spec)


def route(name: str = "r", process_id: str = "orders", task: str = "Pay", to: str = "pay") -> dict[str, object]:
    return resource("TaskRoute", name, {"process": process_id, "element": task, "executor": to})


PAY = process(service_task("Pay", "pay"))
PAYER = executor("pay", {"jobType": "pay"})


@pytest.fixture
def found(tmp_path):
    """Validate manifests (`a.yaml`) and BPMN files, and give the problems as lines."""

    def run(*manifests: dict[str, object], **bpmn: str) -> list[str]:
        (tmp_path / "a.yaml").write_text(yaml.safe_dump_all(manifests, sort_keys=False), encoding="utf-8")
        for name, xml in bpmn.items():
            (tmp_path / f"{name}.bpmn").write_text(xml, encoding="utf-8")
        problems = validate(load_manifests([tmp_path]))
        return [str(problem).replace(f"{tmp_path}{os.sep}", "") for problem in problems]

    return run


def test_manifests_that_fit_together_have_no_problems(found):
    assert found(PAYER, system(), orders=PAY) == []


def test_problems_of_loading_and_of_bpmn_are_there_too(found):
    lines = found({"kind": "TaskRoute"}, orders=process(service_task("Pay", "pay"), '<bpmn:serviceTask id="X"/>'))
    assert [line.partition(": ")[0] for line in lines] == ["a.yaml:1", "orders.bpmn:6", "orders.bpmn:7"]


def test_two_executors_that_claim_the_same_task_are_named_with_their_rules(found):
    lines = found(
        executor("one", {"process": "orders"}),
        executor("two", {"jobType": "x"}, {"jobType": "pay"}),
        orders=PAY,
    )
    assert lines == [
        "a.yaml:23: spec.accepts[1]: executors 'one' and 'two' both claim task 'Pay' of process 'orders'; "
        "the other rule is a.yaml:9: spec.accepts[0] "
        "(let one rule accept what the other does not, or name the executor in the task's header prokos.io/executor)"
    ]


def test_one_message_names_the_tasks_of_two_rules_up_to_a_few(found):
    tasks = process(*(service_task(f"T{number}", "pay") for number in range(5)))
    (line,) = found(PAYER, executor("two", {"process": "orders"}), orders=tasks)
    assert (
        "both claim task 'T0' of process 'orders', 'T1' of process 'orders', 'T2' of process 'orders' and 2 more"
        in line
    )


def test_a_header_that_names_the_executor_settles_a_contested_task(found):
    task = service_task("Pay", "pay", {"prokos.io/executor": "two"})
    assert found(PAYER, executor("two", {"process": "orders"}), orders=process(task)) == []


@pytest.mark.parametrize(
    ("one", "two", "contradict"),
    [
        ({"jobType": "a"}, {"jobType": "a"}, True),
        ({"jobType": "a"}, {"jobType": "a", "process": "p"}, True),
        ({"jobType": "a", "headers": {"x": "1"}}, {"headers": {"x": "1"}}, True),
        ({"jobType": "a", "process": "p"}, {"jobType": "a", "process": "q"}, False),
        ({"jobType": "a", "headers": {"x": "1"}}, {"jobType": "a", "headers": {"x": "2"}}, False),
        ({"jobType": "a", "process": "p"}, {"jobType": "a", "element": "e"}, False),
        ({"jobType": "a"}, {"process": "p"}, False),
    ],
)
def test_rules_that_must_meet_contradict_even_without_a_process(found, one, two, contradict):
    lines = found(executor("one", one), executor("two", two))
    assert [("'one' and 'two' both claim the same tasks" in line) for line in lines] == [True] * contradict


def test_rules_of_one_executor_may_overlap(found):
    assert found(executor("pay", {"jobType": "pay"}, {"process": "orders"}), orders=PAY) == []


def test_a_header_that_names_no_executor_is_an_error_at_the_element(found):
    task = service_task("Pay", "pay", {"prokos.io/executor": "pya"})
    assert found(PAYER, orders=process(task)) == [
        "orders.bpmn:6: Pay: header prokos.io/executor names executor 'pya', which is not there (did you mean pay?)"
    ]


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (route(to="pya"), "a.yaml:22: spec.executor: no executor 'pya' (did you mean pay?)"),
        (
            route(process_id="order"),
            "a.yaml:20: spec.process: no process 'order' is in the manifests (did you mean orders?)",
        ),
        (route(task="Pai"), "a.yaml:21: spec.element: process 'orders' has no task 'Pai' (did you mean Pay?)"),
        (route(task="Start"), "a.yaml:21: spec.element: process 'orders' has no task 'Start'"),
        (system(router={"fallback": "pya"}), "a.yaml:21: spec.router.fallback: no executor 'pya' (did you mean pay?)"),
        (
            system(pdo={"include": ["prokos.x"]}),
            "a.yaml:22: spec.pdo.include[0]: job type 'prokos.x' is reserved for ProkOS",
        ),
        (
            executor("two", {"process": "orders", "element": "Pai"}),
            "a.yaml:23: warning: spec.accepts[0].element: process 'orders' has no task 'Pai': "
            "this rule accepts nothing (did you mean Pay?)",
        ),
        (
            executor("two", {"jobType": "prokos.x"}),
            "a.yaml:22: spec.accepts[0].jobType: job type 'prokos.x' is reserved for ProkOS; the PDO never serves it",
        ),
        (
            resource("TaskExecutor", "pay", {"type": "script", "script": {"command": ["x"]}}, namespace="other"),
            "a.yaml:17: metadata.name: executor 'pay' is also in another namespace, a.yaml:1 "
            "(rename one: their TDEs have the same name on the engine)",
        ),
    ],
)
def test_names_that_lead_nowhere_are_found(found, manifest, expected):
    assert found(PAYER, manifest, orders=PAY) == [expected]


def test_a_route_to_a_process_of_others_is_a_warning_when_their_job_types_are_included(found):
    (line,) = found(PAYER, route(process_id="theirs"), system(pdo={"include": ["x"]}), orders=PAY)
    assert line.startswith("a.yaml:20: warning: spec.process: no process 'theirs'")


def test_two_routes_for_one_task_are_an_error(found):
    (line,) = found(PAYER, route("one"), route("two"), orders=PAY)
    assert "a second route for 'Pay' of process 'orders'; the first is a.yaml:14" in line


def test_a_second_prokos_is_an_error(found):
    assert found(system(), resource("ProkOS", "other", {})) == [
        "a.yaml:11: metadata.name: a second ProkOS; the first is a.yaml:1 (keep one)"
    ]


def test_two_definitions_of_one_process_are_an_error(found):
    definition = resource("ProcessDefinition", "again", {"bpmn": PAY})
    (line,) = found(PAYER, definition, orders=PAY)
    assert "process 'orders' is also defined in" in line


@pytest.mark.parametrize(
    ("spec", "fate"),
    [
        ({}, "it becomes an incident (add the rule jobType: ship to accepts of an executor)"),
        ({"fallback": "pay"}, "the fallback executor 'pay' runs it"),
        ({"mode": "llm", "model": "m"}, "the LLM router chooses one, and if it finds none, it becomes an incident"),
        (
            {"mode": "llm", "model": "m", "fallback": "pay"},
            "the LLM router chooses one, and if it finds none, the fallback executor 'pay' runs it",
        ),
    ],
)
def test_a_task_that_nobody_claims_is_a_warning_that_tells_its_fate(found, spec, fate):
    lines = found(PAYER, system(router=spec), orders=process(service_task("Ship", "ship")))
    assert lines == [f"orders.bpmn:6: warning: Ship: no executor claims 'Ship' of process 'orders': {fate}"]


def test_tasks_that_a_route_claims_or_that_others_serve_are_no_warnings(found):
    tasks = process(
        service_task("Pay", "x"), service_task("Call", "io.camunda:http-json:1"), service_task("Mail", "mail"),
        '<bpmn:userTask id="Approve"/>',
    )  # fmt: skip
    assert found(PAYER, route(), system(pdo={"exclude": ["mail"]}), orders=tasks) == []
    (line,) = found(PAYER, route(), system(pdo={"exclude": ["mail"], "include": ["io.camunda:http-json:1"]}))
    assert "no executor claims 'Call'" in line


def test_listed_job_types_stand_in_for_feel(found, tmp_path):
    feel = process(service_task("Pay", "=kind"))
    (line,) = found(PAYER, orders=feel)
    assert "the job type is FEEL" in line
    (tmp_path / "orders.bpmn").unlink()
    definition = resource("ProcessDefinition", "orders", {"bpmn": feel, "jobTypes": ["pay", "ship", "prokos.x"]})
    lines = found(PAYER, definition)
    assert ["no executor claims 'Pay' of process 'orders'" in line for line in lines] == [True, False]
    assert "(add the rule jobType: ship to" in lines[0]
    assert "spec.jobTypes[2]: job type 'prokos.x' is reserved" in lines[1]
    lines = found(PAYER, executor("two", {"process": "orders"}), definition)
    assert any("both claim task 'Pay' of process 'orders'" in line for line in lines)


def test_problems_of_inline_bpmn_are_at_the_lines_of_the_manifest(tmp_path):
    head = "apiVersion: prokos.io/v1alpha1\nkind: ProcessDefinition\nmetadata: {name: a}\nspec:\n  bpmn: |\n"
    xml = process(service_task("Pay", "pay"), '<bpmn:serviceTask id="X"/>')
    (tmp_path / "a.yaml").write_text(head + textwrap.indent(xml, "    "))
    loaded = load_manifests([tmp_path])
    assert [(problem.field, problem.line) for problem in validate(loaded)] == [("Pay", 11), ("X", 12)]
    assert (tmp_path / "a.yaml").read_text().splitlines()[11].strip() == '<bpmn:serviceTask id="X"/>'
    (definition,) = read_definitions(loaded)
    assert definition.bpmn.processes[0].tasks[0].line == 6


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "objekt"}, "spec.inputSchema.type: not a valid JSON Schema"),
        ({"properties": {"a": {"minimum": "1"}}}, "spec.inputSchema.properties.a.minimum: not a valid JSON Schema"),
        ({"pattern": "("}, "spec.inputSchema.pattern: not a valid JSON Schema"),
        ({"$ref": "#/$defs/x"}, "spec.inputSchema: not a valid JSON Schema"),
        ({"$ref": "http://127.0.0.1:9/x"}, "(schemas are not fetched: put it in, under $defs)"),
        ({"$schema": "http://127.0.0.1:9/x"}, "spec.inputSchema: not a valid JSON Schema"),
    ],
)
def test_a_schema_must_be_a_schema_and_complete(found, schema, expected):
    (line,) = found(executor("a", inputSchema=schema))
    assert expected in line
    assert "spec.outputSchema" in found(executor("a", outputSchema={"type": 1}))[0]


def test_a_python_script_must_compile(tmp_path, found):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: prokos.io/v1alpha1\nkind: TaskExecutor\nmetadata: {name: a}\nspec:\n  type: script\n"
        "  script:\n    language: python\n    source: |\n      a = 1\n      if a\n        print(a)\n"
    )
    (problem,) = validate(load_manifests([tmp_path]))
    assert (problem.field, problem.line) == ("spec.script.source", 10)
    assert "the script does not compile: expected ':' (line 2 of the script)" in str(problem)
    for source in ("x\0", "-" * 100_000 + "1", "return 1"):
        (line,) = found(executor("a", script={"language": "python", "source": source}))
        assert "spec.script.source: the script does not compile" in line
    assert found(executor("a", script={"language": "shell", "source": "if"})) == []
    assert found(executor("a", script={"language": "python", "source": "print('a' is 'a')"})) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"script": {"command": ["x"], "secretEnv": {"KEY": "tokn"}}}, "spec.script.secretEnv.KEY"),
        ({"type": "http", "http": {"url": "https://a/", "auth": {"bearer": "tokn"}}}, "spec.http.auth.bearer"),
        (
            {"type": "http", "http": {"url": "https://a/", "auth": {"basic": {"username": "u", "password": "tokn"}}}},
            "spec.http.auth.basic.password",
        ),
        (
            {"type": "http", "http": {"url": "https://a/", "auth": {"apiKey": {"header": "h", "secret": "tokn"}}}},
            "spec.http.auth.apiKey.secret",
        ),
        ({"type": "http", "http": {"url": "https://a/", "caSecret": "tokn"}}, "spec.http.caSecret"),
        ({"script": {"command": ["x"], "secretFiles": {"key": "tokn"}}}, "spec.script.secretFiles.key"),
        ({"type": "grpc", "grpc": {**GRPC, "bearer": "tokn"}}, "spec.grpc.bearer"),
        ({"type": "grpc", "grpc": {**GRPC, "secretMetadata": {"k": "tokn"}}}, "spec.grpc.secretMetadata.k"),
        ({"type": "grpc", "grpc": {**GRPC, "tls": {"caSecret": "tokn"}}}, "spec.grpc.tls.caSecret"),
        ({"type": "sql", "sql": {"urlSecret": "tokn", "statement": "select 1"}}, "spec.sql.urlSecret"),
        (
            {"type": "container", "container": {"image": "i", "secretEnv": {"KEY": "tokn"}}},
            "spec.container.secretEnv.KEY",
        ),
    ],
)
def test_secrets_must_be_declared(found, spec, field):
    (line,) = found(executor("a", **spec))
    assert f"{field}: secret 'tokn' is not declared (declare it in spec.secrets)" in line
    (line,) = found(executor("a", **spec, secrets=[{"name": "token", "env": "T"}]))
    assert "(did you mean token?)" in line
    assert found(executor("a", **spec, secrets=[{"name": "tokn", "env": "T"}])) == []


def test_a_container_gets_no_secret_of_a_file(found):
    spec = {"type": "container", "container": {"image": "i", "secretEnv": {"KEY": "token"}}}
    (line,) = found(executor("a", **spec, secrets=[{"name": "token", "file": "/a"}]))
    assert "spec.container.secretEnv.KEY: secret 'token' comes from a file" in line
    assert "(give secretKeyRef)" in line
    assert found(executor("a", **spec, secrets=[{"name": "token", "secretKeyRef": {"name": "s", "key": "k"}}])) == []


def test_a_secret_is_declared_once(found):
    (line,) = found(executor("a", secrets=[{"name": "t", "env": "T"}, {"name": "t", "env": "U"}]))
    assert "spec.secrets[1].name: secret 't' is declared twice" in line


def test_a_listener_is_told_from_its_task(found):
    listener = '<zeebe:executionListeners><zeebe:executionListener type="audit"/></zeebe:executionListeners>'
    task = element("serviceTask", "Pay", '<zeebe:taskDefinition type="pay"/>', listener)
    (line,) = found(PAYER, orders=process(task))
    assert "no executor claims 'Pay' (executionListener audit) of process 'orders'" in line


NAMES = st.sampled_from(["a", "b", "c"])
RULES = st.fixed_dictionaries(
    {}, optional={"jobType": NAMES, "process": NAMES, "element": NAMES, "headers": st.dictionaries(NAMES, NAMES)}
)
SPECS = st.lists(st.lists(RULES, max_size=3), max_size=3)
TASKS = st.lists(st.tuples(NAMES, st.sampled_from(["a", "b", "=a", "prokos.a", "io.camunda:a"])), max_size=3)


@given(SPECS, TASKS)
@settings(max_examples=60, deadline=None)
def test_validating_whatever_loads_never_raises_and_is_stable(specs, tasks):
    with TemporaryDirectory() as directory:
        manifests = [executor(f"e{number}", *rules) for number, rules in enumerate(specs)]
        Path(directory, "a.yaml").write_text(yaml.safe_dump_all(manifests))
        xml = process(*(service_task(name, job_type) for name, job_type in tasks), process_id="a")
        Path(directory, "a.bpmn").write_text(xml)
        loaded = load_manifests([Path(directory)])
        problems = validate(loaded)
    assert problems == sorted(set(problems)) == validate(loaded)
    assert set(loaded.problems) <= set(problems)
