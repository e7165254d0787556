"""Making parts of a recording silent for everybody, and having them heard again.

The way of a redacted copy, and what holds after each step:

1. The caller may, the parts lie within the recording, and what is silent stays so. *Nothing is
   changed.*
2. **make**: a worker makes the copy out of the original, into an unnamed file that is sealed
   already; that it is silent where it has to be is seen here, whatever the worker says. *A crash
   leaves nothing.*
3. **name**: a row names the object before its first byte leaves, and the recording says until when
   it may come. *Until then the recording is not erased, and that is before its year is over: no
   copy lands behind an erasure that was called done. And nobody else redacts it.*
4. **put**, like an upload. *An unknown outcome is a failed one.*
5. **stand**: the recording names the copy, in one transaction with the ledger's entry. *From here
   on the copy is what is heard.* A copy that it replaces is left to `collect`.

The copy is an object under the recording's own prefix, sealed under a key of its own that the key
of the same day wraps: whatever erases the recording erases it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg

from archive import access, redaction
from archive.access import Caller
from archive.errors import (
    ChangedError,
    ForbiddenError,
    GoneError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from archive.redaction import Cut, Redaction, Span
from storage import attempts, database, ledger, playback, reading, recordings, steps
from storage.attempts import GRACE
from storage.database import Connection, connection
from storage.keyring import NoDayKeyError
from storage.recordings import Opened, object_key
from storage.sealing import Identity, Seal
from storage.spool import Spool
from storage.upkeep import mark
from storage.vault import Vault

LEASE = timedelta(minutes=10)
"""For how long what is to be removed is one sweep's."""

AGAIN = timedelta(hours=24)
"""How long after a first removal a late write is looked for."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy on its way: where it belongs, what it is in the place of, and its object's head."""

    identity: Identity
    former: UUID | None
    redaction: Redaction
    size: int
    header: bytes
    details: bytes


async def make(
    vault: Vault,
    caller: Caller,
    identifier: UUID,
    now: datetime,
    raw: object,
    reason: str,
    seen: str | None = None,
) -> Redaction:
    """Make these parts of a recording silent, as `redaction.from_json` reads them.

    `seen` is the copy that stood when they were chosen, empty for none; None: the caller does not
    say. Raises what `reading.let_in` raises, InvalidError for parts that are none, ForbiddenError
    for who would have something heard again and may not, ChangedError and UnavailableError.
    """
    row = await reading.let_in(vault, caller, identifier, now)
    _require_seen(row, seen)
    whole = recordings.from_row(vault.ring, row, caller.scope)
    audio = whole.recording.audio
    spans = redaction.from_json(raw, audio.duration, audio.channels)
    if row["redacted"] and caller.level not in access.ORIGINALS:
        standing = recordings.copy_of(vault.ring, row, whole).redaction
        if standing is None or not redaction.covers(spans, standing.spans, audio.channels):
            raise ForbiddenError(
                "Parts that are silent stay so: send them along with the new ones."
            )
    identity = replace(whole.seal.identity, attempt=uuid4())
    told = Redaction(now, spans, reason)
    try:
        with await _made(vault, caller, whole, Seal.new(identity), spans) as spool:
            copy = _described(vault, spool, told, whole, row["redacted"])
            await _store(vault, caller, copy, spool)
    except ChangedError:
        await reading.let_in(vault, caller, identifier, await database.now(vault.pool))
        raise
    return told


async def withdraw(
    vault: Vault,
    caller: Caller,
    identifier: UUID,
    now: datetime,
    reason: str,
    seen: str | None = None,
) -> None:
    """Let the original be heard again by whoever may hear the recording; `seen` as for `make`.

    Raises what `reading.let_in` raises, NotFoundError where nothing is silent, ChangedError.
    """
    access.require(caller, access.ORIGINALS)
    row = await reading.let_in(vault, caller, identifier, now)
    _require_seen(row, seen)
    former = row["redacted"]
    if former is None:
        raise NotFoundError("Nothing of this recording is redacted.")
    sealed = ledger.seal(vault.ring, vault.policy.furthest(now), {"reason": reason})
    async with connection(vault.pool) as lent, lent.transaction():
        if not await lent.fetchval(
            "UPDATE recording SET redacted = NULL, redacted_at = NULL, redacted_bytes = NULL,"
            " redacted_header = NULL, redacted_details = NULL WHERE id = $1 AND state = 'stored'"
            " AND redacted = $2 RETURNING true",
            identifier,
            former,
        ):
            raise ChangedError("Somebody else was quicker: look at it again.")
        await leave(lent, Identity(row["expires_on"], identifier, former))
        await ledger.record(
            lent,
            caller.id,
            "redaction.withdrawn",
            recording=identifier,
            facts={"copy": str(former)},
            sealed=sealed,
        )


