"""One attempt to store one recording: intent, put, commit; and how it is given up.

What holds after each step stands in `storage.intake`. An attempt whose outcome is in doubt is never
taken for a success and its object's key never used again; what it may have left, the sweep
collects.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from archive.access import Caller
from archive.errors import GoneError, UnavailableError
from archive.recording import Recording
from storage import database, ledger, recordings, steps
from storage.database import Connection, connection
from storage.keyring import NoDayKeyError, Ring, key_to_seal
from storage.sealing import sealed_length
from storage.spool import Spool
from storage.vault import Vault

SLOWEST = 1_000_000
"""Bytes a second that a store must take, at the least, before a put is given up."""

SETTLE = 10.0
"""Seconds for which a commit whose reply was lost is asked after."""

GRACE = timedelta(seconds=60)
"""How long after a put was given up its object may still land and be looked for."""

OVER = "The call's period ended while it was being taken in."


def patience(size: int) -> float:
    """Seconds that a put of this many bytes of audio is given."""
    return 20 + size / SLOWEST


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to store one recording: the object's key, its head, and the time it is given."""

    recording: Recording
    attempt: UUID
    call_hash: bytes
    digest: bytes
    terms: list[int]
    header: bytes
    details: bytes
    timeout: float


def prepare(vault: Vault, recording: Recording, spool: Spool) -> Attempt:
    """Seal what is known of the recording, and hash what it is to be found by.

    Raises GoneError when its day was closed while its body came in, UnavailableError when its day
    has no key yet.
    """
    details = spool.seal.seal_details(recordings.to_details(recording))
    try:
        header = spool.seal.header(key_to_seal(vault.ring, recording.call.expiry.on), len(details))
        return describe(vault.ring, recording, spool.seal.identity.attempt, header, details)
    except NoDayKeyError:
        raise GoneError(OVER) from None


def describe(
    ring: Ring, recording: Recording, attempt: UUID, header: bytes, details: bytes
) -> Attempt:
    """The attempt whose object has this head, with what its recording is to be found by."""
    return Attempt(
        recording,
        attempt,
        recordings.call_hash(ring, recording.source, recording.call.call_id),
        recordings.digest_hash(ring, bytes.fromhex(recording.audio.sha256)),
        recordings.terms(ring, recording.call),
        header,
        details,
        patience(recording.audio.bytes),
    )


async def store(vault: Vault, caller: Caller, attempt: Attempt, spool: Spool) -> bool:
    """Store the recording. False when another upload of the same call was quicker.

    Raises UnavailableError when it is not stored, GoneError when its year ended meanwhile.
    """
    head = attempt.header + attempt.details
    md5 = await asyncio.to_thread(spool.md5, head)
    try:
        async with connection(vault.pool) as lent:
            named = await intend(lent, attempt)
        steps.reached("intended")
        if not named:
            return False
        await put(vault, spool, head, md5, attempt.timeout)
    except BaseException:
        # Also after an intent whose reply was lost: it would hold the call until its lease ends.
        await asyncio.shield(_give_up(vault, attempt.recording.id, attempt.attempt))
        raise
    await _commit(vault, caller, attempt)
    return True


async def intend(lent: Connection, attempt: Attempt) -> bool:
    """Name the object before it exists. False when another upload of the call was quicker."""
    recording, call, audio = attempt.recording, attempt.recording.call, attempt.recording.audio
    named = await lent.fetchval(
        "INSERT INTO recording (id, source, call_type, expires_on, state, lease_until, attempt,"
        " call_hash, digest, started_at, expires_at, rule, received_at, direction, duration,"
        " bytes, channels, sample_rate, codec, container, flaws, header, details)"
        " VALUES ($1, $2, $3, $4, 'receiving', archive_now() + $5, $6, $7, $8, $9, $10, $11,"
        " $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)"
        " ON CONFLICT (source, call_hash) DO NOTHING RETURNING id",
        recording.id,
        recording.source,
        call.call_type,
        call.expiry.on,
        timedelta(seconds=attempt.timeout) + GRACE,
        attempt.attempt,
        attempt.call_hash,
        attempt.digest,
        call.started_at,
        call.expiry.at,
        call.expiry.rule,
        recording.received_at,
        call.direction,
        audio.duration,
        audio.bytes,
        audio.channels,
        audio.sample_rate,
        audio.codec,
        audio.container,
        list(audio.flaws),
        attempt.header,
        attempt.details,
    )
    return named is not None


