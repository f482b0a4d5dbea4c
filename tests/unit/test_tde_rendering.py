from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from prokos.processes import (
    kernel_processes,
    read_bpmn,
    render_tde,
    tde_job_type,
    tde_message,
    tde_output_job_type,
    tde_process_id,
)
from prokos.resources import TaskExecutor

ZEEBE = "{http://camunda.org/schema/zeebe/1.0}"
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


def test_an_executor_with_outputs_has_an_output_job():
    xml = render_tde(executor(outputs=[{"source": "=output.id", "target": "paymentId"}]))
    assert job_types(xml) == [tde_job_type("pay"), tde_output_job_type("pay")]


def test_rendering_depends_on_the_executor_alone():
    assert render_tde(executor()) == render_tde(executor(concurrency=7))
    assert render_tde(executor()) != render_tde(executor(description="other"))


def test_markup_in_a_description_stays_text():
    text = "</bpmn:documentation>{{ name }} & <zeebe:taskDefinition type='x'/>\x00\x1f"
    root = etree.fromstring(render_tde(executor(description=text)))
    documentation = root.findtext(f"{BPMN}process/{BPMN}documentation")
    assert documentation == text.replace("\x00", "\ufffd").replace("\x1f", "\ufffd")


@given(st.text(), st.text())
def test_feel_reaches_the_engine_as_it_was_written(source, description):
    mapping = {"source": f"={source}", "target": "a.b"}
    root = etree.fromstring(render_tde(executor(description=description, inputs=[mapping], outputs=[mapping])))
    expected = "".join(c if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff") else "\ufffd" for c in f"={source}")
    written = [found.get("source") for name in ("input", "output") for found in root.iter(f"{ZEEBE}{name}")]
    assert written == [expected, expected]


def test_kernel_processes_are_found_and_named():
    assert {"prokos-boot.bpmn", "prokos-pdo.bpmn", "prokos-route.bpmn"} <= set(kernel_processes())


@pytest.mark.parametrize("field", ["inputs", "outputs"])
@pytest.mark.parametrize("source", ["=assert(a, a > 1)", "= if b then assert (a, true) else 1"])
def test_an_assertion_is_refused_since_its_failure_would_be_the_tde_s(field: str, source: str):
    with pytest.raises(ValueError, match="say what must hold in inputSchema or outputSchema"):
        executor(**{field: [{"source": source, "target": "x"}]})


def test_a_variable_may_be_called_as_it_likes():
    executor(inputs=[{"source": "=assertion + my.assert", "target": "x"}])
