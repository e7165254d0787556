"""What is due on a day is known long before: how that is written down, and how compared.

Each night the recordings that will be due on each expiry day are counted, and a Merkle root is made
over their ids. The next night, and again before anything of the day is erased, the day's set must
be that one, and besides it only what the ledger shows stored since. One that is there besides was
moved or put there, one that is missing was moved away or lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from statistics import median

from archive import merkle
from archive.merkle import Growth

NAMED = 3
"""How many days a message names."""

FEW = 100
"""So many may fall due on a day without having been known before."""

TIMES = 3
"""And so many times what is usual."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is due on a day: how many recordings, and the root over their ids in their order."""

    count: int
    root: bytes


NOTHING = Line(0, merkle.EMPTY)


@dataclass(slots=True)
class Tally:
    """A day's set while it is looked through: what was there at the last freeze, and what to freeze
    now. `since` were stored in between.
    """

    since: int = 0
    _then: Growth = field(default_factory=Growth)
    _now: Growth | None = None

    def add(self, identifier: str, *, then: bool, now: bool) -> None:
        """Add the next recording: whether it counts as known then, and whether now.

        The two trees are one as long as they are the same, which spares half of the hashing.
        """
        leaf = merkle.leaf_hash(identifier.encode())
        if then != now and self._now is None:
            self._now = deepcopy(self._then)
        if then:
            self._then.add(leaf)
        else:
            self.since += 1
        if now and self._now is not None:
            self._now.add(leaf)

    @property
    def then(self) -> Line:
        """What is still there of what was there at the last freeze."""
        return Line(self._then.size, self._then.root)

    @property
    def now(self) -> Line:
        """What there is now."""
        growth = self._then if self._now is None else self._now
        return Line(growth.size, growth.root)


def root_over(lines: Mapping[date, Line]) -> bytes:
    """The Merkle root (RFC 9162) over `<day> <count> <root>`, in the order of the days."""
    texts = (f"{day} {line.count} {line.root.hex()}" for day, line in sorted(lines.items()))
    return merkle.growth_over(merkle.leaf_hash(text.encode()) for text in texts).root


def differences(
    frozen: Mapping[date, Line], found: Mapping[date, Tally], stored: Mapping[date, int]
) -> str:
    """In words, on which days the set is not the frozen one and what was stored since; or nothing.

    `stored` says of how many the ledger shows that they were stored since.
    """
    faults = [
        fault
        for day in sorted({*frozen, *found, *stored})
        if (
            fault := _difference(
                day, frozen.get(day, NOTHING), found.get(day, Tally()), stored.get(day, 0)
            )
        )
    ]
    if not faults:
        return ""
    more = f"; and {len(faults) - NAMED} more days" if len(faults) > NAMED else ""
    return "what is due is not what was frozen: " + "; ".join(faults[:NAMED]) + more


def _difference(day: date, frozen: Line, found: Tally, stored: int) -> str:
    if found.then == frozen and found.since == stored:
        return ""
    others = ", but others" if found.then.count == frozen.count and found.then != frozen else ""
    return (
        f"{day.isoformat()}: frozen {frozen.count}, of them now {found.then.count}{others};"
        f" stored since {stored}, of them now {found.since}"
    )


def cap(before: Iterable[int]) -> int:
    """How many may fall due on a day that were not known a day ago, by the days before it."""
    counts: Sequence[int] = sorted(before)
    return max(FEW, int(TIMES * median(counts))) if counts else FEW
