from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpmn_samples import TASK, document, element, extended, process, service_task
from prokos.processes import ProcessFile, Task, kernel_processes, read_bpmn
from prokos.resources.problems import PROBLEM_LIMIT

PUBLISH = extended("<zeebe:publishMessage/>")
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "processes"


def read(xml: str, **options: object) -> ProcessFile:
    return read_bpmn(xml.encode(), "a.bpmn", **options)


def tasks(xml: str) -> list[Task]:
    file = read(xml)
    assert not [str(problem) for problem in file.problems if problem.severity == "error"]
    return [task for found in file.processes for task in found.tasks]


def problems(xml: str, **options: object) -> list[str]:
    return [str(problem) for problem in read(xml, **options).problems]


def test_reads_what_there_is_to_know_of_a_task():
    xml = process(
        '<bpmn:serviceTask id="Pay" name="Pay&#10;the order">',
        "<bpmn:documentation> Takes the money. </bpmn:documentation>",
        extended(
            '<zeebe:taskDefinition type="pay" retries="=n"/>'
            '<zeebe:taskHeaders><zeebe:header key="a" value="1"/><zeebe:header value="x"/></zeebe:taskHeaders>'
        ),
        "<bpmn:multiInstanceLoopCharacteristics/>",
        "</bpmn:serviceTask>",
    )
    assert tasks(xml) == [
        Task("Pay", "Pay the order", "serviceTask", "Takes the money.", "pay", None, {"a": "1"}, "=n", True, 6)
    ]


def test_reads_id_name_version_tag_and_content_of_a_file():
    xml = document(
        '<bpmn:process id="a" name="An&#10;order" isExecutable="true">',
        extended('<zeebe:versionTag value="v2"/>'),
        '<bpmn:startEvent id="s"/>',
        "</bpmn:process>",
        '<bpmn:process id="b"><bpmn:task id="t"/></bpmn:process>',
        '<bpmn:process id="c" isExecutable="true"><bpmn:startEvent id="s2"/></bpmn:process>',
    )
    file = read(xml)
    assert [(found.process_id, found.name, found.version_tag) for found in file.processes] == [
        ("a", "An order", "v2"),
        ("c", "", None),
    ]
    assert (file.sha256, file.resource_name, file.xml) == (sha256(xml.encode()).hexdigest(), "a.bpmn", xml.encode())


@pytest.mark.parametrize(
    "xml",
    [
        f'<bpmn:serviceTask id="T">{TASK}</bpmn:serviceTask>',
        f'<bpmn:sendTask id="T">{TASK}</bpmn:sendTask>',
        f'<bpmn:businessRuleTask id="T">{TASK}</bpmn:businessRuleTask>',
        f'<bpmn:scriptTask id="T">{TASK}</bpmn:scriptTask>',
        f'<bpmn:adHocSubProcess id="T">{TASK}</bpmn:adHocSubProcess>',
        f'<bpmn:endEvent id="T">{TASK}<bpmn:messageEventDefinition/></bpmn:endEvent>',
        f'<bpmn:intermediateThrowEvent id="T">{TASK}<bpmn:messageEventDefinition/></bpmn:intermediateThrowEvent>',
    ],
)
@pytest.mark.parametrize("around", ["", "subProcess", "transaction", "adHocSubProcess"])
def test_finds_every_element_that_makes_a_job_also_in_nested_scopes(xml, around):
    nested = (f'<bpmn:{around} id="Outer">', xml, f"</bpmn:{around}>") if around else (xml,)
    (task,) = tasks(process(*nested))
    assert (task.element_id, task.job_type, task.line) == ("T", "work", 7 if around else 6)
    assert f"<bpmn:{task.element_type} " in xml


@pytest.mark.parametrize(
    "xml",
    [
        f'<bpmn:endEvent id="T">{TASK}</bpmn:endEvent>',
        f'<bpmn:task id="T">{TASK}</bpmn:task>',
        f'<bpmn:manualTask id="T">{TASK}</bpmn:manualTask>',
        element("userTask", "T", "<zeebe:userTask/>"),
        element("scriptTask", "T", '<zeebe:script expression="=1"/>'),
        element("businessRuleTask", "T", '<zeebe:calledDecision decisionId="d"/>'),
    ],
)
def test_elements_that_make_no_job_are_no_tasks(xml):
    assert tasks(process(xml)) == []


def test_a_job_based_user_task_has_camundas_job_type_whatever_it_defines():
    (task,) = tasks(process(f'<bpmn:userTask id="T">{TASK}</bpmn:userTask>'))
    assert (task.element_type, task.job_type) == ("userTask", "io.camunda.zeebe:userTask")


