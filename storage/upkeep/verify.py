"""Reading every object back in full: within a day of its upload, and again within 30 days.

What an upload rests on is the store's word that it has the bytes. Here it has to give them all
back, and each is held against the keys and against what was sealed at intake: header, details,
every chunk with its number and the mark of the last, the length, and the digest of the audio.

| due | when |
|---|---|
| never read back | an hour after it came in, the oldest first |
| redacted since it was read back | an hour after that |
| damaged or missing | a day after it was last seen so |
| read back before | 29 days later |

A store that is away has not damaged anything, nor has the end of a recording's year. Two services
may read at once: each takes one of the next few at random, so they seldom read the same, and of two
looks that overlap the one that found damage counts.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import asyncpg

from archive.errors import UnavailableError
from storage import ledger, recordings
from storage.database import Connection, connection
from storage.keyring import NoDayKeyError
from storage.objects import MissingObjectError
from storage.recordings import Opened
from storage.sealing import CHUNK, HEADER, TAG, DamagedError, Seal, sealed_length
from storage.vault import Vault

log = logging.getLogger("archive.verify")

SHARE = 15.0
"""Seconds of a minute after which no further object is begun."""

FRESH = timedelta(hours=1)
"""How long after its upload an object is left alone."""

AGAIN = timedelta(days=29)
"""How long after it was read back an object's turn comes again."""

DOUBT = timedelta(days=1)
"""How long after it was seen damaged it is looked at again."""

MANY = 100
"""Findings after which a run ends: then it is the store and not an object, and each is an entry in
the ledger.
"""

_CHUNKS = 16
_BLOCK = _CHUNKS * (CHUNK + TAG)
_NEXT = 50


class Found(StrEnum):
    """What one look found: the object whole, or the first thing that is wrong."""

    WHOLE = "whole"
    ROW = "the row is not what was sealed"
    KEY = "there is no key of its day"
    COPY = "the redacted copy is not there whole"
    MISSING = "the object is not there, or too short"
    LONGER = "the object is longer than what was stored"
    HEADER = "the object's header is not the row's"
    DETAILS = "the object's details are not the row's"
    CHUNK = "a chunk does not open"
    DIGEST = "the audio has another digest than at intake"


@dataclass(slots=True)
class Report:
    """What was read: how many recordings, their bytes of audio, and how many are not whole."""

    recordings: int = 0
    bytes: int = 0
    damaged: int = 0

    @property
    def facts(self) -> dict[str, object]:
        """As the ledger tells it."""
        return {"recordings": self.recordings, "bytes": self.bytes, "damaged": self.damaged}


async def run(vault: Vault, share: float = SHARE) -> Report:
    """Read back what is due, one object at a time, until `share` seconds are over.

    Raises UnavailableError when the database or the store is away; what was noted by then stays.
    """
    end = time.monotonic() + share
    report = Report()
    while time.monotonic() < end and report.damaged < MANY:
        async with connection(vault.pool) as lent:
            row = await _next(lent)
        if row is None:
            break
        try:
            found = await look(vault, row)
        except UnavailableError:
            log.warning("recording %s could not be read back", row["id"])
            raise
        if not await _note(vault, row, found):
            continue
        report.recordings += 1
        report.bytes += row["bytes"]
        if found is not Found.WHOLE:
            report.damaged += 1
            log.error("recording %s is damaged: %s", row["id"], found)
    return report


async def since(lent: Connection, begin: datetime | None) -> Report:
    """What was read back since an instant, of what is still there; and all that is damaged now."""
    row = await lent.fetchrow(
        "SELECT count(*) AS recordings, coalesce(sum(bytes), 0)::bigint AS bytes,"
        " (SELECT count(*) FROM recording WHERE state = 'stored' AND damaged_at IS NOT NULL)"
        " AS damaged FROM recording WHERE state = 'stored' AND damaged_at IS NULL"
        " AND verified_at >= coalesce($1, '-infinity'::timestamptz)",
        begin,
    )
    return Report(**dict(row)) if row else Report()


async def look(vault: Vault, row: asyncpg.Record) -> Found:
    """Read one object from its first byte to its last. Raises UnavailableError when it cannot be
    asked.
    """
    try:
        opened = recordings.from_row(vault.ring, row)
    except NoDayKeyError:
        return Found.KEY
    except DamagedError:
        return Found.ROW
    found = await _whole(vault, opened, row["header"] + row["details"])
    if found is not Found.WHOLE or row["redacted"] is None:
        return found
    return await _look_at_copy(vault, row, opened)


async def _look_at_copy(vault: Vault, row: asyncpg.Record, opened: Opened) -> Found:
    if row["redacted_header"] is None:
        return Found.COPY
    try:
        copy = recordings.copy_of(vault.ring, row, opened)
    except DamagedError:
        return Found.ROW
    found = await _whole(vault, copy, row["redacted_header"] + row["redacted_details"])
    return found if found is Found.WHOLE else Found.COPY


