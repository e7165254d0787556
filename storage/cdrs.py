"""Call detail records: kept until their recordings are found, and what a record adds to one.

A record is kept for as long as its call could be, at the most: to the earliest expiry that any call
type gives its start, and no longer than the recording that it belongs to. A call that nobody
answered is not kept at all. Who spoke is sealed under the key of the expiry day, and only until the
recording is found: that then has it, if it lacked it.

A record can add to a recording what that does not say itself: direction, numbers, agent, queue,
customer, contract. It replaces nothing, and never touches the start, the type or the id. With queue
and agent a source says who may hear its call, as it does with the recording itself.

A record that comes later adds to the one that is here, or to its recordings, what that did not say;
of a field the first counts. So that this can be told once who spoke is forgotten, and that the same
record can come again and again, `hashes` holds beside the hashes of the call's ids the names of the
fields that were told, and none of what was told.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import asyncpg
from cryptography.exceptions import InvalidTag

from archive import access
from archive.access import Caller, Level
from archive.cdr import FIELDS, Detail, merged
from archive.lifecycle import State
from archive.recording import AHEAD
from archive.retention import Expiry, Policy
from storage import boxes, clocks, ledger, numbers, recordings
from storage.database import Connection, connection
from storage.keyring import NoDayKeyError, Ring, key_to_seal
from storage.sealing import DamagedError
from storage.vault import Vault

BATCH = 500
"""Records that are looked for in one transaction."""

FRESH = timedelta(days=2)
"""How long a record is looked for each minute; after that, each night."""

_LABEL = b"call detail records"

_KEPT = "r.state IN ('stored', 'erasing', 'erased')"


@dataclass(frozen=True, slots=True)
class Took:
    """What became of records: new, known before, of calls that nobody answered, of calls whose
    period is over, and of calls that start ahead of the archive's clock.
    """

    new: int
    known: int
    unanswered: int
    over: int
    ahead: int


async def take(vault: Vault, caller: Caller, details: Sequence[Detail], now: datetime) -> Took:
    """Keep the records of calls that were answered; one that is here already is merged with it.

    Raises UnavailableError for calls that begin ahead of a clock which was put back: the records
    are to come again.
    """
    access.require(caller, frozenset({Level.UPLOADER}))
    if caller.source is None:
        raise ValueError("an uploader's key has a source")
    rows, counts = await asyncio.to_thread(_rows, vault, caller.source, details, now)
    if counts[-1] and await clocks.behind(vault):
        raise clocks.ahead()
    async with connection(vault.pool) as lent, lent.transaction():
        new = await _insert(vault, lent, caller, rows, now)
        if new:
            await ledger.record(lent, caller.id, "cdrs.taken", facts={"count": new})
    return Took(new, len(rows) - new, *counts)


@dataclass(frozen=True, slots=True)
class _Row:
    call_hash: bytes
    hashes: list[bytes]
    detail: Detail
    expiry: Expiry
    sealed: bytes

    def says_more(self, there: asyncpg.Record) -> bool:
        """Whether it names an id or a field that the record of the call which is here does not, or
        a later end.
        """
        return (
            not set(self.hashes) <= set(there["hashes"]) or self.detail.ended_at > there["ended_at"]
        )


def _rows(
    vault: Vault, source: str, details: Sequence[Detail], now: datetime
) -> tuple[list[_Row], tuple[int, int, int]]:
    """The records as they are kept, and how many calls are unanswered, over and ahead."""
    calls = merged(details)
    answered = [detail for detail in calls if detail.answered]
    timely = [detail for detail in answered if detail.started_at <= now + AHEAD]
    rows = [row for detail in timely if (row := _row(vault, source, detail, now)) is not None]
    rows.sort(key=lambda row: row.call_hash)  # two bodies with the same calls wait in one order
    left = len(calls) - len(answered), len(timely) - len(rows), len(answered) - len(timely)
    return rows, left


def _row(vault: Vault, source: str, detail: Detail, now: datetime) -> _Row | None:
    """The record as it is kept; None when its call's period is over. Raises UnavailableError when
    the day on which that ends has no key yet.
    """
    try:
        expiry = _earliest(vault.policy, detail.started_at)
        if now >= expiry.at:
            return None
        hashes = [recordings.call_hash(vault.ring, source, each) for each in detail.ids]
        hashes += [name.encode() for name in detail.fields]
        sealed = _seal(vault.ring, expiry.on, source, hashes[0], detail.fields)
    except (NoDayKeyError, ValueError, OverflowError):
        return None
    return _Row(hashes[0], hashes, detail, expiry, sealed)


def _earliest(policy: Policy, started_at: datetime) -> Expiry:
    """A record does not know the type of its call: it may outlive no type's period."""
    each = (policy.expiry(call_type, started_at) for call_type in policy.periods)
    return min(each, key=lambda expiry: expiry.at)


