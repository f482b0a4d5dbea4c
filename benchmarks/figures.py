"""From measurements to figures: medians, ratios, slopes, verdicts, tables. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """The figures of several rounds in one: their median, between the least and the most."""

    median: float
    least: float
    most: float

    def show(self, digits: int = 2) -> str:
        """For people."""
        median, least, most = (f"{value:.{digits}f}" for value in (self.median, self.least, self.most))
        return median if least == most else f"{median} ({least} to {most})"


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second value grows as the first grows by one: least squares over at least two points."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, and what it should be."""

    name: str
    value: Spread
    unit: str = ""
    target: float | None = None
    """None: nothing is asked of it."""
    better: Literal["more", "less"] = "less"
    digits: int = 2

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if self.target is None:
            return None
        return self.value.median >= self.target if self.better == "more" else self.value.median <= self.target

    @property
    def measured(self) -> str:
        """The value with its unit."""
        return f"{self.value.show(self.digits)} {self.unit}".strip()

    @property
    def verdict(self) -> list[str]:
        """The target and whether it is met, as two cells of a table."""
        sign = "at least" if self.better == "more" else "at most"
        return [
            "" if self.target is None else f"{sign} {self.target:g}",
            {True: "met", False: "**missed**", None: ""}[self.met],
        ]


def figure_table(figures: Sequence[Figure]) -> str:
    """Figures with their targets, one in a row."""
    return table(
        ["figure", "measured", "target", ""], [[figure.name, figure.measured, *figure.verdict] for figure in figures]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, with columns of equal width so that it can be read as it is."""
    widths = [max(3, *(len(row[column]) for row in [head, *rows])) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])
