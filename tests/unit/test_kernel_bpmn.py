"""The BPMN that ProkOS ships: complete diagrams, consistent names, and a TDE template that survives any text."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from prokos.processes import render_tde
from unit.builders import executor
from unit.diagrams import BPMN, BPMNDI, ZEEBE, Box, edges, shapes

BPMN_DIR = Path(__file__).parents[2] / "bpmn"
KERNEL = sorted((BPMN_DIR / "kernel").glob("*.bpmn"))


HOSTILE = "5 < 6 & \"quoted\" 'single' ]]> </bpmn:documentation>\n\u00e9\u4e16"

AWAITING = {
    "script": None,
    "type": "http",
    "secrets": [{"name": "token", "env": "TOKEN"}],
    "http": {"url": "https://x/", "method": "POST", "callback": {"secret": "token"}},
}
TDES = {
    "plain": executor("plain"),
    "described": executor("described", description=HOSTILE),
    "awaiting": executor("awaiting", **AWAITING),
}


def local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


class Diagram:
    """A BPMN document as the tests look at it."""

    def __init__(self, xml: str) -> None:
        self.root = ET.fromstring(xml)
        process = self.root.find(f"{BPMN}process")
        assert process is not None
        self.process = process
        self.nodes = {
            element.attrib["id"]: element
            for element in process
            if local(element) not in {"documentation", "sequenceFlow", "textAnnotation", "association"}
        }
        self.flows = {flow.attrib["id"]: flow for flow in process.iter(f"{BPMN}sequenceFlow")}
        self.shapes = shapes(self.root)
        self.edges = edges(self.root)

    @property
    def job_types(self) -> list[str]:
        return [definition.attrib["type"] for definition in self.root.iter(f"{ZEEBE}taskDefinition")]

    @property
    def message_names(self) -> list[str]:
        return [message.attrib["name"] for message in self.root.iter(f"{BPMN}message")]


DIAGRAMS = {file.stem: file.read_text("utf-8") for file in KERNEL}
DIAGRAMS |= {f"tde-{name}": render_tde(one).decode() for name, one in TDES.items()}


@pytest.fixture(params=DIAGRAMS, name="diagram")
def _diagram(request: pytest.FixtureRequest) -> Diagram:
    return Diagram(DIAGRAMS[request.param])


def test_kernel_has_its_processes() -> None:
    assert {file.stem for file in KERNEL} == {
        "prokos-boot",
        "prokos-health",
        "prokos-pdo",
        "prokos-register-executor",
        "prokos-register-process",
        "prokos-route",
    }


@pytest.mark.parametrize("name", DIAGRAMS)
def test_process_id_is_the_file_name(name: str) -> None:
    assert Diagram(DIAGRAMS[name]).process.attrib["id"] == name


def test_is_executable_on_the_platform_it_names(diagram: Diagram) -> None:
    modeler = "{http://camunda.org/schema/modeler/1.0}"
    assert diagram.process.attrib["isExecutable"] == "true"
    assert diagram.root.attrib[f"{modeler}executionPlatform"] == "Camunda Cloud"
    assert diagram.root.attrib[f"{modeler}executionPlatformVersion"] == "8.6.0"


def test_every_id_is_used_once(diagram: Diagram) -> None:
    ids = [element.attrib["id"] for element in diagram.root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))


def test_every_job_type_is_ours(diagram: Diagram) -> None:
    assert diagram.job_types
    assert [name for name in diagram.job_types if not name.startswith("prokos.")] == []


def test_every_message_name_is_ours(diagram: Diagram) -> None:
    assert [name for name in diagram.message_names if not name.startswith("prokos.")] == []


def test_every_job_has_three_retries(diagram: Diagram) -> None:
    assert {definition.attrib["retries"] for definition in diagram.root.iter(f"{ZEEBE}taskDefinition")} == {"3"}


def test_process_and_tasks_have_a_name_and_say_why_they_are_there(diagram: Diagram) -> None:
    tasks = [node for node in diagram.nodes.values() if local(node) in {"serviceTask", "callActivity"}]
    for element in [diagram.process, *tasks]:
        assert element.attrib["name"]
        assert element.findtext(f"{BPMN}documentation")


def test_flows_and_nodes_agree(diagram: Diagram) -> None:
    for node_id, node in diagram.nodes.items():
        incoming = {name for name, flow in diagram.flows.items() if flow.attrib["targetRef"] == node_id}
        outgoing = {name for name, flow in diagram.flows.items() if flow.attrib["sourceRef"] == node_id}
        assert {element.text for element in node.findall(f"{BPMN}incoming")} == incoming
        assert {element.text for element in node.findall(f"{BPMN}outgoing")} == outgoing


def test_every_call_activity_calls_a_kernel_process(diagram: Diagram) -> None:
    called = {element.attrib["processId"] for element in diagram.root.iter(f"{ZEEBE}calledElement")}
    assert called <= {file.stem for file in KERNEL}


def test_every_node_has_a_shape_and_every_flow_an_edge(diagram: Diagram) -> None:
    assert set(diagram.nodes) <= set(diagram.shapes)
    assert set(diagram.flows) <= set(diagram.edges)


def test_shapes_overlap_only_where_an_event_sits_on_its_task(diagram: Diagram) -> None:
    attached = {
        frozenset((node_id, node.attrib["attachedToRef"]))
        for node_id, node in diagram.nodes.items()
        if "attachedToRef" in node.attrib
    }
    overlapping = {
        frozenset((one, other))
        for (one, box), (other, other_box) in itertools.combinations(diagram.shapes.items(), 2)
        if box.meets(other_box)
    }
    assert overlapping == attached


def test_flows_are_drawn_from_border_to_border_at_right_angles(diagram: Diagram) -> None:
    for name, flow in diagram.flows.items():
        points = diagram.edges[name]
        assert diagram.shapes[flow.attrib["sourceRef"]].touches_border(*points[0]), name
        assert diagram.shapes[flow.attrib["targetRef"]].touches_border(*points[-1]), name
        assert all(x == x2 or y == y2 for (x, y), (x2, y2) in itertools.pairwise(points)), name


def test_flows_cross_no_shape(diagram: Diagram) -> None:
    for name in diagram.flows:
        for (x, y), (x2, y2) in itertools.pairwise(diagram.edges[name]):
            segment = Box(min(x, x2), min(y, y2), max(x, x2), max(y, y2))
            assert [shape for shape, box in diagram.shapes.items() if box.meets(segment)] == [], name


def test_labels_cover_no_shape(diagram: Diagram) -> None:
    for label in diagram.root.iter(f"{BPMNDI}BPMNLabel"):
        box = Box.of(label)
        assert [shape for shape, other in diagram.shapes.items() if box.meets(other)] == []


@pytest.mark.parametrize("kind", ["executor", "process"])
def test_registration_can_be_called_and_started_by_message(kind: str) -> None:
    diagram = Diagram(DIAGRAMS[f"prokos-register-{kind}"])
    starts = [node for node in diagram.nodes.values() if local(node) == "startEvent"]
    assert sorted(start.find(f"{BPMN}messageEventDefinition") is None for start in starts) == [False, True]
    assert diagram.message_names == [f"prokos.kernel.{kind}-changed"]


@pytest.mark.parametrize("name", ["prokos-health", "prokos-pdo"])
def test_recursive_process_ends_with_a_message_that_is_a_job(name: str) -> None:
    diagram = Diagram(DIAGRAMS[name])
    (end,) = [node for node in diagram.nodes.values() if local(node) == "endEvent"]
    assert end.find(f"{BPMN}messageEventDefinition") is not None
    assert end.find(f"{BPMN}extensionElements/{ZEEBE}taskDefinition") is not None


@pytest.mark.parametrize("name", sorted(TDES.keys() - {"awaiting"}))
def test_tde_is_input_execute_output(name: str) -> None:
    diagram = Diagram(DIAGRAMS[f"tde-{name}"])
    names = {node_id: node.attrib["name"] for node_id, node in diagram.nodes.items()}
    calls = {"Called": "Input", "Execute": "Execute", "Output": "Output"}
    assert names == {**calls, "Dispatched": "Input", "ExecuteTask": "Execute, Output"}
    assert diagram.message_names == [f"prokos.tde.{name}"]


@pytest.mark.parametrize("name", TDES)
def test_every_job_of_a_tde_is_of_one_type(name: str) -> None:
    assert Diagram(DIAGRAMS[f"tde-{name}"]).job_types == [f"prokos.tde.{name}"] * 2


def test_description_becomes_the_documentation_to_the_letter() -> None:
    assert Diagram(DIAGRAMS["tde-described"]).process.findtext(f"{BPMN}documentation") == HOSTILE


def test_rendering_a_tde_twice_gives_the_same_bytes() -> None:
    assert [render_tde(one).decode() for one in TDES.values()] == [DIAGRAMS[f"tde-{name}"] for name in TDES]


def test_rendered_tde_has_no_blank_lines_and_no_template_left() -> None:
    for name in TDES:
        text = re.sub(r"\s*<bpmn:documentation>.*?</bpmn:documentation>", "", DIAGRAMS[f"tde-{name}"], flags=re.DOTALL)
        assert text.startswith("<?xml")
        assert re.search(r"^\s*$|[{}]", text.removesuffix("\n"), flags=re.MULTILINE) is None