def _require_seen(row: asyncpg.Record, seen: str | None) -> None:
    """Raise ChangedError where another copy stands than was seen: what somebody made silent since
    would be heard again, and nobody would have meant it.
    """
    if seen is not None and seen != str(row["redacted"] or ""):
        raise ChangedError("Somebody else has changed it since: look at it again.")


async def _made(
    vault: Vault, caller: Caller, whole: Opened, seal: Seal, spans: Sequence[Span]
) -> Spool:
    """The copy in an unnamed file: a WAV as long as the original, and silent in its places."""
    audio = whole.recording.audio
    size = playback.wav_size(audio)
    if size is None:
        raise TooLargeError("It is too long for a copy that is a WAV.")
    cuts = redaction.cuts(spans, audio.sample_rate)
    async with playback.copied(vault, caller, whole, "wav", silent=spans, redacts=True) as pieces:
        seen = _seen(pieces, cuts, audio.channels)
        spool = await Spool.receive(vault.spool, seal, seen, size)
    if spool.size != size:
        spool.close()
        raise UnavailableError("The copy could not be made.")
    return spool


async def _seen(
    pieces: AsyncIterator[bytes], cuts: Sequence[Cut], channels: int
) -> AsyncIterator[bytes]:
    at = -playback.WAV_HEADER
    async for piece in pieces:
        if sounds(piece, at, cuts, channels):
            raise UnavailableError("The copy could not be made.")
        at += len(piece)
        yield piece


def sounds(piece: bytes, at: int, cuts: Sequence[Cut], channels: int) -> bool:
    """Whether a piece of 16-bit samples, whose first byte is number `at`, sounds within a cut."""
    block = 2 * channels
    for start, stop, channel in cuts:
        first, last = max(start * block - at, 0), min(stop * block - at, len(piece))
        if first >= last:
            continue
        each = range(channels) if channel is None else (channel,)
        for byte in (2 * number + half for number in each for half in (0, 1)):
            lane = piece[first + (byte - at - first) % block : last : block]
            if lane.count(0) != len(lane):
                return True
    return False


def _described(
    vault: Vault, spool: Spool, told: Redaction, whole: Opened, former: UUID | None
) -> _Copy:
    identity = spool.seal.identity
    audio = replace(whole.recording.audio, bytes=spool.size, sha256=spool.sha256.hex())
    plain = recordings.to_redacted(told, audio)
    details = spool.seal.seal_details(plain, recordings.REDACTED)
    try:
        header = spool.seal.header(vault.ring.day_key(identity.expires_on), len(details))
    except NoDayKeyError:
        raise GoneError("Its period has ended.", recording=str(identity.recording)) from None
    return _Copy(identity, former, told, spool.size, header, details)


async def _store(vault: Vault, caller: Caller, copy: _Copy, spool: Spool) -> None:
    """Steps 3 to 5. What fails here is left to `collect`, once its time is over."""
    timeout, head = attempts.patience(copy.size), copy.header + copy.details
    md5 = await asyncio.to_thread(spool.md5, head)
    async with connection(vault.pool) as lent:
        if not await _name(lent, copy, timedelta(seconds=timeout) + GRACE):
            raise await _refusal(lent, copy)
    steps.reached("named")
    await attempts.put(vault, spool, head, md5, timeout)
    day = vault.policy.furthest(copy.redaction.made_at)
    sealed = ledger.seal(vault.ring, day, {"reason": copy.redaction.reason})
    async with connection(vault.pool) as lent, lent.transaction():
        if not await _stand(lent, copy):
            raise ChangedError("It was changed meanwhile, or this took too long: look again.")
        facts = {"copy": str(copy.identity.attempt), "parts": len(copy.redaction.spans)}
        if copy.former:
            await leave(lent, replace(copy.identity, attempt=copy.former))
            facts["replaced"] = str(copy.former)
        await ledger.record(
            lent,
            caller.id,
            "redaction.made",
            recording=copy.identity.recording,
            facts=facts,
            sealed=sealed,
        )
    steps.reached("redacted")