async def put(vault: Vault, spool: Spool, head: bytes, md5: bytes, timeout: float) -> None:
    """Send the sealed object, once. Raises UnavailableError on any doubt that it arrived whole.

    The MD5 is made before the object is named: to read it all for that would use up its time.
    """
    identity = spool.seal.identity
    await vault.objects.put(
        recordings.object_key(identity.expires_on, identity.recording, identity.attempt),
        spool.pieces(head),
        len(head) + sealed_length(spool.size),
        md5,
        timeout,
    )
    steps.reached("put")


async def _commit(vault: Vault, caller: Caller, attempt: Attempt) -> None:
    """Make the recording exist. UnavailableError when it does not, GoneError past its year."""
    try:
        async with connection(vault.pool) as lent:
            received = attempt.recording.received_at
            day = None if caller.bounds.quota is None else vault.policy.day_of(received)
            kept = await make_stored(lent, caller.id, attempt, counted=day)
    except UnavailableError:
        # The reply was lost, and the commit may have landed or be about to: ask, never assume.
        kept = await _settle(vault, attempt)
    if not kept:
        await _give_up(vault, attempt.recording.id, attempt.attempt)
        if await database.now(vault.pool) >= attempt.recording.call.expiry.at:
            raise GoneError(OVER)
        raise UnavailableError("The upload took too long and was given up; try again.")
    steps.reached("committed")


async def make_stored(
    lent: Connection,
    actor: str,
    attempt: Attempt,
    act: str = "stored",
    counted: date | None = None,
) -> bool:
    """Make what was named a recording that exists, and tell of it on the ledger.

    False when the attempt was given up, or the recording's year is over. One that is `rebuilt` past
    its year is due at once. `counted`: the day whose quota of the actor's it goes to.
    """
    return bool(
        await lent.fetchval(
            "WITH kept AS (UPDATE recording SET state = 'stored'"
            " WHERE id = $1 AND attempt = $2 AND state = 'receiving'"
            " AND (expires_at > archive_now() OR $5 = 'rebuilt')"
            " RETURNING id, started_at, expires_on, bytes),"
            " terms AS (INSERT INTO term (expires_on, hash, started_at, recording)"
            " SELECT expires_on, hash, started_at, id FROM kept, unnest($3::bigint[]) hash),"
            " days AS (INSERT INTO filed SELECT (started_at AT TIME ZONE 'UTC')::date, expires_on"
            " FROM kept ON CONFLICT DO NOTHING),"
            " entry AS (INSERT INTO ledger_waiting (actor, act, recording, facts)"
            " SELECT $4, $5, id, $6 FROM kept),"
            " counted AS (INSERT INTO handed_over AS h (key, day, part, bytes)"
            " SELECT $4, $7, floor(random() * 16), bytes FROM kept WHERE $7::date IS NOT NULL"
            " ON CONFLICT (key, day, part) DO UPDATE SET bytes = h.bytes + EXCLUDED.bytes)"
            " SELECT true FROM kept",
            attempt.recording.id,
            attempt.attempt,
            attempt.terms,
            actor,
            act,
            ledger.due(attempt.recording.call.expiry),
            counted,
        )
    )


async def _settle(vault: Vault, attempt: Attempt) -> bool:
    """Find out whether a commit whose reply was lost has landed; if it has not, it never will."""
    deadline = time.monotonic() + SETTLE
    while True:
        try:
            # Abandoning waits for a commit that is under way on another connection, and fails to
            # find the row if it lands. Afterwards there is only one answer.
            if await abandon(vault, attempt.recording.id, attempt.attempt):
                return False
            async with connection(vault.pool) as lent:
                return bool(
                    await lent.fetchval(
                        "SELECT state = 'stored' FROM recording WHERE id = $1 AND attempt = $2",
                        attempt.recording.id,
                        attempt.attempt,
                    )
                )
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def _give_up(vault: Vault, recording: UUID, attempt: UUID) -> None:
    """Abandon an attempt at once if the database answers; if not, its lease ends by itself."""
    with suppress(UnavailableError):
        await abandon(vault, recording, attempt)


async def abandon(vault: Vault, recording: UUID, attempt: UUID) -> bool:
    """Fence an attempt: it can never become stored. The sweep collects what it left."""
    async with connection(vault.pool) as lent:
        abandoned = await lent.fetchval(
            "UPDATE recording SET state = 'abandoned' WHERE id = $1 AND attempt = $2"
            " AND state = 'receiving' RETURNING id",
            recording,
            attempt,
        )
    return abandoned is not None


async def gone(vault: Vault, name: str) -> bool:
    """Remove all that the store holds under a name; whether it was seen to hold nothing more.

    Raises UnavailableError when it cannot be asked.
    """
    held = await vault.objects.holdings(name)
    if held:
        await vault.objects.remove(held)
        held = await vault.objects.holdings(name)
    return not held