def test_listeners_are_tasks_without_headers():
    listener = '<zeebe:executionListener eventType="start" type="audit"/>'
    listeners = f"<zeebe:executionListeners>{listener}</zeebe:executionListeners>"
    header = '<zeebe:taskHeaders><zeebe:header key="a" value="1"/></zeebe:taskHeaders>'
    task_listeners = '<zeebe:taskListeners><zeebe:taskListener type="check"/></zeebe:taskListeners>'
    xml = process(
        extended(listeners),
        element("serviceTask", "T", '<zeebe:taskDefinition type="work"/>', header, listeners),
        element("userTask", "U", "<zeebe:userTask/>", task_listeners),
    )
    found = [(task.element_id, task.element_type, task.job_type, dict(task.headers)) for task in tasks(xml)]
    assert found == [
        ("orders", "executionListener", "audit", {}),
        ("T", "serviceTask", "work", {"a": "1"}),
        ("T", "executionListener", "audit", {}),
        ("U", "taskListener", "check", {}),
    ]
    process_read = read(xml).processes[0]
    assert process_read.job_types == {"audit", "work", "check"}
    task = process_read.task("T")
    assert task is not None
    assert task.element_type == "serviceTask"
    assert process_read.task("U") is None


@pytest.mark.parametrize(
    ("written", "job_type", "expression"),
    [
        ("pay", "pay", None),
        ('="pay"', "pay", None),
        ('=  "pay now" ', "pay now", None),
        ('= "pay-" + kind', None, '= "pay-" + kind'),
        ('= "a\\u0041"', None, '= "a\\u0041"'),
        ("=kind", None, "=kind"),
        ('= "a" + "b"', None, '= "a" + "b"'),
    ],
)
def test_resolves_a_feel_job_type_only_if_it_is_a_plain_string(written, job_type, expression):
    (task,) = tasks(process(service_task("T", written)))
    assert (task.job_type, task.job_type_expression) == (job_type, expression)


def test_warns_of_a_feel_job_type_unless_its_values_are_listed():
    xml = process(service_task("T", "=kind"))
    assert problems(xml) == [
        "a.bpmn:6: warning: T: the job type is FEEL (=kind): the PDO cannot see it "
        "(list its values in spec.jobTypes of the ProcessDefinition or in spec.pdo.include)"
    ]
    assert problems(xml, job_types=["pay"]) == []


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ('<bpmn:serviceTask id="T"/>', "a.bpmn:6: T: serviceTask needs one task definition, and has 0"),
        (
            element("serviceTask", "T", '<zeebe:taskDefinition type="a"/>', '<zeebe:taskDefinition type="b"/>'),
            "T: serviceTask needs one task definition, and has 2",
        ),
        (
            element("serviceTask", "T", "<zeebe:taskDefinition/>"),
            "T: the job type of this serviceTask is empty",
        ),
        (
            '<bpmn:serviceTask id="T" xmlns:c="http://camunda.org/schema/1.0/bpmn" c:topic="a"/>',
            "(the model is for Camunda 7; convert it to Camunda 8)",
        ),
        ('<bpmn:sendTask id="T"/>', "T: sendTask needs a task definition"),
        ('<bpmn:endEvent id="T"><bpmn:messageEventDefinition/></bpmn:endEvent>', "T: endEvent needs a task definition"),
        ('<bpmn:scriptTask id="T"/>', "T: scriptTask needs either zeebe:script or zeebe:taskDefinition"),
        ('<bpmn:businessRuleTask id="T"/>', "T: businessRuleTask needs either zeebe:calledDecision or"),
        ('<bpmn:callActivity id="T"/>', "T: callActivity needs zeebe:calledElement with a processId"),
        (f"<bpmn:serviceTask>{TASK}</bpmn:serviceTask>", "orders: this serviceTask has no id"),
        (service_task("Start"), "a.bpmn:6: Start: id 'Start' is there twice, first in line 5"),
        (service_task("1st"), "1st: '1st' is not a valid XML id"),
        (service_task("T", "prokos.tde.x"), "T: job type 'prokos.tde.x' is reserved for ProkOS"),
        (service_task("T", " =x"), "warning: T: job type ' =x' has spaces around it"),
        (
            '<bpmn:sequenceFlow id="F" sourceRef="Start" targetRef="Strat"/>',
            "a.bpmn:6: F: targetRef of this sequenceFlow names 'Strat', which is not there (did you mean Start?)",
        ),
        ('<bpmn:sequenceFlow id="F" targetRef="Start"/>', "F: sequenceFlow has no sourceRef"),
        ('<bpmn:boundaryEvent id="B" attachedToRef="zzz"/>', "B: attachedToRef of this boundaryEvent names 'zzz'"),
        ('<bpmn:exclusiveGateway id="G" default="zzz"/>', "G: default of this exclusiveGateway names 'zzz'"),
        ('<bpmn:exclusiveGateway id="G" default="Start"/>', "G: its default flow 'Start' does not start here"),
        (
            '<bpmn:endEvent id="E"><bpmn:errorEventDefinition errorRef="zzz"/></bpmn:endEvent>',
            "E: errorRef of this errorEventDefinition names 'zzz'",
        ),
        (
            '<bpmn:endEvent id="E"><bpmn:messageEventDefinition>'
            f"{PUBLISH}</bpmn:messageEventDefinition></bpmn:endEvent>",
            "warning: E: the engine publishes nothing for the zeebe:publishMessage of this endEvent",
        ),
    ],
)
def test_finds_what_the_engine_would_refuse_or_ignore(xml, expected):
    found = problems(process(xml))
    assert [expected in line for line in found] == [True], found


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (document('<bpmn:process id="a"/>'), "a.bpmn:3: no executable process"),
        (document('<bpmn:process id="a" isExecutable="1"/>'), "a.bpmn:3: no executable process"),
        (
            document('<bpmn:process isExecutable="true"><bpmn:startEvent id="s"/></bpmn:process>'),
            "a.bpmn:4: an executable process has no id",
        ),
        (process(start=False), "a.bpmn:4: orders: the process has no start event"),
        (process(process_id="tde-x"), "process id 'tde-x' is reserved for ProkOS"),
        (process(process_id="prokos-boot"), "process id 'prokos-boot' is reserved for ProkOS"),
        ("", "a.bpmn:1: not well-formed XML: Document is empty (column 1)"),
        (
            "<a>\n <b>\n</a>",
            "a.bpmn:3: not well-formed XML: Opening and ending tag mismatch: b line 2 and a (column 5)",
        ),
        ("<definitions/>", "a.bpmn:1: not BPMN 2.0: the root element is definitions"),
    ],
)
def test_finds_what_is_wrong_with_a_whole_file(xml, expected):
    found = problems(xml)
    assert [expected in line for line in found] == [True], found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_refuses_a_document_type_before_it_can_do_anything(encoding):
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    xml = (
        f'<!DOCTYPE a [<!ENTITY e0 "x"><!ENTITY file SYSTEM "file:///etc/hostname">{entities}]><a b="&e12;">&file;</a>'
    )
    (problem,) = read_bpmn(xml.encode(encoding), "a.bpmn").problems
    assert "document type" in problem.message


