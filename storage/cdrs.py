"""Call detail records: which answered calls have no recording, and what a record adds to one.

A record is kept for as long as its call could be, at the most: to the earliest expiry that any call
type gives its start, and no longer than the recording that it belongs to. A call that nobody
answered is not kept at all. Who spoke is sealed under the key of the expiry day, and only until the
recording is found: that then has it, if it lacked it.

A record can add to a recording what that does not say itself: direction, numbers, agent, queue,
customer, contract. It replaces nothing, and never touches the start, the type or the id. With queue
and agent a source says who may hear its call, as it does with the recording itself.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby

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


@dataclass(frozen=True, slots=True)
class Hour:
    """The answered calls of a source that began in one hour. `missing` have no recording though it
    should be there by now; `awaited` may still get theirs.
    """

    source: str
    hour: datetime
    answered: int
    missing: int
    awaited: int


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
        new = await _insert(lent, caller, rows, now)
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


def _rows(
    vault: Vault, source: str, details: Sequence[Detail], now: datetime
) -> tuple[list[_Row], tuple[int, int, int]]:
    """The records as they are kept, and how many calls are unanswered, over and ahead."""
    calls = merged(details)
    answered = [detail for detail in calls if detail.answered]
    timely = [detail for detail in answered if detail.started_at <= now + AHEAD]
    rows = [row for detail in timely if (row := _row(vault, source, detail, now)) is not None]
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
        sealed = _seal(vault.ring, expiry.on, source, hashes[0], detail.fields)
    except (NoDayKeyError, ValueError, OverflowError):
        return None
    return _Row(hashes[0], hashes, detail, expiry, sealed)


def _earliest(policy: Policy, started_at: datetime) -> Expiry:
    """A record does not know the type of its call: it may outlive no type's period."""
    each = (policy.expiry(call_type, started_at) for call_type in policy.periods)
    return min(each, key=lambda expiry: expiry.at)


async def _insert(lent: Connection, caller: Caller, rows: Sequence[_Row], now: datetime) -> int:
    """Add the rows; how many calls were not known before."""
    added = await lent.fetch(
        "INSERT INTO cdr AS c (source, call_hash, hashes, started_at, ended_at, expires_at,"
        " expires_on, received_at, actor, details)"
        " SELECT $1, call_hash,"
        " ARRAY(SELECT decode(hash, 'hex') FROM unnest(string_to_array(hashes, ',')) hash),"
        " started_at, ended_at, expires_at, expires_on, $2, $3, details"
        " FROM unnest($4::bytea[], $5::text[], $6::timestamptz[], $7::timestamptz[],"
        " $8::timestamptz[], $9::date[], $10::bytea[])"
        " AS n(call_hash, hashes, started_at, ended_at, expires_at, expires_on, details)"
        " ON CONFLICT (source, call_hash) DO UPDATE SET"
        " hashes = ARRAY(SELECT DISTINCT unnest(c.hashes || excluded.hashes)),"
        " ended_at = greatest(c.ended_at, excluded.ended_at)"
        " WHERE NOT c.hashes @> excluded.hashes OR c.ended_at < excluded.ended_at"
        " RETURNING c.received_at = $2 AS new",
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
    return sum(row["new"] for row in added)


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
        rows = await lent.fetch(
            "SELECT c.call_hash, c.actor, c.details AS told, c.expires_on AS told_on,"  # noqa: S608
            f" {recordings.COLUMNS} FROM cdr c CROSS JOIN LATERAL unnest(c.hashes) AS h(hash)"
            " JOIN recording r ON r.source = c.source AND r.call_hash = h.hash"
            " WHERE c.recording IS NULL AND ($1 OR c.received_at > archive_now() - $2::interval)"
            " AND r.state IN ('stored', 'erasing', 'erased') ORDER BY c.source, c.call_hash, r.id"
            f" LIMIT {BATCH} FOR UPDATE OF c, r SKIP LOCKED",
            every,
            FRESH,
        )
        for _, group in groupby(rows, key=lambda row: (row["source"], row["call_hash"])):
            await _settle(vault, lent, list(group))
    return len(rows)


async def _settle(vault: Vault, lent: Connection, rows: Sequence[asyncpg.Record]) -> None:
    """The recordings of one record: it adds to them, and goes when they do."""
    for row in rows:
        if row["state"] == State.STORED and row["told"]:
            await _add(vault, lent, row)
    there = [row["id"] for row in rows if row["state"] != State.ERASED]
    call = rows[0]["source"], rows[0]["call_hash"]
    if there:
        await lent.execute(
            "UPDATE cdr SET recording = $3, details = NULL WHERE source = $1 AND call_hash = $2",
            *call,
            there[0],
        )
    else:
        await lent.execute("DELETE FROM cdr WHERE source = $1 AND call_hash = $2", *call)


async def _add(vault: Vault, lent: Connection, row: asyncpg.Record) -> None:
    try:
        told = _open(vault.ring, row["told_on"], row["source"], row["call_hash"], row["told"])
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
    await ledger.record(lent, row["actor"], "enriched", recording=row["id"], facts=facts)


async def forget(vault: Vault) -> int:
    """Remove what may no longer be kept; how many."""
    async with connection(vault.pool) as lent:
        done = await lent.execute("DELETE FROM cdr WHERE expires_at <= archive_now()")
    return int(done.rpartition(" ")[2])


async def gaps(
    lent: Connection, since: datetime, before: datetime, source: str | None, within: timedelta
) -> list[Hour]:
    """Every hour of a span in which a call was answered, oldest first.

    `within`: how soon after its end a call's recording ought to be there.
    """
    rows = await lent.fetch(
        "SELECT source, date_trunc('hour', started_at, 'UTC') AS hour, count(*) AS answered,"
        " count(*) FILTER (WHERE recording IS NULL AND ended_at + $4 <= now) AS missing,"
        " count(*) FILTER (WHERE recording IS NULL AND ended_at + $4 > now) AS awaited"
        " FROM cdr, (SELECT archive_now() AS now) AS clock"
        " WHERE started_at >= $1 AND started_at < $2 AND expires_at > now"
        " AND ($3::text IS NULL OR source = $3) GROUP BY 1, 2 ORDER BY 2, 1",
        since,
        before,
        source,
        within,
    )
    return [Hour(**dict(row)) for row in rows]


async def missing(lent: Connection, within: timedelta) -> dict[str, int]:
    """For each source that ever sent records: answered calls of a week without a recording."""
    rows = await lent.fetch(
        "SELECT source,"
        " count(*) FILTER (WHERE recording IS NULL AND ended_at + $1 <= now) AS missing"
        " FROM cdr, (SELECT archive_now() AS now) AS clock"
        " WHERE started_at >= now - interval '7 days' AND expires_at > now GROUP BY source",
        within,
    )
    return {row["source"]: row["missing"] for row in rows}


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