async def _insert(
    vault: Vault, lent: Connection, caller: Caller, rows: Sequence[_Row], now: datetime
) -> int:
    """Add the rows, and to those that are there what they lack; how many calls were not known."""
    added = await lent.fetch(
        "INSERT INTO cdr (source, call_hash, hashes, started_at, ended_at, expires_at,"
        " expires_on, received_at, actor, details)"
        " SELECT $1, call_hash,"
        " ARRAY(SELECT decode(hash, 'hex') FROM unnest(string_to_array(hashes, ',')) hash),"
        " started_at, ended_at, expires_at, expires_on, $2, $3, details"
        " FROM unnest($4::bytea[], $5::text[], $6::timestamptz[], $7::timestamptz[],"
        " $8::timestamptz[], $9::date[], $10::bytea[])"
        " AS n(call_hash, hashes, started_at, ended_at, expires_at, expires_on, details)"
        " ON CONFLICT (source, call_hash) DO NOTHING RETURNING call_hash",
        caller.source,
        now,
        caller.id,
        [row.call_hash for row in rows],
        [",".join(each.hex() for each in row.hashes) for row in rows],
        [row.detail.started_at for row in rows],
        [row.detail.ended_at for row in rows],
        [row.expiry.at for row in rows],
        [row.expiry.on for row in rows],
        [row.sealed for row in rows],
    )
    new = {row["call_hash"] for row in added}
    if known := {row.call_hash: row for row in rows if row.call_hash not in new}:
        await _enlarge(vault.ring, lent, caller, known, now)
    return len(new)


async def _enlarge(
    ring: Ring, lent: Connection, caller: Caller, rows: Mapping[bytes, _Row], now: datetime
) -> None:
    """Add what rows say to what is here of their calls, which are then looked for anew.

    Only what says more is locked and written: whole files of records come again each night.
    """
    there = await lent.fetch(
        "SELECT call_hash, hashes, ended_at FROM cdr WHERE source = $1 AND call_hash = ANY($2)",
        caller.source,
        list(rows),
    )
    more = [each["call_hash"] for each in there if rows[each["call_hash"]].says_more(each)]
    if not more:
        return
    # In order: two bodies with the same calls do not wait for each other.
    locked = await lent.fetch(
        "SELECT source, call_hash, hashes, ended_at, expires_on, details FROM cdr"
        " WHERE source = $1 AND call_hash = ANY($2) ORDER BY call_hash FOR UPDATE",
        caller.source,
        more,
    )
    enlarged = await asyncio.to_thread(_enlarged, ring, rows, locked)
    await lent.executemany(
        "UPDATE cdr SET hashes = $3, ended_at = $4, details = $5, recording = NULL,"
        " received_at = $6, actor = $7 WHERE source = $1 AND call_hash = $2",
        [(*each, now, caller.id) for each in enlarged],
    )


def _enlarged(
    ring: Ring, rows: Mapping[bytes, _Row], locked: Sequence[asyncpg.Record]
) -> list[tuple[str, bytes, list[bytes], datetime, bytes]]:
    """What the records that are here become: where both say something of a field, they count."""
    found = []
    for there in locked:
        row = rows[there["call_hash"]]
        place = there["expires_on"], there["source"], there["call_hash"]
        try:
            told = _open(ring, *place, there["details"]) if there["details"] else {}
            sealed = _seal(ring, *place, {**row.detail.fields, **told})
        except (NoDayKeyError, DamagedError):
            continue  # the day is just being closed, or the row is not what was sealed
        hashes = list(dict.fromkeys((*there["hashes"], *row.hashes)))
        end = max(there["ended_at"], row.detail.ended_at)
        found.append((*place[1:], hashes, end, sealed))
    return found


async def match(vault: Vault, *, every: bool = False) -> int:
    """Look for the recordings of records that wait, and add to them; how many were found.

    Those that came in lately, or `every` one.
    """
    found = 0
    while count := await _match(vault, every=every):
        found += count
        if count < BATCH:
            break
    return found


