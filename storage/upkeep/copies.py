"""The redacted copies of a database that is made whole: what was silent for everybody stays so.

What the ledger tells last of a recording decides. A copy that it says stands is taken from its
object; if there is none, the copy is lost, and until somebody who may hear the original makes
another, or its object is put back before another rebuild, nobody else hears either. A copy of which
the ledger does not know was made when the last entries were lost, and may have been acknowledged:
it stands, since that keeps silent what was to be silent. One that is told as withdrawn or replaced
goes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from archive.recording import Audio
from archive.redaction import Redaction
from storage import recordings, redactions
from storage.database import Connection, connection
from storage.holdings import Holding
from storage.objects import MissingObjectError
from storage.sealing import DamagedError, Identity, Seal, sealed_length
from storage.upkeep import heads, strays
from storage.upkeep.comparison import Names
from storage.vault import Vault


@dataclass(frozen=True, slots=True)
class _Copy:
    """A redacted copy as its object tells of it."""

    identity: Identity
    redaction: Redaction
    audio: Audio
    header: bytes
    details: bytes


@dataclass(frozen=True, slots=True)
class _Told:
    """What the ledger tells last of a recording: the copy that stands, if one does, since when."""

    standing: UUID | None
    at: datetime


async def settle(vault: Vault, aside: Sequence[Holding], strange: Names, lost: Names) -> None:
    """Let stand what should, of the objects that may be copies; name what is strange, or lost."""
    async with connection(vault.pool) as lent, lent.transaction():
        told, over = await _ledger(lent)
        for holding in aside:
            copy = await _read(vault, lent, holding)
            if copy is None:
                strange.add(holding.key)
            elif copy.identity.attempt in over:
                await redactions.leave(lent, copy.identity)
            elif _stands(copy, told.get(copy.identity.recording)):
                await _stand(lent, copy)
            else:
                strange.add(holding.key)
        await _end(lent, told)
        for identifier in await _lost(lent, told):
            lost.add(str(identifier))


async def _ledger(lent: Connection) -> tuple[dict[UUID, _Told], set[UUID]]:
    """What stands by the ledger, and every copy that is told as withdrawn or replaced."""
    rows = await lent.fetch(
        "SELECT recording, act, at, facts->>'copy' AS copy, facts->>'replaced' AS replaced"
        " FROM told WHERE act IN ('redaction.made', 'redaction.withdrawn')"
        " AND recording IS NOT NULL ORDER BY position, at"
    )
    told: dict[UUID, _Told] = {}
    over = set()
    for row in rows:
        if (copy := _named(row["copy"])) is None:  # the archive never wrote this
            continue
        made = row["act"] == "redaction.made"
        told[row["recording"]] = _Told(copy if made else None, row["at"])
        over.add(_named(row["replaced"]) if made else copy)
    return told, {each for each in over if each}


def _named(told: str | None) -> UUID | None:
    try:
        return UUID(told) if told else None
    except ValueError:
        return None


async def _read(vault: Vault, lent: Connection, holding: Holding) -> _Copy | None:
    """The copy that an object is; None for one that is none, or whose recording is not there."""
    parts = strays.parse(holding.key)
    row = parts and await lent.fetchrow(
        f"SELECT {recordings.COLUMNS} FROM recording r"  # noqa: S608 - our own words
        " WHERE id = $1 AND state = 'stored'",
        parts[1],
    )
    if not parts or not row:
        return None
    try:
        header, details, size = await heads.read(vault, holding)
        seal = Seal.unwrap(header, vault.ring.day_key(parts[0]))
        if seal.identity != Identity(*parts):
            raise DamagedError("the object has the header of another")
        whole = recordings.from_row(vault.ring, row)
        plain = seal.open_details(details, recordings.REDACTED)
        redaction, audio = recordings.from_redacted(plain, whole.recording.audio)
        if size != len(header) + len(details) + sealed_length(audio.bytes):
            raise DamagedError("the object is not as long as it says")
    except (MissingObjectError, ValueError, KeyError):  # it does not open, or says senseless things
        return None
    return _Copy(seal.identity, redaction, audio, header, details)


def _stands(copy: _Copy, told: _Told | None) -> bool:
    if told is None or told.standing == copy.identity.attempt:
        return True
    return copy.redaction.made_at > told.at


async def _stand(lent: Connection, copy: _Copy) -> None:
    """Let a copy stand in a row that has none, has lost it, or has one that was made before."""
    await lent.execute(
        "UPDATE recording SET redacted = $2, redacted_at = $3, redacted_bytes = $4,"
        " redacted_header = $5, redacted_details = $6"
        " WHERE id = $1 AND (redacted IS NULL OR redacted_at < $3"
        # Of one that is lost nobody knows when it was made: the time is that of its entry.
        " OR redacted = $2 AND redacted_header IS NULL)",
        copy.identity.recording,
        copy.identity.attempt,
        copy.redaction.made_at,
        copy.audio.bytes,
        copy.header,
        copy.details,
    )


async def _end(lent: Connection, told: dict[UUID, _Told]) -> None:
    """Take out of the rows what was made before the last withdrawal that is told: that copy, or one
    that another had taken the place of.
    """
    ended = {each: word.at for each, word in told.items() if word.standing is None}
    await lent.execute(
        "UPDATE recording r SET redacted = NULL, redacted_at = NULL, redacted_bytes = NULL,"
        " redacted_header = NULL, redacted_details = NULL"
        " FROM unnest($1::uuid[], $2::timestamptz[]) AS t(id, at)"
        " WHERE r.id = t.id AND r.redacted_at < t.at",
        list(ended),
        list(ended.values()),
    )


async def _lost(lent: Connection, told: dict[UUID, _Told]) -> list[UUID]:
    """Let what should stand and is not there be lost, and not forgotten."""
    standing = {each: word for each, word in told.items() if word.standing}
    rows: list[asyncpg.Record] = await lent.fetch(
        "UPDATE recording r SET redacted = t.copy, redacted_at = t.at, redacted_bytes = NULL,"
        " redacted_header = NULL, redacted_details = NULL"
        " FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS t(id, copy, at)"
        " WHERE r.id = t.id AND r.state = 'stored' AND (r.redacted IS NULL OR r.redacted_at < t.at"
        " AND r.redacted <> t.copy OR r.redacted = t.copy AND r.redacted_header IS NULL)"
        " RETURNING r.id",
        list(standing),
        [word.standing for word in standing.values()],
        [word.at for word in standing.values()],
    )
    return [row["id"] for row in rows]
