"""Collecting what unfinished uploads left behind, each minute."""

from collections.abc import Iterable
from datetime import timedelta
from itertools import groupby
from uuid import UUID

from archive.errors import UnavailableError
from storage import redactions
from storage.database import connection
from storage.recordings import prefix
from storage.removal import BATCH, LEASE, emptied
from storage.upkeep import mark
from storage.vault import Vault

AGAIN = timedelta(hours=24)
"""How long after a first removal a late write is looked for."""


async def run(vault: Vault, limit: int = BATCH) -> int:
    """Collect what unfinished uploads left; returns how many attempts are wholly gone.

    An upload whose lease is over is fenced first. Its object is removed once the time of its put is
    over, and looked for a second time a day later, since a write that timed out can land late.

    Raises RewrittenError for a database that was put back, or that a standby took over: what it
    takes for unfinished may have been acknowledged. It is asked on the same connection, which a
    takeover ends.
    """
    async with connection(vault.pool) as lent:
        await mark.recognize(vault, lent)
        await lent.execute(
            "UPDATE recording SET state = 'abandoned'"
            " WHERE state = 'receiving' AND lease_until < (SELECT archive_now())"
        )
        rows = await lent.fetch(
            "WITH held AS (SELECT id FROM recording WHERE state = 'abandoned'"
            " AND lease_until < (SELECT archive_now())"
            " ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED)"
            " UPDATE recording r SET lease_until = archive_now() + $2 FROM held"
            " WHERE r.id = held.id RETURNING r.id, r.expires_on, r.epoch",
            limit,
            LEASE,
        )
    swept = sorted((prefix(row["expires_on"], row["id"]), row["id"], row["epoch"]) for row in rows)
    collected = 0
    for _, group in groupby(swept, key=lambda row: row[0].split("/", 1)[0]):
        collected += await _collect(vault, list(group))
    await redactions.collect(vault, limit)
    return collected


async def _collect(vault: Vault, attempts: list[tuple[str, UUID, int]]) -> int:
    prefixes = [attempt[0] for attempt in attempts]
    try:
        left = await emptied(vault, prefixes)
    except UnavailableError:
        return 0
    gone = [(identifier, epoch) for name, identifier, epoch in attempts if name not in left]
    async with connection(vault.pool) as lent, lent.transaction():
        await lent.execute(
            "UPDATE recording SET epoch = 1, lease_until = archive_now() + $2"
            " WHERE id = ANY($1) AND state = 'abandoned'",
            _ids(gone, 0),
            AGAIN,
        )
        await lent.execute(
            "DELETE FROM recording WHERE id = ANY($1) AND state = 'abandoned'", _ids(gone, 1)
        )
    return len(_ids(gone, 1))


def _ids(attempts: Iterable[tuple[UUID, int]], epoch: int) -> list[UUID]:
    return [identifier for identifier, seen in attempts if seen == epoch]
