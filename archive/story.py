"""Whether the ledger's story is whole: every recording that came due is in it as erased, none
early but what two people granted, none twice, none left out but what was told as lost before.

It is read from an export: each entry's canonical bytes on a line of its own, in their order, then
an empty line and the signed checkpoint. Nothing else is needed but the public key.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from archive import nights
from archive.certificate import BEGIN, GRANTED
from archive.ledger import instant

LATE = timedelta(days=1)
"""How long after its instant a recording that is not erased counts as left out, and an erasure as
late: by then a nightly job has run.
"""

_GONE = b"gone"
_OTHER = (b'{"act":"listened"', b'{"act":"searched"', b'{"act":"viewed"')

MOST = 100
"""Faults that are told one by one."""

_USUAL = re.compile(
    rb'\{"act":"(stored|erased)","actor":"[^"]*","at":"([^"]*)","facts":\{'
    rb'(?:"absent":\[[^]]*\],"attempt":"[^"]*",)?"day":"[^"]*","due":"([^"]*)","rule":'
    rb'"[^"]*"\},"recording":"([^"]*)"\}'
)
"""What nearly all entries look like that count here: read several times as fast as any JSON. It is
for lines without a backslash, so that a text ends at the next quotation mark.
"""


@dataclass(slots=True)
class Story:
    """What was read: how many entries, how many recordings came in and were erased, what is wrong.

    `late` are the erasures that came over a day after their instant: a promise that was not kept,
    told truly. `lost` are those of which it was told before they were due that nothing is left, and
    never that they were found: a loss, and nothing hidden. `told_until` is the latest time that an
    entry bears: not the last one's, since who can write one more entry could date it back.
    `overdue` are due then, by less than a day. `faults` says what is wrong, `lately` which erasures
    were late, `losses` what is lost, the first hundred of each.
    """

    entries: int = 0
    stored: int = 0
    erased: int = 0
    nights: int = 0
    days_closed: int = 0
    overdue: int = 0
    late: int = 0
    lost: int = 0
    told_until: str = ""
    faults: list[str] = field(default_factory=list)
    lately: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    # Ids and times stay the bytes that they were read as: a million of them are not made into text.
    _due: dict[bytes, bytes] = field(default_factory=dict)
    _granted: set[bytes] = field(default_factory=set)
    _lost: dict[bytes, bytes] = field(default_factory=dict)
    _erased: list[tuple[int, bytes]] = field(default_factory=list)
    _accounted: int = 0
    _ahead: bytes = b"~"

    def fault(self, what: str) -> None:
        """Note what is wrong."""
        if len(self.faults) < MOST:
            self.faults.append(what)


def read(lines: Iterable[bytes], now: datetime | None = None) -> Story:
    """Read entries, without their ends of line, in their order.

    Times after `now`, the reader's own, say nothing of how far the story goes: a clock leapt. What
    is told as erased over a day after it was erased early: the database can bend its own clock.
    """
    story = Story()
    if now:
        story._ahead = instant(now + LATE).encode()
    _hear_all(story, lines, instant(now) if now else "~")
    _left_out(story)
    return story


def _hear_all(story: Story, lines: Iterable[bytes], now: str) -> None:
    line, position, latest, until = b"", -1, b"", now.encode()
    usual_of, due_of = _USUAL.fullmatch, story._due
    for position, line in enumerate(lines):
        if b"\\" not in line and (usual := usual_of(line)):
            act, at, due, identifier = usual.groups()
            if act == b"stored" and identifier not in due_of:  # most entries: no call for these
                due_of[identifier] = due
                story.stored += 1
            else:
                _hear(story, position, act == b"stored", at, due, identifier)
        elif line.startswith(_OTHER):
            continue
        else:
            at = _hear_unusual(story, position, line, latest).encode()
        if latest < at <= until:
            latest = at
    if line.startswith(_OTHER):
        at = _hear_unusual(story, position, line, latest).encode()
        latest = max(latest, at if at <= until else b"")
    story.entries, story.told_until = position + 1, latest.decode()


def _hear_unusual(story: Story, position: int, line: bytes, latest: bytes) -> str:
    """Take any entry into account; returns its time, or nothing if it cannot be read.

    `latest` is the latest time that was told before it, but by what is passed over.
    """
    try:
        entry = json.loads(line)
        act, at, facts = entry["act"], entry["at"], entry["facts"]
        if act == "night.done":
            _check_night(story, position, facts)
        elif act == "day.closed":
            story.days_closed += 1
        elif act == GRANTED:
            story._granted.add(_bytes(entry["recording"]))
        elif act in (*BEGIN, "erased"):
            told = (at, facts["due"], entry["recording"])
            _hear(story, position, act in BEGIN, *map(_bytes, told))
        elif act == "recording.lost":
            told = (at, facts["due"], entry["recording"])
            _hear_lost(story, position, latest, *map(_bytes, told))
        return instant(datetime.fromisoformat(at))
    except (KeyError, TypeError, ValueError):
        story.fault(f"entry {position} cannot be read")
        return ""


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError("an id or a time of an entry is no text")
    return text.encode()


def _hear(
    story: Story,
    position: int,
    begins: bool,
    at: bytes,
    due: bytes,
    identifier: bytes,
) -> None:
    """Take into account that a recording came in, or was erased."""
    known = story._due.get(identifier)
    if begins:
        story.stored += 1
        story._lost.pop(identifier, None)  # it was found
        if known is None:
            story._due[identifier] = due
        elif known == _GONE:
            _wrong(story, position, identifier, "comes back after it was erased")
        elif known != due:
            _wrong(story, position, identifier, "is given another due time")
        return
    story.erased += 1
    story._erased.append((position, identifier))
    story._due[identifier] = _GONE
    if known == _GONE:
        _wrong(story, position, identifier, "is erased a second time")
    elif known is None:
        _wrong(story, position, identifier, "is erased and was never stored")
    elif known != due:
        _wrong(story, position, identifier, "is erased by another due time")
    if at > story._ahead:
        _wrong(story, position, identifier, "is erased at a time that has not come yet")
    # Both in the ledger's one form, so that their order is that of the texts.
    if at < due and identifier not in story._granted:
        _wrong(story, position, identifier, "is erased before it is due")
    if at[:10] > due[:10]:  # by their days: that lets nearly all pass
        _hear_late(story, position, at, due, identifier)


def _hear_late(story: Story, position: int, at: bytes, due: bytes, identifier: bytes) -> None:
    try:
        if at <= instant(datetime.fromisoformat(due.decode()) + LATE).encode():
            return
    except (ValueError, OverflowError):
        story.fault(f"entry {position} cannot be read")
        return
    story.late += 1
    if len(story.lately) < MOST:
        told = f"{_text(identifier)} was due at {_text(due)} and is erased at {_text(at)}"
        story.lately.append(f"entry {position}: {told}")


def _hear_lost(
    story: Story, position: int, latest: bytes, at: bytes, due: bytes, identifier: bytes
) -> None:
    """Take into account that nothing is left of a recording.

    It excuses no erasing that was due by then; nor does one that is dated back, for then anything
    could be told as lost that should have been erased.
    """
    known = story._due.get(identifier)
    if known is None:
        _wrong(story, position, identifier, "is lost and was never stored")
    elif known == _GONE:
        _wrong(story, position, identifier, "is lost after it was erased")
    elif known != due:
        _wrong(story, position, identifier, "is lost by another due time")
    elif max(at, latest) < due:
        story._lost.setdefault(identifier, at)


def _wrong(story: Story, position: int, identifier: bytes, what: str) -> None:
    story.fault(f"entry {position}: {_text(identifier)} {what}")


def _text(told: bytes) -> str:
    return told.decode(errors="replace")


def _check_night(story: Story, position: int, facts: dict[str, Any]) -> None:
    """Make the night's account again from the entries that it is about."""
    story.nights += 1
    since, upto = facts["since"], facts["upto"]
    if not story._accounted == since <= upto <= position:
        story.fault(f"entry {position}: the night's account does not go on from the one before")
    story._accounted = upto
    gone = [each.decode() for at, each in story._erased if since <= at < upto]
    story._erased = [one for one in story._erased if one[0] >= upto]
    failed = [UUID(each) for each in facts["failed_ids"]]
    if facts["failed"] == len(failed) and nights.root_over(gone, failed).hex() != facts["root"]:
        story.fault(f"entry {position}: the night's root is not that of what it is about")
    if facts["erased"] != len(gone) or facts["due"] != facts["erased"] + facts["failed"]:
        story.fault(f"entry {position}: the night's counts are not those of the entries")


def _left_out(story: Story) -> None:
    """What is lost when the story ends, and what was due by then and is not in it as erased."""
    for identifier, at in story._lost.items():
        if (due := story._due[identifier]) != _GONE:
            story.lost += 1
            if len(story.losses) < MOST:
                told = f"{_text(identifier)} is due at {_text(due)} and is lost since {_text(at)}"
                story.losses.append(told)
    if not story.told_until:
        return
    until = story.told_until.encode()
    late = instant(datetime.fromisoformat(story.told_until) - LATE).encode()
    for identifier, due in story._due.items():
        if due > until or due == _GONE or identifier in story._lost:
            continue
        if due <= late:
            story.fault(f"{_text(identifier)} was due at {_text(due)} and is not erased")
        else:
            story.overdue += 1
