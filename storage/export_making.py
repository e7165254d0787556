"""Making an export: what was asked for, packed, sealed and stored, one at a time.

The way is that of an upload. **claim**: the row names the object before its first byte leaves, for
one maker and for a time. **pack**: recordings, their vCons and a manifest become one ZIP in an
unnamed file, sealed under a key of this attempt alone. **put**: one request. **commit**: the row
says that it is made, if it is still wanted and everything in it is still there; only now it can be
fetched, so that nobody is ever sent a half one. A maker who was killed, or too slow, is followed by
another with another key and another name; what the first one put goes with the export.

It runs where the clock starts things: no door has a right to say that an export is made, and a
browser that leaves ends nothing.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from archive import export, media, vcon
from archive.errors import UnavailableError
from archive.export import Order, Why
from storage import database, exports, ledger, playback, recordings, steps
from storage.attempts import GRACE, patience
from storage.database import connection
from storage.objects import MissingObjectError
from storage.recordings import Opened, object_key
from storage.sealing import DamagedError, Identity, Seal, sealed_length
from storage.spool import Spool
from storage.vault import Vault
from storage.zipping import Packed, whole, zipped

log = logging.getLogger("archive.export")

_ROOM = 100_000_000
"""Bytes that a ZIP may have besides the audio in it: far more than it has."""


class _OverError(Exception):
    """The export is not wanted any more, or another maker has it."""


@dataclass(frozen=True, slots=True)
class _Job:
    """An export that this maker has, until its lease ends; every write names the epoch. `packed`
    are the attempts whose objects are in it by now.
    """

    order: Order
    recordings: list[UUID]
    epoch: int
    identity: Identity
    packed: list[UUID] = field(default_factory=list)


async def run(vault: Vault) -> bool:
    """Make one export, if one is wanted; whether one was. UnavailableError when a store is away:
    it is tried again once the lease is over.
    """
    job = await _claim(vault)
    if job is None:
        return False
    steps.reached("export claimed")
    try:
        await _make(vault, job)
    except _OverError:
        log.info("export %s is not wanted any more", job.order.id)
    except (DamagedError, MissingObjectError):
        log.error("export %s: a recording in it is not whole", job.order.id)  # noqa: TRY400
        await _end(vault, job, Why.DAMAGED)
    return True


async def _claim(vault: Vault) -> _Job | None:
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow(
            "WITH next AS (SELECT id FROM export WHERE made_at IS NULL AND erased_at IS NULL"
            " AND ended IS NULL AND (NOT mass OR agreed_by IS NOT NULL)"
            " AND expires_at > archive_now()"
            " AND (lease_until IS NULL OR lease_until < archive_now())"
            " ORDER BY asked_at LIMIT 1 FOR UPDATE SKIP LOCKED)"
            " UPDATE export e SET epoch = epoch + 1, attempt = $1, done = 0,"
            " lease_until = least(archive_now() + $2::interval, expires_at + $2)"
            " FROM next WHERE e.id = next.id RETURNING e.*",
            uuid4(),
            GRACE,
        )
    if row is None:
        return None
    identity = Identity(row["expires_on"], row["id"], row["attempt"])
    return _Job(exports.order(vault.ring, row), row["recordings"], row["epoch"], identity)


async def _make(vault: Vault, job: _Job) -> None:
    seal = Seal.new(job.identity)
    pieces = zipped(_files(vault, job))
    most = export.MOST_BYTES + _ROOM
    with await Spool.receive(vault.spool, seal, pieces, most) as spool:
        steps.reached("export packed")
        header = seal.header(vault.ring.day_key(job.identity.expires_on), 0)
        await _put(vault, job, spool, header)
        steps.reached("export put")
        await _commit(vault, job, header, spool.size)
        steps.reached("export made")


async def _files(vault: Vault, job: _Job) -> AsyncIterator[Packed]:
    """Every file of an export, the manifest last: it tells what the others came to."""
    made_at, items = await database.now(vault.pool), []
    for number, identifier in enumerate(job.recordings):
        opened = await _open(vault, job, number, identifier)
        job.packed.append(opened.seal.identity.attempt)
        audio = audio_of(vault, opened)
        yield audio
        kind, _ = media.named(opened.recording.audio.container)
        beside = vcon.beside(audio.name, kind, audio.sha512.digest())
        document = vcon.write(opened.recording, made_at, beside)
        conversation = Packed(f"{identifier}.vcon.json", whole(_json(document)))
        yield conversation
        ends = opened.recording.call.expiry.at
        items.append(export.item(identifier, ends, audio.file, conversation.file))
    yield Packed("manifest.json", whole(_json(export.manifest(job.order, made_at, items))))


def audio_of(vault: Vault, opened: Opened) -> Packed:
    """The audio of a recording as it leaves the archive: the one place that decides which."""
    recording = opened.recording
    _, ending = media.named(recording.audio.container)
    pieces = playback.read(vault, opened, 0, recording.audio.bytes)
    return Packed(f"{recording.id}.{ending}", pieces)


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


async def _open(vault: Vault, job: _Job, number: int, identifier: UUID) -> Opened:
    """Open the next recording, the redacted copy where one stands, and hold the export for as long
    as reading it may take.
    """
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow(
            f"SELECT {recordings.COLUMNS} FROM recording r WHERE id = $1"  # noqa: S608
            " AND state = 'stored' AND expires_at > archive_now()",
            identifier,
        )
    if row is None:
        await _end(vault, job, Why.RECORDING)
        raise _OverError
    opened = recordings.as_heard(vault.ring, row)
    await _hold(vault, job, number, patience(opened.recording.audio.bytes))
    return opened


async def _hold(vault: Vault, job: _Job, done: int, seconds: float) -> datetime:
    """Tell how far it is, and hold the export on; returns until when it may be worked on.

    Raises _OverError when it is not wanted any more, or another's.
    """
    async with connection(vault.pool) as lent:
        until: datetime | None = await lent.fetchval(
            "UPDATE export SET done = $3,"
            " lease_until = least(archive_now() + $4::interval, expires_at) + $5::interval"
            " WHERE id = $1 AND epoch = $2 AND ended IS NULL AND expires_at > archive_now()"
            " RETURNING lease_until - $5::interval",
            job.order.id,
            job.epoch,
            done,
            timedelta(seconds=seconds),
            GRACE,
        )
    if until is None:
        raise _OverError
    return until


async def _put(vault: Vault, job: _Job, spool: Spool, header: bytes) -> None:
    """Send the object, once, and not beyond the time for which the export is held: a later write
    could land behind the back of who erases it.
    """
    md5 = await asyncio.to_thread(spool.md5, header)
    until = await _hold(vault, job, len(job.recordings), patience(spool.size))
    left = (until - await database.now(vault.pool)).total_seconds()
    if left <= 0:
        raise _OverError
    identity = job.identity
    key = object_key(identity.expires_on, identity.recording, identity.attempt)
    length = len(header) + sealed_length(spool.size)
    await vault.objects.put(key, spool.pieces(header), length, md5, left)


async def _commit(vault: Vault, job: _Job, header: bytes, size: int) -> None:
    """Make it one that can be fetched. When the reply is lost it is either made or made again."""
    async with connection(vault.pool) as lent:
        made = await lent.fetchval(
            "WITH made AS (UPDATE export SET made_at = archive_now(), header = $3, bytes = $4,"
            " packed = $6, lease_until = NULL WHERE id = $1 AND epoch = $2 AND made_at IS NULL"
            " AND ended IS NULL AND expires_at > archive_now()"
            " AND number = (SELECT count(*) FROM recording r WHERE r.id = ANY (recordings)"
            " AND r.state = 'stored') RETURNING id, number),"
            " entry AS (INSERT INTO ledger_waiting (actor, act, facts) SELECT $5, 'export.made',"
            " jsonb_build_object('export', id, 'recordings', number, 'bytes', $4::bigint)"
            " FROM made) SELECT true FROM made",
            job.order.id,
            job.epoch,
            header,
            size,
            ledger.SYSTEM,
            job.packed,
        )
    if not made:
        raise _OverError


async def _end(vault: Vault, job: _Job, why: Why) -> None:
    """End an export that cannot be made; if that cannot be told now, the next maker finds it."""
    with suppress(UnavailableError):
        async with connection(vault.pool) as lent:
            await lent.execute(
                "UPDATE export SET ended = coalesce(ended, $3), lease_until = NULL"
                " WHERE id = $1 AND epoch = $2",
                job.order.id,
                job.epoch,
                why,
            )
