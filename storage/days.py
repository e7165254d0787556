"""Closing an expiry day: when nothing of it is left, its key is destroyed.

From then on every copy of that day's recordings, in old versions, replicas and backups of bucket
and database, is noise, whoever holds it. A day is closed when it is over by the database's clock
and by the key holder's own, when no recording of it is left in any state but erased, and when the
store was seen to hold nothing under its prefix: what lies there without a row is removed first,
since its day in the name says that it is due. With it goes the last of what a rebuild could not
open, and that is told of here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime

from cryptography.exceptions import InvalidTag

from archive.errors import UnavailableError
from archive.ledger import instant
from storage import boxes, export_erasing, holdings, ledger, steps
from storage.database import Connection, connection
from storage.keyring import KeyRingError, NoDayKeyError, Ring
from storage.vault import Vault

log = logging.getLogger("archive.days")


@dataclass(frozen=True, slots=True)
class Closing:
    """What became of one day: closed, or why it is still open; `strays` had no row."""

    day: date
    closed: bool
    strays: int
    why: str


async def close_through(vault: Vault, last: date, today: date) -> list[Closing]:
    """Close every day up to `last` whose key is alive and that is over, oldest first.

    A key holder that cannot destroy a key leaves that day open, and holds up nothing else.
    """
    noted = [await _kept_open(day, _finish(vault, day)) for day in await untold(vault)]
    # Asked afterwards: what another service destroyed just now is told of already.
    due = sorted(day for day in vault.ring.days() if day <= last and day < today)
    return [*noted, *[await _kept_open(day, _close(vault, day)) for day in due]]


async def _kept_open(day: date, closing: Awaitable[Closing]) -> Closing:
    try:
        return await closing
    except KeyRingError as error:
        log.error("day %s is not closed: %s", day, error)  # noqa: TRY400 (it says all)
        return Closing(day, False, 0, str(error))


async def untold(vault: Vault) -> list[date]:
    """Days whose key is destroyed by the ring, and that are not closed: a crash came between the
    two, or the destruction could not be finished.
    """
    async with connection(vault.pool) as lent:
        rows = await lent.fetch("SELECT expires_on FROM day WHERE closed_at IS NOT NULL")
    return sorted(vault.ring.destroyed().keys() - {row["expires_on"] for row in rows})


async def _finish(vault: Vault, day: date) -> Closing:
    """Tell of a day whose key is destroyed, once nothing is left of the root that sealed it: a disk
    that failed may have kept it.
    """
    destroyed_at = await asyncio.to_thread(vault.ring.destroy, day)
    async with connection(vault.pool) as lent, lent.transaction():
        await _note(vault, lent, day, destroyed_at, 0)
    return Closing(day, True, 0, "its key was destroyed before a crash")


async def _close(vault: Vault, day: date) -> Closing:
    async with connection(vault.pool) as lent:
        open_rows = await _open_rows(lent, day)
        exports = await export_erasing.left_of(lent, day)
    if exports:
        return Closing(day, False, 0, f"{exports} exports that end on it are not erased yet")
    if open_rows:
        return Closing(day, False, 0, f"{open_rows} recordings of it are not erased yet")
    try:
        strays = await _sweep(vault, day)
    except UnavailableError:
        return Closing(day, False, 0, "the object store could not be asked")
    if strays is None:
        return Closing(day, False, 0, "the object store still holds objects of it")
    steps.reached("swept")
    destroyed_at = await asyncio.to_thread(_destroy, vault.ring, day)
    steps.reached("destroyed")
    async with connection(vault.pool) as lent, lent.transaction():
        await _note(vault, lent, day, destroyed_at, strays)
    steps.reached("closed")
    return Closing(day, True, strays, "every recording of it is erased and its key is destroyed")


async def _open_rows(lent: Connection, day: date) -> int:
    """Recordings of the day that are not erased; a finished upload's leftovers do not count."""
    return int(
        await lent.fetchval(
            "SELECT count(*) FROM recording WHERE expires_on = $1"
            " AND (state IN ('receiving', 'stored', 'erasing')"
            " OR state = 'abandoned' AND epoch = 0)",
            day,
        )
    )


