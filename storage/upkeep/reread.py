"""The ledger read back: its rows against its tree, and against what of it is published.

The sequencer looks at hashes alone. A row that rots in its table, or that somebody changes under
hashes that he leaves, would be noticed by an auditor, if ever one exports it. So each night rows
are read again, 256 at a time, and hashed as the tree hashed them; every tile is held against the
one above it, up to what was signed. Each bundle of the object store is looked for by the name that
these very entries give it, and one that is gone is put again.

A night reads for a limited time, and the next one goes on behind it; from a row that was wrong each
night begins anew until it is mended.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from archive import merkle
from archive.ledger import Entry
from archive.merkle import Look, Node
from archive.tiles import FULL, STEP
from storage import ledger, published, tree
from storage.database import Connection, connection
from storage.vault import Vault

log = logging.getLogger("archive.reread")

SECONDS = 300.0
"""How long one night reads."""

_BUNDLES = 20
"""How many are read at once."""


@dataclass(slots=True)
class Report:
    """What one run read: the entries from `since` to before `upto`, in bundles of 256.

    `wrong` bundles have an entry that is not what the tree has hashed, or no place in the tree;
    `missing` ones were not in the object store, and are again. The next run begins at `then`.
    """

    since: int
    upto: int
    wrong: int = 0
    missing: int = 0
    then: int = 0

    @property
    def facts(self) -> dict[str, object]:
        """As the ledger tells it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some bundles: their entries as the rows tell them, and the tree's hashes."""

    first: int
    count: int
    texts: Sequence[bytes | None]
    look: Look

    def wrong(self) -> list[int]:
        """Of each bundle that is wrong, where."""
        bundles = range(self.first, self.first + self.count, FULL)
        found = (next(self._wrong_in(first), None) for first in bundles)
        return [place for place in found if place is not None]

    def _wrong_in(self, first: int) -> Iterator[int]:
        stop = min(first + FULL, self.first + self.count)
        try:
            for place in range(first, stop):
                text = self.texts[place - self.first]
                if text is None or merkle.leaf_hash(text) != self.look(Node(0, place)):
                    yield place
            for above in _above(stop):
                left, right = _halves(above)
                if merkle.node_hash(self.look(left), self.look(right)) != self.look(above):
                    yield first
        except LookupError:  # the tree has no such hash
            yield first


def _above(stop: int) -> list[Node]:
    """The hashes in the tiles above that are made with the entry before `stop`."""
    level, found = STEP, list[Node]()
    while stop and stop % (1 << level) == 0:
        found.append(Node(level, (stop >> level) - 1))
        level += STEP
    return found


def _halves(node: Node) -> tuple[Node, Node]:
    return Node(node.level - 1, 2 * node.number), Node(node.level - 1, 2 * node.number + 1)


async def run(vault: Vault, since: int) -> Report:
    """Read on from an entry, for a limited time.

    Raises UnavailableError when database or store is away.
    """
    until = time.monotonic() + SECONDS
    async with connection(vault.pool) as lent:
        head = await lent.fetchrow("SELECT size, published FROM ledger_head")
    if head is None:
        raise RuntimeError("the table `ledger_head` has lost its row")
    since = min(since, head["size"]) // FULL * FULL
    report, wrong = Report(since, since), list[int]()
    while report.upto < head["size"]:
        count = min(_BUNDLES * FULL, head["size"] - report.upto)
        async with connection(vault.pool) as lent:
            part = await _read(lent, report.upto, count)
        found = await asyncio.to_thread(part.wrong)
        report.missing += await _publish(vault, part, head["published"], found)
        report.upto += count
        wrong += found[: 1 if not wrong else 0]
        report.wrong += len(found)
        if time.monotonic() >= until:
            break
    report.then = wrong[0] if wrong else report.upto if report.upto < head["size"] else 0
    _tell(report)
    return report


async def _read(lent: Connection, first: int, count: int) -> _Part:
    rows = {entry.position: _text(entry) for entry in await ledger.page(lent, first, count)}
    bundles = range(first, first + count, FULL)
    nodes = [Node(0, each) for each in bundles]
    for each in bundles:
        for above in _above(min(each + FULL, first + count)):
            nodes += [above, *_halves(above)]
    look = await tree.looking(lent, nodes)
    return _Part(first, count, [rows.get(first + place) for place in range(count)], look)


def _text(entry: Entry) -> bytes | None:
    """What the tree would hash of a row; nothing of one that no entry can look like."""
    try:
        return entry.text
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


async def _publish(vault: Vault, part: _Part, upto: int, wrong: Sequence[int]) -> int:
    """Put the full bundles that should be in the object store and are not; returns how many. What
    is wrong is not put anywhere.
    """
    bad = {place // FULL for place in wrong}
    last = min(part.first + part.count, upto) // FULL
    whole = {}
    for number in range(part.first // FULL, last):
        at = number * FULL - part.first
        if number not in bad:
            whole[number] = [text for text in part.texts[at : at + FULL] if text is not None]
    missing = await published.missing(vault, whole)
    for number in missing:
        log.error("bundle %d of the published ledger was gone, and is put again", number)
        await published.put(vault, number, whole[number])
    return len(missing)


def _tell(report: Report) -> None:
    if report.wrong:
        log.error(
            "%d bundles of the ledger have rows that are not what its tree has hashed, the first"
            " of them at entry %d; docs/operations.md says what to do",
            report.wrong,
            report.then,
        )