async def _whole(vault: Vault, opened: Opened, head: bytes) -> Found:
    length = len(head) + sealed_length(opened.recording.audio.bytes)
    try:
        async with vault.objects.get(opened.object_key, 0, length) as pieces:
            found = await _read(opened, head, pieces)
    except MissingObjectError:
        return Found.MISSING
    if found is Found.WHOLE and not await _ends(vault, opened.object_key, length):
        return Found.LONGER
    return found


async def _read(opened: Opened, head: bytes, pieces: AsyncIterator[bytes]) -> Found:
    """Hold all that the store sends against the row's head, the keys and the digest."""
    size, digest, number = opened.recording.audio.bytes, hashlib.sha256(), 0
    async with aclosing(_blocks(pieces, len(head), _BLOCK)) as blocks:
        first = await anext(blocks)
        if first != head:
            return Found.HEADER if first[:HEADER] != head[:HEADER] else Found.DETAILS
        async for block in blocks:
            try:
                # A millisecond of work: too long for the loop that serves the doors.
                await asyncio.to_thread(_open, opened.seal, number, size, block, digest)
            except DamagedError:
                return Found.CHUNK
            number += _CHUNKS
    return Found.WHOLE if digest.hexdigest() == opened.recording.audio.sha256 else Found.DIGEST


async def _blocks(
    pieces: AsyncIterator[bytes], first: int, size: int
) -> AsyncGenerator[bytes, None]:
    """Cut a stream anew: `first` bytes, then blocks of `size`, the last as long as what is left."""
    buffer, wanted = bytearray(), first
    async for piece in pieces:
        buffer += piece
        while len(buffer) >= wanted:
            yield bytes(buffer[:wanted])
            del buffer[:wanted]
            wanted = size
    if buffer:
        yield bytes(buffer)


def _open(seal: Seal, number: int, size: int, block: bytes, digest: "hashlib._Hash") -> None:
    """Open a block of chunks, from chunk `number` on, of a recording of `size` bytes of audio."""
    last, step = (size - 1) // CHUNK, CHUNK + TAG
    for index, at in enumerate(range(0, len(block), step), number):
        digest.update(seal.open_chunk(index, index == last, block[at : at + step]))


async def _ends(vault: Vault, key: str, length: int) -> bool:
    """Whether the object has no byte after its last."""
    try:
        async with vault.objects.get(key, length, length + 1):
            return False
    except MissingObjectError:
        return True


async def _next(lent: Connection) -> asyncpg.Record | None:
    """One of the next few to be read back; None when nothing is due."""
    return (
        await _one_of(lent, "verified_at IS NULL AND damaged_at IS NULL", "received_at", FRESH)
        or await _one_of(lent, _REDACTED, "redacted_at", FRESH)
        or await _one_of(lent, "damaged_at IS NOT NULL", "damaged_at", DOUBT)
        or await _one_of(
            lent, "verified_at IS NOT NULL AND damaged_at IS NULL", "verified_at", AGAIN
        )
    )


_REDACTED = "redacted IS NOT NULL AND verified_at < redacted_at AND damaged_at IS NULL"


async def _one_of(
    lent: Connection, which: str, since: str, after: timedelta
) -> asyncpg.Record | None:
    return await lent.fetchrow(
        f"WITH due AS (SELECT id FROM recording WHERE state = 'stored' AND {which}"  # noqa: S608
        f" AND {since} < (SELECT archive_now()) - $1::interval"
        f" AND expires_at > (SELECT archive_now()) ORDER BY {since} LIMIT $2)"
        f" SELECT {recordings.COLUMNS}, r.bytes, r.verified_at, r.damaged_at FROM recording r"
        " WHERE r.id = (SELECT id FROM due ORDER BY random() LIMIT 1)",
        after,
        _NEXT,
    )


async def _note(vault: Vault, row: asyncpg.Record, found: Found) -> bool:
    """Write down what was found; the ledger tells when an object is no more whole, or again.

    False when it is of no account: the recording was erased or its year ended meanwhile, or another
    has noted since what it found.
    """
    damaged = found is not Found.WHOLE
    async with connection(vault.pool) as lent:
        noted = await lent.fetchval(
            "WITH was AS (SELECT id, damaged_at FROM recording WHERE id = $1 AND attempt = $2"
            " AND state = 'stored' AND expires_at > (SELECT archive_now())"
            " AND redacted IS NOT DISTINCT FROM $9"
            " AND ($3 OR (verified_at IS NOT DISTINCT FROM $4 AND damaged_at IS NOT DISTINCT FROM"
            " $5)) FOR UPDATE),"
            " noted AS (UPDATE recording r SET damaged_at = CASE WHEN $3 THEN archive_now() END,"
            " verified_at = CASE WHEN $3 THEN verified_at ELSE archive_now() END"
            " FROM was WHERE r.id = was.id),"
            " entry AS (INSERT INTO ledger_waiting (actor, act, recording, facts)"
            " SELECT $6, $7, id, $8 FROM was WHERE (damaged_at IS NULL) = $3)"
            " SELECT true FROM was",
            row["id"],
            row["attempt"],
            damaged,
            row["verified_at"],
            row["damaged_at"],
            ledger.SYSTEM,
            "object.damaged" if damaged else "object.mended",
            {"attempt": str(row["attempt"]), "found": found},
            row["redacted"],
        )
    return noted is not None
