"""Whether the ledger's story is whole: every recording that came due is in it as erased, none
early but what two keys granted, none twice, none left out but what was told as lost before; and
each was filed under the day on which it was due, whose key ended with it.

It is read from an export: each entry's canonical bytes on a line of its own, in their order, then
an empty line and the signed checkpoint. Nothing else is needed but the public key.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from archive import nights
from archive.certificate import BEGIN, GRANTED, by_two
from archive.ledger import instant
from archive.retention import is_day_of, last_due

LATE = timedelta(days=1)
"""How long after its instant a recording that is not erased counts as left out, and an erasure as
late: by then a nightly job has run.
"""

_GONE = b"gone"
_OTHER = re.compile(
    rb'\{"act":"(?:listened|searched|viewed)","actor":"[^"\\]*","at":"([^"\\]{27})"'
)
"""What counts here for its time alone."""

MOST = 100
"""Faults that are told one by one."""

_USUAL = re.compile(
    rb'\{"act":"(stored|erased)","actor":"[^"]*","at":"([^"]*)","facts":\{'
    rb'(?:"absent":\[[^]]*\],"attempt":"[^"]*",)?"day":"([^"]{10}","due":"[^"]{27}","rule":'
    rb'"[^"]*)"\},"recording":"([^"]*)"\}'
)
"""What nearly all entries look like that count here: read several times as fast as any JSON. It is
for lines without a backslash, so that a text ends at the next quotation mark. The day, the due time
and the rule are one piece, as they stand there: that is what is kept of a recording.
"""

_DAYS, _DUE, _RULE = slice(29), slice(19, 46), slice(56, None)
"""Where it has the day and the due time's own day, the due time, and the rule."""


class _Rules(dict[tuple[bytes, bytes, bytes], list[Any]]):
    """By the day on which something is told as stored, its day with that of its due time, and its
    rule: what is wrong with these, if anything; and how many there are.
    """

    def __missing__(self, key: tuple[bytes, bytes, bytes]) -> list[Any]:
        told, days, rule = (_text(each) for each in key)
        self[key] = found = [_against_rule(told, days[:10], days[-10:], rule), 0]
        return found


def _against_rule(told: str, day: str, due: str, rule: str) -> str:
    try:
        due_on, last = date.fromisoformat(due), last_due(date.fromisoformat(told), rule)
        filed = is_day_of(date.fromisoformat(day), due_on)
    except (ValueError, OverflowError):
        return "has a time or a rule that cannot be read"
    if due_on > last:
        return "is due later than its rule says"
    return "" if filed else "is filed under another day than that of its due time"


@dataclass(slots=True)
class Story:
    """What was read: how many entries, how many recordings came in and were erased, what is wrong.

    `rules` are those by which recordings came in, the most frequent hundred, and of how many each.
    `early` are the erasures before their instant that two keys granted. `late` are those over a
    day after it: a promise that was not kept, told truly. `lost` are those of which it was told
    before they were due that nothing is left, and never that they were found: a loss, and nothing
    hidden. `told_until` is the latest time that an entry bears: not the last one's, since
    who can write one more entry could date it back. `overdue` are due then, by less than a day.
    `faults` says what is wrong, `grants` and `lately` which erasures were early and late, `losses`
    what is lost, the first hundred of each.
    """

    entries: int = 0
    stored: int = 0
    erased: int = 0
    nights: int = 0
    days_closed: int = 0
    overdue: int = 0
    early: int = 0
    late: int = 0
    lost: int = 0
    told_until: str = ""
    rules: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)
    lately: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    # Ids and what is kept stay the bytes that they were read as: a million are not made into text.
    _kept: dict[bytes, bytes] = field(default_factory=dict)
    _rules: _Rules = field(default_factory=_Rules)
    _granted: set[bytes] = field(default_factory=set)
    _closed: set[date] = field(default_factory=set)
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
    _tell_lost(story)
    _left_out(story)
    rules = Counter[str]()
    for (*_, rule), (_, count) in story._rules.items():
        rules[_text(rule)] += count
    story.rules = dict(rules.most_common(MOST))
    return story