async def _name(lent: Connection, copy: _Copy, lease: timedelta) -> bool:
    """Name the object before it exists, and hold the recording until it can no more land; not one
    that is to be erased early, which who names on and on could put off for ever.
    """
    named = await lent.fetchval(
        "WITH clock AS MATERIALIZED (SELECT archive_now() AS now), held AS (UPDATE recording r"
        " SET redacting_until = clock.now + $3 FROM clock WHERE r.id = $1 AND r.state = 'stored'"
        " AND r.expires_at > clock.now + $3 AND NOT EXISTS"
        " (SELECT FROM told t WHERE t.recording = r.id AND t.act = 'erasure.granted')"
        " AND (r.redacting_until IS NULL OR r.redacting_until <= clock.now)"
        " RETURNING r.id, r.expires_on, r.redacting_until)"
        " INSERT INTO redaction_attempt (id, recording, expires_on, lease_until)"
        " SELECT $2, id, expires_on, redacting_until FROM held RETURNING true",
        copy.identity.recording,
        copy.identity.attempt,
        lease,
    )
    return named is not None


async def _refusal(lent: Connection, copy: _Copy) -> ChangedError | UnavailableError:
    left = await lent.fetchval(
        "SELECT ceil(extract(epoch FROM redacting_until - archive_now()))::int FROM recording"
        " WHERE id = $1 AND redacting_until > archive_now()",
        copy.identity.recording,
    )
    if left:
        return UnavailableError("It is just being redacted; try again.", left)
    return ChangedError("It ends so soon that no copy can be kept of it any more.")


async def _stand(lent: Connection, copy: _Copy) -> bool:
    """Let the copy stand, if it is still on its way and the recording as it was."""
    return bool(
        await lent.fetchval(
            "DELETE FROM redaction_attempt WHERE id = $1 AND swept = 0"
            " AND lease_until > archive_now() RETURNING true",
            copy.identity.attempt,
        )
    ) and bool(
        await lent.fetchval(
            "UPDATE recording SET redacted = $2, redacted_at = archive_now(), redacted_bytes = $3,"
            " redacted_header = $4, redacted_details = $5, redacting_until = NULL WHERE id = $1"
            " AND state = 'stored' AND expires_at > archive_now()"
            " AND redacted IS NOT DISTINCT FROM $6 RETURNING true",
            copy.identity.recording,
            copy.identity.attempt,
            copy.size,
            copy.header,
            copy.details,
            copy.former,
        )
    )


async def leave(lent: Connection, identity: Identity) -> None:
    """Leave the object of a copy that stands no more to `collect`."""
    await lent.execute(
        "INSERT INTO redaction_attempt (id, recording, expires_on, lease_until, swept)"
        " VALUES ($1, $2, $3, archive_now(), 1) ON CONFLICT DO NOTHING",
        identity.attempt,
        identity.recording,
        identity.expires_on,
    )


async def collect(vault: Vault, limit: int) -> int:
    """Remove the objects of copies that do not stand; returns how many are wholly gone.

    One whose time is over is fenced first. A second look comes a day later, since a write that
    timed out can land late. Raises RewrittenError as `sweep.run` does: a standby that took over may
    not know that a copy was acknowledged.
    """
    async with connection(vault.pool) as lent:
        await mark.recognize(vault, lent)
        rows = await lent.fetch(
            "WITH held AS (SELECT id FROM redaction_attempt a"
            " WHERE lease_until < (SELECT archive_now()) AND NOT EXISTS"
            " (SELECT FROM recording r WHERE r.id = a.recording AND r.redacted = a.id)"
            " ORDER BY lease_until LIMIT $1 FOR UPDATE OF a SKIP LOCKED)"
            " UPDATE redaction_attempt a SET lease_until = archive_now() + $2,"
            " swept = greatest(swept, 1) FROM held WHERE a.id = held.id"
            " RETURNING a.id, a.recording, a.expires_on, a.swept",
            limit,
            LEASE,
        )
    gone = 0
    for row in rows:
        key = object_key(row["expires_on"], row["recording"], row["id"])
        try:
            removed = await attempts.gone(vault, key)
        except UnavailableError:
            removed = False
        if not removed:
            continue
        async with connection(vault.pool) as lent:
            if row["swept"] == 1:
                await lent.execute(
                    "UPDATE redaction_attempt SET swept = 2, lease_until = archive_now() + $2"
                    " WHERE id = $1",
                    row["id"],
                    AGAIN,
                )
            else:
                await lent.execute("DELETE FROM redaction_attempt WHERE id = $1", row["id"])
                gone += 1
    return gone
