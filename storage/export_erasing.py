"""Erasing exports: at their own end, and before anything in them is erased.

The way is that of a recording (`storage.removal`): claim, remove all that lies under its prefix,
read back, and only then tell. An export is held by its maker while bytes may be on their way to the
store, and is not claimed before that is over. The key of its day goes the night after, for every
copy of it, as for recordings: a day is not closed while an export of it is left.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from archive.errors import UnavailableError
from archive.export import Why
from archive.ledger import instant
from storage import attempts, holdings, ledger, recordings, steps
from storage.database import Connection, connection
from storage.vault import Vault

log = logging.getLogger("archive.export")

LEASE = timedelta(minutes=10)
"""How long a claimed export is left to the worker who claimed it."""

KEPT = timedelta(days=7)
"""How long it is shown that there was an export; nothing of what was in it is."""

_BATCH = 100


@dataclass(frozen=True, slots=True)
class _Claim:
    id: UUID
    expires_on: date
    expires_at: datetime
    epoch: int
    ended: str
    attempt: UUID | None


async def run(vault: Vault, *, by_time: bool = True) -> int:
    """Erase what is over; returns how many were. The rows go a week later.

    Not `by_time`, while the clock is in doubt: then only what is over for another reason.
    """
    async with connection(vault.pool) as lent:
        if by_time:
            await lent.execute(
                "DELETE FROM export WHERE erased_at < archive_now() - $1::interval", KEPT
            )
        claims = await _claim(lent, None, by_time=by_time)
    return await _erase_all(vault, claims)


async def without(vault: Vault, ids: Sequence[UUID]) -> set[UUID]:
    """End and erase every export that holds any of these recordings.

    Returns the recordings that some export holds all the same: they are not to be told as erased.
    """
    async with connection(vault.pool) as lent:
        found = await lent.fetch(
            "UPDATE export SET ended = coalesce(ended, 'recording')"
            " WHERE erased_at IS NULL AND recordings && $1 RETURNING id",
            ids,
        )
        if not found:
            return set()
        claims = await _claim(lent, [row["id"] for row in found])
    await _erase_all(vault, claims)
    async with connection(vault.pool) as lent:
        left = await lent.fetch(
            "SELECT DISTINCT unnest(recordings) AS id FROM export"
            " WHERE erased_at IS NULL AND recordings && $1",
            ids,
        )
    return {row["id"] for row in left} & set(ids)


async def left_of(lent: Connection, day: date) -> int:
    """How many exports of a day are not erased."""
    found: int = await lent.fetchval(
        "SELECT count(*) FROM export WHERE expires_on = $1 AND erased_at IS NULL", day
    )
    return found


async def _claim(
    lent: Connection, only: Sequence[UUID] | None, *, by_time: bool = True
) -> list[_Claim]:
    """Claim what is over: by time, or since a recording in it is erased, or heard otherwise now."""
    rows = await lent.fetch(
        "WITH over AS (SELECT id, CASE WHEN $7 AND expires_at <= archive_now() THEN $4"
        " WHEN number <> stored THEN $5 ELSE $6 END AS why FROM export e,"
        " LATERAL (SELECT count(*) AS stored, count(*) FILTER (WHERE e.packed IS NULL"
        " OR coalesce(r.redacted, r.attempt) = ANY (e.packed)) AS heard FROM recording r"
        " WHERE r.id = ANY (e.recordings) AND r.state = 'stored') there"
        " WHERE erased_at IS NULL AND ($1::uuid[] IS NULL OR id = ANY ($1))"
        " AND (lease_until IS NULL OR lease_until < archive_now())"
        " AND ($7 AND expires_at <= archive_now() OR ended IS NOT NULL OR number <> heard)"
        " ORDER BY expires_at LIMIT $3 FOR UPDATE OF e SKIP LOCKED)"
        " UPDATE export e SET epoch = epoch + 1, lease_until = archive_now() + $2::interval,"
        " ended = coalesce(ended, why)"
        " FROM over WHERE e.id = over.id RETURNING e.id, e.expires_on,"
        " e.expires_at, e.epoch, e.ended, e.attempt",
        only,
        LEASE,
        _BATCH,
        Why.EXPIRED,
        Why.RECORDING,
        Why.CHANGED,
        by_time,
    )
    return [_Claim(**dict(row)) for row in rows]


async def _erase_all(vault: Vault, claims: Sequence[_Claim]) -> int:
    erased = 0
    for claim in claims:
        try:
            gone = await attempts.gone(vault, recordings.prefix(claim.expires_on, claim.id))
        except UnavailableError:
            gone = False
        if gone:
            steps.reached("export emptied")
            erased += await _finish(vault, claim)
        else:
            await _let_go(vault, claim)
    if claims:
        log.info("erased %d of %d exports that are over", erased, len(claims))
    return erased


async def _finish(vault: Vault, claim: _Claim) -> bool:
    """Tell of it, as of a recording; `attempt` is the id of the key that the row had, if any."""
    facts = {
        "export": str(claim.id),
        "day": claim.expires_on.isoformat(),
        "due": instant(claim.expires_at),
        "why": claim.ended,
        **({"attempt": str(claim.attempt)} if claim.attempt else {}),
        "absent": holdings.absent(versions=vault.objects.versions),
    }
    async with connection(vault.pool) as lent, lent.transaction():
        finished = await lent.fetchval(
            "UPDATE export SET erased_at = archive_now(), recordings = NULL, reason = NULL,"
            " attempt = NULL, packed = NULL, header = NULL, bytes = NULL, lease_until = NULL"
            " WHERE id = $1 AND epoch = $2 AND erased_at IS NULL RETURNING true",
            claim.id,
            claim.epoch,
        )
        if finished:
            await ledger.record(lent, ledger.SYSTEM, "export.erased", facts=facts)
    return bool(finished)


async def _let_go(vault: Vault, claim: _Claim) -> None:
    """End the lease of what is still there, or could not be asked about: it is tried again soon."""
    with suppress(UnavailableError):
        async with connection(vault.pool) as lent:
            await lent.execute(
                "UPDATE export SET lease_until = archive_now() WHERE id = $1 AND epoch = $2",
                claim.id,
                claim.epoch,
            )


async def known(lent: Connection, ids: Sequence[UUID]) -> Mapping[UUID, UUID | None]:
    """Of these ids those of exports, each with the attempt whose object is to be there.

    None: no object is. The ledger tells of exports of which there is no row any more.
    """
    told = await lent.fetch(
        "SELECT facts->>'export' AS id FROM told WHERE act = 'export.asked'"
        " AND facts->>'export' = ANY ($1)",
        [str(each) for each in ids],
    )
    rows = await lent.fetch("SELECT id, attempt FROM export WHERE id = ANY ($1)", ids)
    exports = [named(row["id"]) for row in told]
    gone: dict[UUID, UUID | None] = {each: None for each in exports if each}
    return gone | {row["id"]: row["attempt"] for row in rows}


def named(told: object) -> UUID | None:
    """The export that an entry names; None for what is none.

    Recordings have UUIDs of version 7: one that an entry names stays what it is, for what lies
    without a row under the name of an export goes.
    """
    try:
        found = UUID(str(told))
    except ValueError:
        return None
    return found if str(found) == told and found.version == 4 else None