def _hear_all(story: Story, lines: Iterable[bytes], now: str) -> None:
    position, latest, until = -1, b"", now.encode()
    usual_of, other_of, kept, rules = _USUAL.fullmatch, _OTHER.match, story._kept, story._rules
    for position, line in enumerate(lines):
        if b"\\" not in line and (usual := usual_of(line)):
            act, at, told, identifier = usual.groups()
            if act != b"stored":
                _hear_erased(story, position, at, told, identifier)
            elif identifier in kept or (known := rules[at[:10], told[_DAYS], told[_RULE]])[0]:
                _hear_begun(story, position, at, told, identifier)
            else:  # most entries: no call for these
                kept[identifier] = told
                story.stored += 1
                known[1] += 1
        elif other := other_of(line):
            at = other[1]
        else:
            at = _hear_unusual(story, position, line, latest).encode()
        if latest < at <= until:
            latest = at
    story.entries, story.told_until = position + 1, latest.decode(errors="replace")


def _hear_unusual(story: Story, position: int, line: bytes, latest: bytes) -> str:
    """Take any entry into account; returns its time, or nothing if it cannot be read.

    `latest` is the latest time that was told before it.
    """
    try:
        entry = json.loads(line)
        act, facts, whose = entry["act"], entry["facts"], entry.get("recording")
        at = instant(datetime.fromisoformat(entry["at"]))
        if act == "night.done":
            _check_night(story, position, facts)
        elif act == "day.closed":
            _check_closing(story, position, at, date.fromisoformat(facts["day"]))
        elif act == GRANTED:
            if by_two(facts):
                story._granted.add(_bytes(whose))
        elif act in BEGIN:
            _hear_begun(story, position, _bytes(at), _kept(facts), _bytes(whose))
        elif act == "erased":
            _hear_erased(story, position, _bytes(at), _kept(facts), _bytes(whose))
        elif act == "recording.lost":
            _hear_lost(story, position, latest, _bytes(at), _kept(facts), _bytes(whose))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        story.fault(f"entry {position} cannot be read")
        return ""
    return at


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError("an id or a time of an entry is no text")
    return text.encode()


def _kept(facts: dict[str, Any]) -> bytes:
    """What is kept of a recording, as `_USUAL` has it. Raises what comes of facts that are none."""
    day, due, rule = (_bytes(facts[name]) for name in ("day", "due", "rule"))
    if (len(day), len(due)) != (10, 27):
        raise ValueError("a day or a due time has not its one form")
    return b'%b","due":"%b","rule":"%b' % (day, due, rule)


def _hear_begun(story: Story, position: int, at: bytes, told: bytes, identifier: bytes) -> None:
    """Take into account that a recording came in, or is there again."""
    known, ruled = story._kept.get(identifier), story._rules[at[:10], told[_DAYS], told[_RULE]]
    if ruled[0]:
        _wrong(story, position, identifier, ruled[0])
    story._lost.pop(identifier, None)  # it was found
    if known is None:
        story.stored += 1
        ruled[1] += 1
        story._kept[identifier] = told
    elif known == _GONE:
        _wrong(story, position, identifier, "comes back after it was erased")
    elif known != told:
        _wrong(story, position, identifier, f"is given another {_other(known, told)}")


def _hear_erased(story: Story, position: int, at: bytes, told: bytes, identifier: bytes) -> None:
    """Take into account that a recording was erased."""
    known, due = story._kept.get(identifier), told[_DUE]
    story.erased += 1
    story._erased.append((position, identifier))
    story._kept[identifier] = _GONE
    if known == _GONE:
        _wrong(story, position, identifier, "is erased a second time")
    elif known is None:
        _wrong(story, position, identifier, "is erased and was never stored")
    elif known != told:
        _wrong(story, position, identifier, f"is erased by another {_other(known, told)}")
    if at > story._ahead:
        _wrong(story, position, identifier, "is erased at a time that has not come yet")
    # Both in the ledger's one form, so that their order is that of the texts.
    if at < due:
        _hear_early(story, position, at, due, identifier)
    if at[:10] > due[:10]:  # by their days: that lets nearly all pass
        _hear_late(story, position, at, due, identifier)


