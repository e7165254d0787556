"""The ledger: who did what, when. Entries are only ever added.

An entry holds no personal data: the actor is a key's id, the recording its random id. What would
tell of people (the terms of a search) is sealed under the key of an expiry day, and ends with it.
An entry is written in the transaction of the act that it tells of, or, for a read, before the first
byte leaves; it then waits for its place, which `storage.tree` gives within a second.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

import asyncpg

from archive.certificate import BEGIN
from archive.ledger import Entry, Wanted, canonical, instant
from archive.retention import Expiry
from storage import boxes
from storage.database import Connection
from storage.keyring import Ring

SYSTEM = "system"
"""The actor of what the clock starts."""

MOST = 60_000
"""Bytes of an entry's facts: the whole of it has to go into a bundle (`archive.tiles.LONGEST`)."""

COLUMNS = "position, at, actor, act, recording, facts, sealed"
"""What `from_row` needs."""

DECIDED = (
    "EXISTS (SELECT FROM ledger g WHERE g.recording = l.recording AND g.position < l.position"
    " AND (g.act = 'erasure.granted' AND g.facts->'keys'->>0 <> g.facts->'keys'->>1"
    " OR g.act = 'fuse.let_go'))"
)
"""The condition in SQL, on an entry `l` of `erased`, that people decided on it before."""

_EARLY = (
    "EXISTS (SELECT FROM ledger s WHERE s.recording = l.recording AND s.position < l.position"
    " AND s.act IN ('stored', 'rebuilt') AND s.facts->>'due' >"
    """ to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))"""
    f" AND NOT {DECIDED}"
)
"""The same, that it is told before what told of the storing says that it is due, and nobody decided
so. The archive's own erasing writes no such entry, and nothing is destroyed on its word.
"""

_LONGEST = 200  # characters of a rule


async def record(
    connection: Connection,
    actor: str,
    act: str,
    *,
    recording: UUID | None = None,
    facts: Mapping[str, object] | None = None,
    sealed: tuple[date, bytes] | None = None,
) -> None:
    """Add one entry. `facts` must hold nothing personal; `sealed` comes from `seal`.

    Raises TypeError for facts that have no one form, ValueError for too many: the ledger could not
    tell of them (`storage.tree`).
    """
    text = canonical(dict(facts or {}))
    if len(text) > MOST:
        raise ValueError(f"the facts of `{act}` are longer than an entry can be")
    ends_on, details = sealed or (None, None)
    await connection.execute(
        "INSERT INTO ledger_waiting (actor, act, recording, facts, ends_on, details)"
        " VALUES ($1, $2, $3, $4::text::jsonb, $5, $6)",
        actor,
        act,
        recording,
        text.decode(),
        ends_on,
        details,
    )


def due(expiry: Expiry) -> dict[str, object]:
    """What an entry tells of when a recording is due, and by which rule."""
    return {"day": expiry.on.isoformat(), "due": instant(expiry.at), "rule": expiry.rule}


def expiry(facts: Mapping[str, object]) -> Expiry | None:
    """What `due` wrote. None for anything else: who adds entries can write what they like."""
    on, at, rule = day(facts.get("day")), facts.get("due"), facts.get("rule")
    if on is None or not isinstance(at, str) or not isinstance(rule, str) or len(rule) > _LONGEST:
        return None
    try:
        found = Expiry(datetime.fromisoformat(at), on, rule)
        return found if instant(found.at) == at else None
    except (ValueError, OverflowError):
        return None


def day(told: object) -> date | None:
    """The day that an entry names; None for what is none."""
    try:
        found = date.fromisoformat(str(told))
    except ValueError:
        return None
    return found if found.isoformat() == told else None


def seal(ring: Ring, day: date, details: Mapping[str, object]) -> tuple[date, bytes]:
    """Seal what would tell of people until this day is closed: `Policy.furthest`, a year from now.

    Returns the day and the box, for `record`. Raises KeyRingError.
    """
    ring.ensure(day, day)
    plain = json.dumps(details, ensure_ascii=False, sort_keys=True).encode()
    return day, boxes.seal(_key(ring, day), plain)


def unseal(ring: Ring, day: date, details: bytes) -> dict[str, object]:
    """Open what `seal` sealed. Raises InvalidTag when it was changed, NoDayKeyError at its end."""
    return dict(json.loads(boxes.unseal(_key(ring, day), details)))


def _key(ring: Ring, day: date) -> bytes:
    return boxes.key_for(ring.day_key(day), b"ledger details")


async def page(lent: Connection, first: int, limit: int) -> list[Entry]:
    """Entries from a position on, oldest first."""
    rows = await lent.fetch(
        f"SELECT {COLUMNS} FROM ledger WHERE position >= $1"  # noqa: S608 - our own words
        " ORDER BY position LIMIT $2",
        first,
        limit,
    )
    return [from_row(row) for row in rows]


async def find(lent: Connection, wanted: Wanted, limit: int) -> list[Entry]:
    """Entries that are looked for, newest first: by their times, which may differ from the order of
    their positions by as much as one transaction took.
    """
    tests = {
        "act = {}": wanted.act,
        "at >= {}": wanted.since,
        "at < {}": wanted.until,
        "recording = {}": wanted.recording,
        "position = {}": wanted.position,
        "(at, position) < (SELECT at, position FROM ledger WHERE position = {})": wanted.before,
    }
    asked = {test: value for test, value in tests.items() if value is not None}
    places = [test.format(f"${number}") for number, test in enumerate(asked, 2)]
    rows = await lent.fetch(
        f"SELECT {COLUMNS} FROM ledger WHERE {' AND '.join(['true', *places])}"  # noqa: S608
        " ORDER BY at DESC, position DESC LIMIT $1",
        limit,
        *asked.values(),
    )
    return [from_row(row) for row in rows]


async def fates(lent: Connection, asked: Sequence[UUID]) -> dict[UUID, str]:
    """What the ledger last tells of recordings: `erased`, or an act by which they came to be. One
    that is told as erased before its time is not believed to be.
    """
    rows = await lent.fetch(
        "SELECT DISTINCT ON (recording) recording, act FROM ledger l WHERE recording = ANY($1)"  # noqa: S608
        f" AND act = ANY($2) AND (act <> 'erased' OR NOT ({_EARLY}))"
        " ORDER BY recording, act = 'erased' DESC",
        asked,
        [*BEGIN, "erased"],
    )
    return {row["recording"]: row["act"] for row in rows}


def from_row(row: asyncpg.Record) -> Entry:
    """The entry of a row, without its sealed part."""
    return Entry(
        row["position"],
        row["at"],
        row["actor"],
        row["act"],
        row["recording"],
        row["facts"],
        row["sealed"],
    )