async def _sweep(vault: Vault, day: date) -> int | None:
    """Remove what lies under the day's prefix; None when something is still there afterwards."""
    prefix = f"{day.isoformat()}/"
    strays = await vault.objects.holdings(prefix)
    await vault.objects.remove(strays)
    return None if strays and await vault.objects.holdings(prefix) else len(strays)


def _destroy(ring: Ring, day: date) -> datetime:
    """Destroy the day's key, and see that what was sealed under it opens no more.

    Returns when, by the key holder's clock. Raises KeyRingError when the canary lives.
    """
    canary = b""
    with suppress(NoDayKeyError):  # another service may have been quicker
        canary = boxes.seal(ring.day_key(day), b"canary")
    destroyed_at = ring.destroy(day)
    try:
        boxes.unseal(ring.day_key(day), canary)
    except (NoDayKeyError, InvalidTag):
        return destroyed_at
    raise KeyRingError(f"the key of {day.isoformat()} is destroyed and still opens what it sealed")


async def _note(
    vault: Vault, lent: Connection, day: date, destroyed_at: datetime, strays: int
) -> None:
    """Write down, once, that the day is closed, with the holder's receipt for its key."""
    first = await lent.fetchval(
        "INSERT INTO day (expires_on, closed_at) VALUES ($1, archive_now())"
        " ON CONFLICT (expires_on) DO UPDATE SET closed_at = archive_now()"
        " WHERE day.closed_at IS NULL RETURNING true",
        day,
    )
    if not first:  # another service closed it in the same night
        return
    await forget(lent, [day])
    await _tell_rest(vault, lent, day)
    facts = {
        "day": day.isoformat(),
        "strays": strays,
        "holder": vault.ring.id,
        "key_destroyed_at": instant(destroyed_at),
    }
    await ledger.record(lent, ledger.SYSTEM, "day.closed", facts=facts)


async def _tell_rest(vault: Vault, lent: Connection, day: date) -> None:
    """Tell as erased what the ledger has as stored for this day and nobody told of since: the
    database was lost, and what was left of it did not open, so that it got no row again.

    What waits for its place has a row. An entry that the archive did not write holds up no day.
    """
    rows = await lent.fetch(
        "SELECT DISTINCT ON (l.recording) l.recording, l.facts, archive_now() AS now FROM ledger l"
        " WHERE l.act IN ('stored', 'rebuilt') AND l.facts->>'day' = $1"
        " AND l.recording IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM recording r WHERE r.id = l.recording) AND NOT EXISTS"
        " (SELECT FROM ledger t WHERE t.recording = l.recording AND (t.act = 'erased'"
        " OR t.act = 'recording.lost' AND t.position > l.position))"
        " ORDER BY l.recording, l.position DESC",
        day.isoformat(),
    )
    known = {row["recording"]: ledger.expiry(row["facts"]) for row in rows}
    over = {one: each for one, each in known.items() if each and each.at <= rows[0]["now"]}
    absent = holdings.absent(versions=vault.objects.versions)
    for identifier, expiry in over.items():
        facts = {**ledger.due(expiry), "absent": absent}
        await ledger.record(lent, ledger.SYSTEM, "erased", recording=identifier, facts=facts)
    await lent.execute("UPDATE day SET erased = erased + $2 WHERE expires_on = $1", day, len(over))


async def forget(lent: Connection, days: Sequence[date]) -> None:
    """Remove what closed days leave in the database: nothing can be found by it any more, since the
    keys of its hashes are gone, and a tombstone knows its call no longer.
    """
    await lent.execute("DELETE FROM term WHERE expires_on = ANY($1)", days)
    await lent.execute("DELETE FROM filed WHERE expires_on = ANY($1)", days)
    await lent.execute("DELETE FROM cdr WHERE expires_on = ANY($1)", days)
    await lent.execute(
        "UPDATE recording SET call_hash = NULL WHERE expires_on = ANY($1)"
        " AND call_hash IS NOT NULL",
        days,
    )