def _hear_early(story: Story, position: int, at: bytes, due: bytes, identifier: bytes) -> None:
    if identifier not in story._granted:
        _wrong(story, position, identifier, "is erased before it is due")
        return
    story.early += 1
    if len(story.grants) < MOST:
        told = f"{_text(identifier)} was due at {_text(due)} and is erased at {_text(at)}"
        story.grants.append(f"entry {position}: {told}, as two keys granted")


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
    story: Story, position: int, latest: bytes, at: bytes, told: bytes, identifier: bytes
) -> None:
    """Take into account that nothing is left of a recording. It excuses no erasing that was due by
    then; nor if it is dated back, for then anything could be told as lost that was to be erased.
    """
    known = story._kept.get(identifier)
    if known is None:
        _wrong(story, position, identifier, "is lost and was never stored")
    elif known == _GONE:
        _wrong(story, position, identifier, "is lost after it was erased")
    elif known != told:
        _wrong(story, position, identifier, f"is lost by another {_other(known, told)}")
    elif max(at, latest) < told[_DUE]:
        story._lost.setdefault(identifier, at)


def _other(known: bytes, told: bytes) -> str:
    """What of two things that are kept is not the same."""
    day = "day" if known[_DAYS] != told[_DAYS] else "rule"
    return "due time" if known[_DUE] != told[_DUE] else day


def _wrong(story: Story, position: int, identifier: bytes, what: str) -> None:
    story.fault(f"entry {position}: {_text(identifier)} {what}")


def _text(told: bytes) -> str:
    """What an entry says, without the characters that would steer a terminal."""
    text = told.decode(errors="replace")
    return "".join(char if char.isprintable() else "?" for char in text)


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
    if len(failed) != min(facts["failed"], nights.NAMED):
        story.fault(f"entry {position}: the night does not name what failed")
    if facts["failed"] == len(failed) and nights.root_over(gone, failed).hex() != facts["root"]:
        story.fault(f"entry {position}: the night's root is not that of what it is about")
    if facts["erased"] != len(gone) or facts["due"] != facts["erased"] + facts["failed"]:
        story.fault(f"entry {position}: the night's counts are not those of the entries")


def _check_closing(story: Story, position: int, at: str, day: date) -> None:
    """A day is closed once, when it is over: in the first zones UTC still has the same day."""
    story.days_closed += 1
    if day in story._closed:
        story.fault(f"entry {position}: {day} is closed a second time")
    if day.isoformat() > at[:10]:
        story.fault(f"entry {position}: {day} is closed before it is over")
    story._closed.add(day)


def _tell_lost(story: Story) -> None:
    """What is lost when the story ends."""
    for identifier, at in story._lost.items():
        if (kept := story._kept[identifier]) != _GONE:
            story.lost += 1
            if len(story.losses) < MOST:
                due = _text(kept[_DUE])
                told = f"{_text(identifier)} is due at {due} and is lost since {_text(at)}"
                story.losses.append(told)


def _left_out(story: Story) -> None:
    """What was due when the story ends and is not in it as erased."""
    if not story.told_until:
        return
    try:
        late = instant(datetime.fromisoformat(story.told_until) - LATE).encode()
    except (ValueError, OverflowError):
        story.fault(f"it is told until {story.told_until}, which is no time")
        return
    until = story.told_until.encode()
    for identifier, kept in story._kept.items():
        if kept == _GONE or (due := kept[_DUE]) > until or identifier in story._lost:
            continue
        if due <= late:
            story.fault(f"{_text(identifier)} was due at {_text(due)} and is not erased")
        else:
            story.overdue += 1
