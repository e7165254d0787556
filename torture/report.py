"""Rows: what is promised, how often it was tried and failed, and whether the goal holds."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

_TOLD = 20
"""Faults of a row that are told one by one."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much is tried: so many times, and nothing is begun after `end` (of the steady clock)."""

    tries: int
    end: float = math.inf

    def allows(self, done: int) -> bool:
        """Whether one more may be begun."""
        return done < self.tries and time.monotonic() < self.end

    def of(self, tries: int) -> "Limit":
        """Another count, until the same end."""
        return Limit(tries, self.end)


@dataclass(slots=True)
class Tally:
    """What is counted while a promise is tried; `faults` tells of the first that failed."""

    tried: int = 0
    failed: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, held: bool, what: str) -> None:
        """Count one try, and tell `what` was wrong if it did not hold."""
        self.tried += 1
        if not held:
            self.fail(what)

    def fail(self, what: str) -> None:
        """Count what went wrong with something that is counted as tried already."""
        self.failed += 1
        if len(self.faults) < _TOLD:
            self.faults.append(what)


def total(*tallies: Tally) -> Tally:
    """All of them together; what failed is told where it was counted."""
    return Tally(sum(each.tried for each in tallies), sum(each.failed for each in tallies))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. It holds when nothing failed, and as much was tried as it should."""

    promise: str
    test: str
    tried: int
    failed: int
    goal: str
    holds: bool
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, promise: str, test: str, tally: Tally, least: int, what: str) -> "Row":
        """The row of a tally; `what` the goal's number counts."""
        return cls(
            promise,
            test,
            tally.tried,
            tally.failed,
            f"0 of {least:,} {what}" if least > 1 else f"0 of all {what}",
            tally.failed == 0 and tally.tried >= least,
            tuple(tally.faults),
        )

    def facts(self) -> dict[str, object]:
        """As the file has it."""
        facts = asdict(self)
        del facts["faults"]
        return facts


def write(rows: Sequence[Row], file: Path) -> None:
    """Write the rows for programs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([row.facts() for row in rows], indent=1) + "\n")


def table(rows: Sequence[Row]) -> str:
    """The rows for people, and under them what failed."""
    cells = [("promise", "test", "tried", "failed", "goal", "holds")]
    cells += [
        (
            row.promise,
            row.test,
            f"{row.tried:,}",
            f"{row.failed:,}",
            row.goal,
            "yes" if row.holds else "NO",
        )
        for row in rows
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(6)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines + [f"FAILED  {fault}" for row in rows for fault in row.faults])
