"""Whether the ledger's story is whole: every recording that came due is in it as erased, none
early, none twice, none left out.

It is read from an export: each entry's canonical bytes on a line of its own, in their order, then
an empty line and the signed checkpoint. Nothing else is needed but the public key.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from archive import merkle, nights
from archive.certificate import BEGIN
from archive.ledger import instant
from archive.merkle import Growth

LATE = timedelta(days=1)
"""How long after its instant a recording that is not erased counts as left out: by then a nightly
job has run.
"""

_GONE = "gone"
_OTHER = (b'{"act":"listened"', b'{"act":"searched"', b'{"act":"viewed"')

MOST = 100
"""Faults that are told one by one."""

_TEXT = rb'"([^"\\]*)"'
_USUAL = re.compile(
    rb'\{"act":"(stored|erased)","actor":"[^"\\]*","at":' + _TEXT + rb',"facts":\{'
    rb'(?:"absent":\[[^]\\]*\],"attempt":"[^"\\]*",)?"day":"[^"\\]*","due":' + _TEXT + rb',"rule":'
    rb'"[^"\\]*"\},"recording":' + _TEXT + rb"\}"
)
"""What nearly all entries look like that count here: read several times as fast as any JSON."""


@dataclass(slots=True)
class Story:
    """What was read: the tree, how many recordings came in and were erased, and what is wrong.

    `overdue` are due at `told_until`, the last entry's time, by less than a day. `faults` says what
    is wrong, the first hundred of it.
    """

    growth: Growth = field(default_factory=Growth)
    stored: int = 0
    erased: int = 0
    nights: int = 0
    days_closed: int = 0
    overdue: int = 0
    told_until: str = ""
    faults: list[str] = field(default_factory=list)
    _due: dict[str, str] = field(default_factory=dict)
    _erased: list[tuple[int, str]] = field(default_factory=list)

    def fault(self, what: str) -> None:
        """Note what is wrong."""
        if len(self.faults) < MOST:
            self.faults.append(what)


def read(lines: Iterable[bytes]) -> Story:
    """Read entries, without their ends of line, in their order."""
    story = Story()
    story.growth = merkle.growth_over(_heard(story, lines))
    _left_out(story)
    return story


def _heard(story: Story, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The hash of each line, after what it tells of was taken into account."""
    line = b""
    for position, line in enumerate(lines):
        yield merkle.leaf_hash(line)
        if usual := _USUAL.fullmatch(line):
            act, at, due, identifier = usual.groups()
            _hear(story, position, act == b"stored", at.decode(), due.decode(), identifier.decode())
        elif not line.startswith(_OTHER):
            _hear_unusual(story, position, line)
    if line:
        try:
            story.told_until = str(json.loads(line)["at"])
        except (KeyError, TypeError, ValueError):
            story.fault("the last entry cannot be read")


def _hear_unusual(story: Story, position: int, line: bytes) -> None:
    try:
        entry = json.loads(line)
        act, at, facts = entry["act"], entry["at"], entry["facts"]
        if act == "night.done":
            _check_night(story, position, facts)
        elif act == "day.closed":
            story.days_closed += 1
        elif act in (*BEGIN, "erased"):
            _hear(story, position, act in BEGIN, at, facts["due"], entry["recording"])
    except (KeyError, TypeError, ValueError):
        story.fault(f"entry {position} cannot be read")


def _hear(
    story: Story,
    position: int,
    begins: bool,
    at: str,
    due: str,
    identifier: str,
) -> None:
    """Take into account that a recording came in, or was erased."""
    known = story._due.get(identifier)
    if begins:
        story.stored += 1
        if known is None:
            story._due[identifier] = due
        elif known == _GONE:
            story.fault(f"entry {position}: {identifier} comes back after it was erased")
        elif known != due:
            story.fault(f"entry {position}: {identifier} is given another due time")
        return
    story.erased += 1
    story._erased.append((position, identifier))
    story._due[identifier] = _GONE
    if known == _GONE:
        story.fault(f"entry {position}: {identifier} is erased a second time")
    elif known is None:
        story.fault(f"entry {position}: {identifier} is erased and was never stored")
    elif known != due:
        story.fault(f"entry {position}: {identifier} is erased by another due time")
    if at < due:  # both in the ledger's one form, so that their order is that of the texts
        story.fault(f"entry {position}: {identifier} is erased before it is due")


def _check_night(story: Story, position: int, facts: dict[str, Any]) -> None:
    """Make the night's account again from the entries that it is about."""
    story.nights += 1
    since, upto = facts["since"], facts["upto"]
    gone = [UUID(each) for at, each in story._erased if since <= at < upto]
    story._erased = [one for one in story._erased if one[0] >= upto]
    failed = [UUID(each) for each in facts["failed_ids"]]
    if facts["failed"] == len(failed) and nights.root_over(gone, failed).hex() != facts["root"]:
        story.fault(f"entry {position}: the night's root is not that of what it is about")
    if facts["erased"] != len(gone) or facts["due"] != facts["erased"] + facts["failed"]:
        story.fault(f"entry {position}: the night's counts are not those of the entries")


def _left_out(story: Story) -> None:
    """What was due when the story ends and is not in it as erased."""
    if not story.told_until:
        return
    late = instant(datetime.fromisoformat(story.told_until) - LATE)
    for identifier, due in story._due.items():
        if due == _GONE:
            continue
        if due <= late:
            story.fault(f"{identifier} was due at {due} and is not erased")
        elif due <= story.told_until:
            story.overdue += 1
