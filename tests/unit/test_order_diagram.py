"""The diagram of the order example: everything is drawn, and legibly."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from unit.diagrams import BPMN, BPMNDI, ZEEBE, Box, edges, shapes

ORDER = Path(__file__).parents[2] / "examples" / "order"


class Diagram:
    """The order's BPMN as these tests look at it."""

    def __init__(self) -> None:
        self.root = ET.fromstring((ORDER / "order.bpmn").read_text("utf-8"))
        process = self.root.find(f"{BPMN}process")
        assert process is not None
        self.process = process
        connecting = (f"{BPMN}sequenceFlow", f"{BPMN}association")
        self.links = {link.attrib["id"]: link for tag in connecting for link in process.iter(tag)}
        self.nodes = {
            node.attrib["id"]: node for node in process if "id" in node.attrib and node.attrib["id"] not in self.links
        }
        self.shapes = shapes(self.root)
        self.edges = edges(self.root)

    def definition(self, node: str) -> ET.Element:
        found = self.nodes[node].find(f"{BPMN}extensionElements/{ZEEBE}taskDefinition")
        assert found is not None
        return found


@pytest.fixture(name="diagram", scope="module")
def _diagram() -> Diagram:
    return Diagram()


def test_everything_of_the_order_is_drawn(diagram: Diagram) -> None:
    assert set(diagram.shapes) == set(diagram.nodes)
    assert set(diagram.edges) == set(diagram.links)


def test_shapes_overlap_only_where_an_event_sits_on_its_task(diagram: Diagram) -> None:
    overlapping = {
        frozenset((one, other))
        for (one, box), (other, other_box) in itertools.combinations(diagram.shapes.items(), 2)
        if box.meets(other_box)
    }
    assert overlapping == {
        frozenset((name, node.attrib["attachedToRef"]))
        for name, node in diagram.nodes.items()
        if "attachedToRef" in node.attrib
    }


def test_links_are_drawn_at_right_angles_from_border_to_border_and_cross_no_shape(diagram: Diagram) -> None:
    for name, link in diagram.links.items():
        points = diagram.edges[name]
        assert diagram.shapes[link.attrib["sourceRef"]].touches_border(*points[0]), name
        assert diagram.shapes[link.attrib["targetRef"]].touches_border(*points[-1]), name
        for (x, y), (x2, y2) in itertools.pairwise(points):
            assert x == x2 or y == y2, name
            segment = Box(min(x, x2), min(y, y2), max(x, x2), max(y, y2))
            assert [shape for shape, box in diagram.shapes.items() if box.meets(segment)] == [], name


def test_labels_cover_no_shape_and_no_line(diagram: Diagram) -> None:
    segments = [
        Box(min(x, x2), min(y, y2), max(x, x2), max(y, y2))
        for points in diagram.edges.values()
        for (x, y), (x2, y2) in itertools.pairwise(points)
    ]
    for label in diagram.root.iter(f"{BPMNDI}BPMNLabel"):
        box = Box.of(label)
        assert [shape for shape, other in diagram.shapes.items() if box.meets(other)] == []
        assert [segment for segment in segments if box.meets(segment)] == []


def test_process_and_tasks_have_a_name_and_say_why_they_are_there(diagram: Diagram) -> None:
    tasks = [node for node in diagram.nodes.values() if node.tag == f"{BPMN}serviceTask"]
    assert len(tasks) == 5
    for element in [diagram.process, *tasks]:
        assert element.attrib["name"]
        assert element.findtext(f"{BPMN}documentation")


def test_a_declined_payment_releases_what_was_reserved(diagram: Diagram) -> None:
    assert diagram.nodes["ReleaseGoods"].attrib["isForCompensation"] == "true"
    association = diagram.links["UndoReservation_to_ReleaseGoods"].attrib
    assert (association["sourceRef"], association["targetRef"]) == ("UndoReservation", "ReleaseGoods")
    assert diagram.nodes["UndoReservation"].attrib["attachedToRef"] == "ReserveGoods"
    # Zeebe 8.6.0 needs the ids.
    compensations = list(diagram.process.iter(f"{BPMN}compensateEventDefinition"))
    assert len(compensations) == 2
    assert all("id" in compensation.attrib for compensation in compensations)


def test_charging_has_the_attempts_that_a_flaky_service_needs(diagram: Diagram) -> None:
    assert diagram.definition("ChargeCard").attrib == {"type": "charge-card", "retries": "3"}
