"""BPMN diagrams as tests look at them: where shapes are, and how links run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"
BPMNDI = "{http://www.omg.org/spec/BPMN/20100524/DI}"
DC = "{http://www.omg.org/spec/DD/20100524/DC}"
DI = "{http://www.omg.org/spec/DD/20100524/DI}"
ZEEBE = "{http://camunda.org/schema/zeebe/1.0}"


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, shape: ET.Element) -> Box:
        bounds = shape.find(f"{DC}Bounds")
        assert bounds is not None
        x, y, width, height = (float(bounds.attrib[key]) for key in ("x", "y", "width", "height"))
        return cls(x, y, x + width, y + height)

    def touches_border(self, x: float, y: float) -> bool:
        inside = self.left <= x <= self.right and self.top <= y <= self.bottom
        return inside and (x in (self.left, self.right) or y in (self.top, self.bottom))

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def shapes(root: ET.Element) -> dict[str, Box]:
    """The shapes of a document, by the id of their element."""
    return {shape.attrib["bpmnElement"]: Box.of(shape) for shape in root.iter(f"{BPMNDI}BPMNShape")}


def edges(root: ET.Element) -> dict[str, list[tuple[float, float]]]:
    """The points of the links of a document, by the id of their element."""
    return {
        edge.attrib["bpmnElement"]: [(float(p.attrib["x"]), float(p.attrib["y"])) for p in edge.iter(f"{DI}waypoint")]
        for edge in root.iter(f"{BPMNDI}BPMNEdge")
    }
