"""Removing objects that should not be there: only on positive evidence, and only a few at once.

What no row names is not evidence: after a restore of the database that is everything that came in
since. Evidence is the tombstone of an erased recording, an upload that was given up and whose time
is over, an export that is over or was made once more under another name, or the end of the key of
the expiry day in the object's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from uuid import UUID

from storage import export_erasing, ledger, recordings
from storage.database import Connection, connection
from storage.holdings import Holding
from storage.vault import Vault

LEASE = timedelta(minutes=10)
"""For how long the leftovers of an upload are taken out of the sweep's hands."""

_BATCH = 200


class Why(StrEnum):
    """The evidence on which an object is removed."""

    ERASED = "erased"
    ABANDONED = "abandoned"
    DAY_CLOSED = "day closed"
    EXPORT = "export over"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Stray:
    """Something that is to go, and why; `recording` is None where the name holds no such id, and an
    export's id where it is one's.
    """

    holding: Holding
    why: Why
    recording: UUID | None

    @property
    def facts(self) -> dict[str, object]:
        """As the ledger tells it. A name that the archive never gave may say anything: its day."""
        day = self.holding.key.split("/", 1)[0]
        named = self.holding.key if self.recording else f"{day}/?"
        return {"object": named, "kind": self.holding.kind, "why": str(self.why)}


def parse(key: str) -> tuple[date, UUID, UUID] | None:
    """The day, recording and attempt of an object's name; None for one that is no such name."""
    try:
        day, recording, attempt = key.split("/")
        parts = date.fromisoformat(day), UUID(recording), UUID(attempt)
    except ValueError:
        return None
    return parts if recordings.object_key(*parts) == key else None


async def remove(vault: Vault, strays: Sequence[Stray]) -> int:
    """Remove what is still there and for which the evidence still holds; returns how many went.

    Each is told of on the ledger. Raises UnavailableError when database or store is away: what was
    removed by then may be missing on the ledger, as after a crash.
    """
    gone = 0
    for at in range(0, len(strays), _BATCH):
        async with connection(vault.pool) as lent, lent.transaction():
            gone += await _remove(vault, lent, strays[at : at + _BATCH])
    return gone


async def _remove(vault: Vault, lent: Connection, strays: Sequence[Stray]) -> int:
    sure = await _evident(lent, strays)
    there = [stray for stray in sure if await _is_there(vault, stray.holding)]
    refused = await vault.objects.remove([stray.holding for stray in there])
    removed = [stray for stray in there if stray.holding not in refused]
    for stray in removed:
        recording = None if stray.why is Why.EXPORT else stray.recording
        await ledger.record(
            lent, ledger.SYSTEM, "object.removed", recording=recording, facts=stray.facts
        )
    return len(removed)


async def _evident(lent: Connection, strays: Sequence[Stray]) -> list[Stray]:
    """Those whose evidence holds now, and until the end of the transaction.

    Rows of the dead are locked, so that of two reconcilers one removes and tells of it.
    """
    asked = [stray.recording for stray in strays if stray.recording]
    dead = {row["id"] for row in await _dead(lent, asked)}
    alive = {
        row["id"]
        for row in await lent.fetch(
            "SELECT id FROM recording WHERE id = ANY($1)"
            " AND state IN ('receiving', 'stored', 'erasing')",
            asked,
        )
    }
    exports = await export_erasing.known(lent, asked)
    evident = []
    for stray in strays:
        if stray.why in (Why.ERASED, Why.ABANDONED):
            held = stray.recording in dead
        elif stray.why is Why.DAY_CLOSED:
            held = stray.recording not in alive
        elif stray.why is Why.EXPORT:
            held = is_over(stray.holding, exports)
        else:
            held = True  # an unfinished upload holds nothing that anybody can read
        evident += [stray] if held else []
    return evident


def is_over(holding: Holding, exports: Mapping[UUID, UUID | None]) -> bool:
    """Whether this is an object of an export, and not the one that stands for it now."""
    parts = parse(holding.key)
    return parts is not None and parts[1] in exports and parts[2] != exports[parts[1]]


async def _dead(lent: Connection, asked: Sequence[UUID]) -> list[dict[str, UUID]]:
    """What was erased, and uploads that were given up, which are claimed as the sweep claims them.

    Erased is what has a tombstone; in a rebuilt database also what the ledger tells of without one.
    An upload whose ledger says that it was stored is none: its row came back with an old database.
    """
    erased = await lent.fetch(
        "SELECT id FROM recording WHERE id = ANY($1) AND state = 'erased' FOR UPDATE SKIP LOCKED",
        asked,
    )
    told = [each for each, act in (await ledger.fates(lent, asked)).items() if act == "erased"]
    without = await lent.fetch(
        "SELECT id FROM unnest($1::uuid[]) AS told(id)"
        " WHERE NOT EXISTS (SELECT FROM recording WHERE recording.id = told.id)",
        told,
    )
    given_up = await lent.fetch(
        "WITH held AS (SELECT id FROM recording WHERE id = ANY($1) AND state = 'abandoned'"
        " AND lease_until < (SELECT archive_now()) AND NOT EXISTS (SELECT FROM ledger"
        " WHERE ledger.recording = id AND act IN ('stored', 'rebuilt')) FOR UPDATE SKIP LOCKED)"
        " UPDATE recording r SET lease_until = archive_now() + $2 FROM held"
        " WHERE r.id = held.id RETURNING r.id",
        asked,
        LEASE,
    )
    return [dict(row) for row in (*erased, *without, *given_up)]


async def _is_there(vault: Vault, holding: Holding) -> bool:
    """Whether the store still shows it: another reconciler may have been quicker."""
    return holding in await vault.objects.holdings(holding.key)
