"""Making certificates: the ledger's entries about one thing, and their proofs, out of the database.

None is stored. What it is made of never changes, and the checkpoint is the newest one: two
certificates of one erasure differ only in how much of the ledger stands behind them.
"""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import asyncpg

from archive.access import EVERYTHING, Caller, Level
from archive.certificate import BEGIN, GRANTED, Certificate, Proven
from archive.errors import NoCertificateError, NotFoundError
from archive.note import Checkpoint
from storage import ledger, tree
from storage.database import Connection, connection
from storage.vault import Vault

_NOT_YET = (
    "There is no certificate of this: it never was, you may not know of it, or it is not over."
)

_ENTRIES = f"SELECT {ledger.COLUMNS} FROM ledger"  # noqa: S608 - our own words


async def of_erasure(vault: Vault, caller: Caller, identifier: UUID) -> Certificate:
    """The certificate of a recording's erasure, or of an export's.

    Raises NoCertificateError until its bytes are gone, and for what the caller may not know of.
    """
    await tree.sequence(vault)
    async with connection(vault.pool) as lent:
        kind = await lent.fetchval("SELECT call_type FROM recording WHERE id = $1", identifier)
        rows = []
        # A database that was made anew has no rows of what was erased before, nor says their type.
        covered = caller.scope.covers_erased(kind) if kind else caller.scope == EVERYTHING
        if covered:
            rows = await _of_recording(lent, identifier)
        if kind is None and not rows:
            rows = await _of_export(lent, caller, identifier)
        if not rows:
            raise NoCertificateError(_NOT_YET)
        closed = await _closing(lent, str(rows[-1]["facts"].get("day")))
    return await _proven(vault, [*rows, *([closed] if closed else [])])


async def _of_recording(lent: Connection, identifier: UUID) -> list[asyncpg.Record]:
    """Nothing for what is not a recording, or is not erased yet."""
    rows = await lent.fetch(
        f"{_ENTRIES} WHERE recording = $1 AND act = ANY($2) ORDER BY position",
        identifier,
        [*BEGIN, GRANTED, "erased"],
    )
    if len(rows) < 2 or rows[-1]["act"] != "erased":
        return []
    granted = [row for row in rows if row["act"] == GRANTED][:1]
    return [rows[0], *granted, rows[-1]]


async def _of_export(lent: Connection, caller: Caller, identifier: UUID) -> list[asyncpg.Record]:
    """Nothing until it is over; and a supervisor knows of their own exports alone."""
    rows = await lent.fetch(
        f"{_ENTRIES} WHERE facts->>'export' = $1"
        " AND act IN ('export.asked', 'export.erased') ORDER BY position",
        str(identifier),
    )
    over = [row["act"] for row in rows] == ["export.asked", "export.erased"]
    theirs = caller.level is not Level.SUPERVISOR or (over and rows[0]["actor"] == caller.id)
    return rows if over and theirs else []


async def of_night(vault: Vault, day: date) -> Certificate:
    """The certificate of the nightly reports that were made on a day, in the archive's zone.

    Two services make one each, and what one accounts for is not in the other. Raises NotFoundError
    when there is none.
    """
    await tree.sequence(vault)
    async with connection(vault.pool) as lent:
        rows = await lent.fetch(
            f"{_ENTRIES} WHERE act = 'night.done' AND facts->>'night' = $1 ORDER BY position",
            day.isoformat(),
        )
    if not rows:
        raise NotFoundError("No nightly report was made on this day.")
    return await _proven(vault, rows)


async def _closing(lent: Connection, day: str) -> asyncpg.Record | None:
    return await lent.fetchrow(
        f"{_ENTRIES} WHERE act = 'day.closed' AND facts->>'day' = $1"
        " ORDER BY position DESC LIMIT 1",
        day,
    )


async def _proven(vault: Vault, rows: Sequence[asyncpg.Record]) -> Certificate:
    note = await tree.checkpoint(vault)
    size = Checkpoint.parse(note.text).size
    entries = [ledger.from_row(row) for row in rows]
    async with connection(vault.pool) as lent:
        proven = [
            Proven(entry, await tree.inclusion(lent, entry.position, size)) for entry in entries
        ]
    return Certificate(proven, note)
