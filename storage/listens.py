"""Who heard a recording before, out of the ledger, for whoever may hear it.

A player asks for a recording in many pieces, so what one person heard on one day is one line; what
was taken out in an export counts as heard. Who that was, the privacy officer is told; a supervisor
sees a name at his own lines alone.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from archive import access
from archive.access import Caller, Level
from storage.database import connection
from storage.vault import Vault

MOST = 20


@dataclass(frozen=True, slots=True)
class Listen:
    """One person on one day; `who` is None where the caller may not know, `own` the caller."""

    who: str | None
    own: bool
    last: datetime


async def of(vault: Vault, caller: Caller, recording: UUID) -> list[Listen]:
    """The last ones who heard it, newest first. The caller has been let to the recording before."""
    access.require(caller, access.READERS)
    async with connection(vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT t.actor, h.name, max(t.at) AS last FROM told t"
            " LEFT JOIN holder h ON h.id = t.actor"
            " WHERE t.recording = $1 AND t.act IN ('listened', 'exported')"
            " AND t.facts->>'format' IS DISTINCT FROM 'waveform'"
            " GROUP BY t.actor, h.name, (t.at AT TIME ZONE $2)::date"
            " ORDER BY last DESC LIMIT $3",
            recording,
            vault.policy.zone.key,
            MOST,
        )
    knows = caller.level is Level.PRIVACY
    return [
        Listen(
            (row["name"] or row["actor"]) if knows or row["actor"] == caller.id else None,
            row["actor"] == caller.id,
            row["last"],
        )
        for row in rows
    ]
