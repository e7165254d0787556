"""Figures: what was measured, what stands beside it, and whether the goal holds."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

_BROKEN = "it broke, see what was printed"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `beside` is the value next to it in the same unit, if there is one."""

    figure: str
    value: float
    unit: str
    beside: float | None
    ratio: float | None
    goal: str
    holds: bool

    @classmethod
    def of_broken(cls, name: str) -> "Figure":
        """In the place of figures that could not be measured: 0 of nothing, which never holds."""
        return cls(f"{name}: {_BROKEN}", 0, "", None, None, "to be measured", holds=False)

    @property
    def broken(self) -> bool:
        """Whether it could not be measured."""
        return self.figure.endswith(_BROKEN)

    @classmethod
    def ratio_of(
        cls,
        figure: str,
        unit: str,
        values: Sequence[float],
        beside: Sequence[float],
        *,
        least: float | None = None,
        most: float | None = None,
        value_most: float | None = None,
    ) -> "Figure":
        """The median of several rounds beside that of as many rounds of the other.

        The ratio has to be at `least` or at `most` so much, and the value at most `value_most`.
        """
        value, other = median(values), median(beside)
        ratio = value / other
        holds = ratio >= least if least is not None else most is not None and ratio <= most
        goal = f">= {least:g} x" if least is not None else f"<= {most:g} x"
        if value_most is not None:
            holds = holds and value <= value_most
            goal = f"<= {value_most:g} {unit} and {goal}"
        return cls(figure, _cut(value), unit, _cut(other), _cut(ratio), goal, holds)

    @classmethod
    def beside_limit(
        cls,
        figure: str,
        unit: str,
        values: Sequence[float],
        limit: Sequence[float],
        *,
        value_least: float | None = None,
        value_most: float | None = None,
    ) -> "Figure":
        """The same where the goal is on the value alone, and what stands beside it is what nothing
        could be better than.
        """
        value, other = median(values), median(limit)
        holds, goal = True, "none"
        if value_least is not None:
            holds, goal = value >= value_least, f">= {value_least:,g} {unit}"
        if value_most is not None:
            holds, goal = value <= value_most, f"<= {value_most:,g} {unit}"
        return cls(figure, _cut(value), unit, _cut(other), _cut(value / other), goal, holds)


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return quantiles(values, n=100, method="inclusive")[98]


def _cut(value: float) -> float:
    return float(f"{value:.4g}")


def write(figures: Sequence[Figure], file: Path) -> None:
    """Write the figures for programs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def table(figures: Sequence[Figure]) -> str:
    """The figures for people."""
    rows = [("figure", "value", "beside", "ratio", "goal", "holds")]
    rows += [
        (
            each.figure,
            f"{each.value:g} {each.unit}",
            "" if each.beside is None else f"{each.beside:g} {each.unit}",
            "" if each.ratio is None else f"{each.ratio:.2f}",
            each.goal,
            "yes" if each.holds else "NO",
        )
        for each in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def machine() -> str:
    """What it was measured on, in a few words."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {name}, {memory:.0f} GB, Python {platform.python_version()}"