def test_deep_nesting_is_a_problem():
    assert "not well-formed" in problems("<a>" * 100_000)[0]


def test_reports_so_many_problems_and_no_more():
    flows = (f'<bpmn:sequenceFlow id="F{number}" sourceRef="x" targetRef="y"/>' for number in range(2_000))
    found = problems(process(*flows))
    assert len(found) == PROBLEM_LIMIT + 1
    assert found[0] == "a.bpmn: more than 100 problems; the others are not shown"


def test_kernel_processes_may_use_the_reserved_names():
    for name, xml in kernel_processes().items():
        assert [str(problem) for problem in read_bpmn(xml, name, kernel=True).problems] == []


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
@settings(deadline=None)
def test_reading_arbitrary_bytes_never_raises(xml):
    assert read_bpmn(xml, "a.bpmn").problems


ELEMENTS = st.sampled_from(
    ["process", "serviceTask", "userTask", "endEvent", "sequenceFlow", "subProcess", "messageEventDefinition"]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["id", "name", "default", "sourceRef", "targetRef", "errorRef", "isExecutable"]),
    st.sampled_from(["a", "b", "true", "", "1 x"]),
)


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> str:
    name, attributes = draw(ELEMENTS), draw(ATTRIBUTES)
    inner = draw(st.lists(elements(depth - 1), max_size=3)) if depth else []
    extension = draw(st.sampled_from(["", TASK, extended("<zeebe:taskDefinition/>"), "<bpmn:extensionElements/>"]))
    written = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<bpmn:{name}{written}>{extension}{''.join(inner)}</bpmn:{name}>"


@given(st.lists(elements(), max_size=3))
@settings(deadline=None)
def test_reading_any_arrangement_of_elements_never_raises(body):
    read(document(*body))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public processes are not beside the repository")
@pytest.mark.parametrize(
    ("name", "process_id", "job_types"),
    [
        (
            "customer-onboarding",
            "customer-onboarding",
            {"scoreCustomer", "addCustomerToCrm", "io.camunda.zeebe:userTask"},
        ),
        ("ticket-booking", "ticket-booking", {"reserve-seats", "retrieve-payment", "generate-ticket"}),
        ("typical-process-10-jobtypes", "benchmark_10_jobtypes", {f"benchmark-task-{n}" for n in range(1, 11)}),
    ],
)
def test_reads_processes_whose_authors_did_not_know_prokos(name, process_id, job_types):
    file = read_bpmn((SHARED / f"{name}.bpmn").read_bytes(), f"{name}.bpmn")
    assert file.problems == ()
    (found,) = file.processes
    assert (found.process_id, found.job_types) == (process_id, job_types)
    assert all(task.line for task in found.tasks)