async def _match(vault: Vault, *, every: bool) -> int:
    async with connection(vault.pool) as lent, lent.transaction():
        calls = await lent.fetch(
            "SELECT c.source, c.call_hash, c.hashes, c.actor, c.details, c.expires_on FROM cdr c"  # noqa: S608
            " WHERE c.recording IS NULL AND ($1 OR c.received_at > archive_now() - $2::interval)"
            " AND EXISTS (SELECT FROM unnest(c.hashes) AS h(hash) JOIN recording r"
            f" ON r.source = c.source AND r.call_hash = h.hash AND {_KEPT})"
            " ORDER BY c.source, c.call_hash LIMIT $3 FOR UPDATE SKIP LOCKED",
            every,
            FRESH,
            BATCH,
        )
        return sum([await _settle(vault, lent, call) for call in calls])


async def _settle(vault: Vault, lent: Connection, call: asyncpg.Record) -> bool:
    """The recordings of one record: it adds to them, and goes when they do.

    False where one of them is just being changed: the record waits, for it adds to all at once.
    """
    its = f"FROM recording r WHERE r.source = $1 AND r.call_hash = ANY($2) AND {_KEPT}"
    names = call["source"], call["hashes"]
    # Read here and not for all calls at once: another call may just have added to the same one.
    rows = await lent.fetch(
        f"SELECT {recordings.COLUMNS} {its} ORDER BY r.id FOR UPDATE SKIP LOCKED",
        *names,
    )
    if not rows or len(rows) < await lent.fetchval(f"SELECT count(*) {its}", *names):
        return False
    for row in rows:
        if row["state"] == State.STORED and call["details"]:
            await _add(vault, lent, call, row)
    there = [row["id"] for row in rows if row["state"] != State.ERASED]
    place = call["source"], call["call_hash"]
    if there:
        await lent.execute(
            "UPDATE cdr SET recording = $3, details = NULL WHERE source = $1 AND call_hash = $2",
            *place,
            there[0],
        )
    else:
        await lent.execute("DELETE FROM cdr WHERE source = $1 AND call_hash = $2", *place)
    return True


async def _add(vault: Vault, lent: Connection, record: asyncpg.Record, row: asyncpg.Record) -> None:
    """Add to a recording what it lacks and the record of its call says."""
    place = record["expires_on"], record["source"], record["call_hash"]
    try:
        told = _open(vault.ring, *place, record["details"])
        opened = recordings.from_row(vault.ring, row)
    except (NoDayKeyError, DamagedError):
        return  # the day is just being closed, or the row is what `verify` will tell of
    call = opened.recording.call
    fresh = {name: text for name, text in told.items() if getattr(call, name) is None}
    if not fresh:
        return
    known = recordings.opened_added(opened.seal, row)
    more = recordings.with_added(call, fresh)
    sealed = opened.seal.seal_details(json.dumps({**known, **fresh}).encode(), recordings.ADDED)
    terms = set(recordings.terms(vault.ring, more)) - set(recordings.terms(vault.ring, call))
    await lent.execute(
        "WITH kept AS (UPDATE recording SET added = $2, direction = $3"
        " WHERE id = $1 AND state = 'stored' RETURNING id, started_at, expires_on)"
        " INSERT INTO term (expires_on, hash, started_at, recording)"
        " SELECT expires_on, hash, started_at, id FROM kept, unnest($4::bigint[]) hash"
        " ON CONFLICT DO NOTHING",
        row["id"],
        sealed,
        more.direction,
        sorted(terms),
    )
    facts = {"fields": sorted(fresh)}
    await ledger.record(lent, record["actor"], "enriched", recording=row["id"], facts=facts)


async def forget(vault: Vault) -> int:
    """Remove what may no longer be kept; how many."""
    async with connection(vault.pool) as lent:
        done = await lent.execute("DELETE FROM cdr WHERE expires_at <= archive_now()")
    return int(done.rpartition(" ")[2])


def _data(source: str, call_hash: bytes) -> bytes:
    return source.encode() + b"\0" + call_hash


def _seal(ring: Ring, day: date, source: str, call_hash: bytes, fields: Mapping[str, str]) -> bytes:
    """Seal who spoke, as it would be stored."""
    stored = {
        name: numbers.as_stored(text) if name in ("caller", "callee") else text
        for name, text in fields.items()
    }
    key = boxes.key_for(key_to_seal(ring, day), _LABEL)
    return boxes.seal(key, json.dumps(stored).encode(), _data(source, call_hash))


def _open(ring: Ring, day: date, source: str, call_hash: bytes, sealed: bytes) -> dict[str, str]:
    try:
        key = boxes.key_for(ring.day_key(day), _LABEL)
        plain = boxes.unseal(key, sealed, _data(source, call_hash))
    except InvalidTag:
        raise DamagedError("the record of a call was changed, or belongs to another") from None
    known: dict[str, str] = json.loads(plain)
    return {name: text for name, text in known.items() if name in FIELDS}
