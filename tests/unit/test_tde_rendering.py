from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from prokos.processes import (
    kernel_processes,
    read_bpmn,
    render_mappings,
    render_tde,
    tde_job_type,
    tde_message,
    tde_process_id,
    tde_resources,
)
from prokos.resources import TaskExecutor

DMN = "{https://www.omg.org/spec/DMN/20191111/MODEL/}"
BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"


def executor(**spec: object) -> TaskExecutor:
    base = {"type": "script", "script": {"command": ["true"]}}
    return TaskExecutor.model_validate({"metadata": {"name": "pay"}, "spec": base | spec})


def job_types(xml: bytes) -> list[str | None]:
    return [task.job_type for process in read_bpmn(xml, "tde", kernel=True).processes for task in process.tasks]


def test_a_tde_is_a_valid_process_with_the_names_others_use():
    xml = render_tde(executor(description="Takes the money."))
    file = read_bpmn(xml, "tde", kernel=True)
    assert [str(problem) for problem in file.problems] == []
    assert [process.process_id for process in file.processes] == [tde_process_id("pay")]
    # Of a call, and of a dispatched task.
    assert job_types(xml) == [tde_job_type("pay")] * 2
    messages = [message.get("name") for message in etree.fromstring(xml).iter(f"{BPMN}message")]
    assert messages == [tde_message("pay")]


def test_an_executor_with_mappings_has_decisions_beside_its_process():
    mapping = {"source": "=output.id", "target": "paymentId"}
    assert list(tde_resources(executor())) == ["tde-pay.bpmn"]
    resources = tde_resources(executor(inputs=[mapping]))
    assert list(resources) == ["tde-pay.bpmn", "tde-pay.dmn"]
    assert resources["tde-pay.bpmn"] == render_tde(executor())
    (decision,) = etree.fromstring(resources["tde-pay.dmn"]).iter(f"{DMN}decision")
    assert decision.get("id").startswith("tde-pay-inputs-")


def test_changed_mappings_are_another_decision():
    def ids(*sources):
        xml = render_mappings(executor(outputs=[{"source": source, "target": "x"} for source in sources]))
        return [decision.get("id") for decision in etree.fromstring(xml).iter(f"{DMN}decision")]

    assert ids("=a") == ids("=a") != ids("=b")
    assert ids("=a", "=b") != ids("=a,=b")


def test_rendering_depends_on_the_executor_alone():
    assert render_tde(executor()) == render_tde(executor(concurrency=7))
    assert render_tde(executor()) != render_tde(executor(description="other"))


def test_markup_in_a_description_stays_text():
    text = "</bpmn:documentation>{{ name }} & <zeebe:taskDefinition type='x'/>\x00\x1f"
    root = etree.fromstring(render_tde(executor(description=text)))
    documentation = root.findtext(f"{BPMN}process/{BPMN}documentation")
    assert documentation == text.replace("\x00", "\ufffd").replace("\x1f", "\ufffd")


@given(st.text().filter(lambda source: "assert" not in source))
def test_feel_reaches_the_engine_as_it_was_written(source):
    mapping = {"source": f"={source}", "target": "a.b"}
    root = etree.fromstring(render_mappings(executor(inputs=[mapping], outputs=[mapping, mapping])))
    expected = "".join(c if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff") else "\ufffd" for c in source)
    once, twice = [text.text for text in root.iter(f"{DMN}text")]
    assert (once, twice) == (f"[\n{expected}\n\n]", f"[\n{expected}\n,\n{expected}\n\n]")


def test_kernel_processes_are_found_and_named():
    assert {"prokos-boot.bpmn", "prokos-pdo.bpmn", "prokos-route.bpmn"} <= set(kernel_processes())
