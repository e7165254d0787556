"""Taking a recording in: nothing that was acknowledged is lost, nothing else is kept.

An upload becomes a recording step by step: its body is held sealed, a row names the object's key
before its first byte leaves, and the commit is the one point at which the recording exists. What
holds after each step, docs/architecture.md tells.
"""

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from uuid import UUID, uuid4

import asyncpg

from archive import access
from archive.access import Caller, Level
from archive.errors import (
    ConflictError,
    DigestMismatchError,
    GoneError,
    UnavailableError,
)
from archive.lifecycle import State
from archive.recording import Audio, Call, Recording
from archive.retention import Expiry
from storage import attempts, quota, recordings, steps
from storage.audio.facts import AudioFacts, SealedSource
from storage.database import connection
from storage.sealing import Identity, Seal
from storage.spool import Spool
from storage.vault import Vault

NO_DAY = date.min
"""The expiry day of a body whose call is not known yet: no key of the ring is ever for it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the sender says of the body, besides the call: its type and its digests, if any."""

    content_type: str | None = None
    sha256: bytes | None = None
    md5: bytes | None = None
    sha512: bytes | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an upload: the recording, and whether it is new."""

    recording: Recording
    new: bool


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that may be taken in, whatever its body is; `known`: it is here, and only compared."""

    call: Call
    source: str
    known: bool


async def admit(vault: Vault, caller: Caller, call: Call, now: datetime) -> Admitted:
    """Refuse, before the body is read, what would be refused whatever the body is."""
    access.require(caller, frozenset({Level.UPLOADER}))
    if caller.source is None:
        raise ValueError("an uploader's key has a source")
    known = await _known(vault, caller.source, call)
    if known is None:
        return Admitted(call, caller.source, known=False)
    _compare(known, call, now)
    return Admitted(call, caller.source, known=known["state"] == State.STORED)


async def start_of(vault: Vault, caller: Caller, call_id: str) -> datetime | None:
    """When a call of this caller's that is here already started; None if none is here."""
    source = caller.source or ""
    async with connection(vault.pool) as lent:
        started: datetime | None = await lent.fetchval(
            "SELECT started_at FROM recording WHERE source = $1 AND call_hash = $2",
            source,
            recordings.call_hash(vault.ring, source, call_id),
        )
    return started


async def take_in(
    vault: Vault,
    caller: Caller,
    admitted: Admitted,
    offer: Offer,
    body: AsyncIterable[bytes],
    now: datetime,
) -> Taken:
    """Take one recording in; returns once it is durable. Raises what the contract's table names."""
    with slot(vault, caller), await receive(vault, admitted, offer, body, now) as spool:
        return await keep(vault, caller, admitted, offer, spool, now)


@contextmanager
def slot(vault: Vault, caller: Caller) -> Iterator[None]:
    """A place among the uploads that are taken in at once. UnavailableError when all are taken."""
    taken = vault.intakes
    if taken.total() >= vault.limits.max_concurrent:
        raise UnavailableError("Too many uploads are being taken in at once; try again.")
    taken[caller.id] += 1
    try:
        yield
    finally:
        taken[caller.id] -= 1
        if not taken[caller.id]:
            del taken[caller.id]


async def receive(
    vault: Vault,
    admitted: Admitted | None,
    offer: Offer,
    body: AsyncIterable[bytes],
    now: datetime,
) -> Spool:
    """Hold a body in an unnamed file, sealed for the call or, before that is known, for nobody."""
    nobody = Identity(NO_DAY, uuid4(), uuid4())
    seal = _seal_for(admitted.call, now) if admitted else Seal.new(nobody)
    return await Spool.receive(
        vault.spool, seal, body, vault.limits.max_bytes, md5=offer.md5 is not None
    )


async def sealed_for(vault: Vault, spool: Spool, call: Call, now: datetime) -> Spool:
    """The same body, sealed for this call; the one sealed for nobody is closed."""
    if spool.seal.identity.expires_on == call.expiry.on:
        return spool
    with spool:
        return await asyncio.to_thread(spool.reseal, vault.spool, _seal_for(call, now))


def _seal_for(call: Call, now: datetime) -> Seal:
    """Fresh keys for one attempt to take this call in, under a recording id of its own."""
    return Seal.new(Identity(call.expiry.on, uuid7(now), uuid4()))


async def keep(
    vault: Vault, caller: Caller, admitted: Admitted, offer: Offer, spool: Spool, now: datetime
) -> Taken:
    """Keep a body that was received for this call: steps 3 to 6."""
    await _check_digests(offer, spool)
    if admitted.known:
        return await _again(vault, admitted, spool, now)
    await _check_quota(vault, caller, spool, now)
    steps.reached("received")
    audio = await _probe(vault, offer, spool)
    call = recordings.normalized(admitted.call)
    recording = Recording(spool.seal.identity.recording, admitted.source, now, call, audio)
    if not await attempts.store(vault, caller, attempts.prepare(vault, recording, spool), spool):
        return await _again(vault, admitted, spool, now)
    return Taken(recording, new=True)


async def _check_quota(vault: Vault, caller: Caller, spool: Spool, now: datetime) -> None:
    """Once more: what was sent without a length, or beside others, is measured only now."""
    if caller.bounds.quota is not None:
        async with connection(vault.pool) as lent:
            await quota.require(lent, caller, vault.policy, now, spool.size)


async def _again(vault: Vault, admitted: Admitted, spool: Spool, now: datetime) -> Taken:
    """The call is here, or is being taken in: the same bytes get the same answer."""
    known = await _known(vault, admitted.source, admitted.call)
    if known is not None and known["state"] != State.RECEIVING:
        return Taken(_same(vault, known, admitted.call, spool.sha256, now), new=False)
    if known is not None:
        _compare(known, admitted.call, now)
        await attempts.abandon(vault, known["id"], known["attempt"])
    raise UnavailableError("An earlier upload of the call was just given up; try again.", 1)


async def look(vault: Vault, offer: Offer, spool: Spool) -> AudioFacts:
    """Measure a body that was received: whether it is audio that is taken, and what it tells."""
    source = SealedSource(spool.fd, 0, spool.size, spool.seal.reader_keys())
    limits = vault.limits
    return await vault.probes.probe(
        source, offer.content_type, limits.allowed_formats, limits.max_duration
    )


async def _probe(vault: Vault, offer: Offer, spool: Spool) -> Audio:
    facts = await look(vault, offer, spool)
    return Audio(
        bytes=spool.size,
        sha256=spool.sha256.hex(),
        duration=round(facts.duration, 3),
        channels=facts.channels,
        sample_rate=facts.sample_rate,
        codec=facts.codec,
        container=facts.container,
        flaws=facts.flaws,
    )


async def _check_digests(offer: Offer, spool: Spool) -> None:
    if offer.sha256 is not None and not hmac.compare_digest(offer.sha256, spool.sha256):
        raise DigestMismatchError("The SHA-256 of the body is another; send it again.")
    if offer.md5 is not None and not hmac.compare_digest(offer.md5, spool.plain_md5):
        raise DigestMismatchError("The MD5 of the body is another; send it again.")
    if offer.sha512 is None:
        return
    if not hmac.compare_digest(offer.sha512, await asyncio.to_thread(spool.digest, "sha512")):
        raise DigestMismatchError("The SHA-512 of the audio is another; send it again.")


async def _known(vault: Vault, source: str, call: Call) -> asyncpg.Record | None:
    async with connection(vault.pool) as lent:
        return await lent.fetchrow(
            f"SELECT {recordings.PLAIN}, r.lease_until > archive_now() AS held"  # noqa: S608
            " FROM recording r WHERE r.source = $1 AND r.call_hash = $2",
            source,
            recordings.call_hash(vault.ring, source, call.call_id),
        )


def _compare(known: asyncpg.Record, call: Call, now: datetime) -> None:
    """Refuse a call that is here already and is another, or is gone, or is just coming in."""
    if known["state"] == State.RECEIVING:
        if known["held"]:
            raise UnavailableError("The same call is just being taken in; try again.")
        return
    if known["state"] != State.STORED or now >= known["expires_at"]:
        raise GoneError("This call was here and was erased. It is not taken in again.")
    if known["started_at"] != call.started_at or known["call_type"] != call.call_type:
        raise ConflictError("The call is here with another start or another type.")


def _same(
    vault: Vault, known: asyncpg.Record, call: Call, sha256: bytes, now: datetime
) -> Recording:
    """The recording that is here already, if it is this one.

    It is told by keyed hashes and plain columns alone: what is sealed of it, who takes in may not
    read, and a receipt needs none of it.
    """
    _compare(known, call, now)
    digest = recordings.digest_hash(vault.ring, sha256)
    if not hmac.compare_digest(known["digest"], digest):
        raise ConflictError("The call is here with other audio. A call is never overwritten.")
    expiry = Expiry(known["expires_at"], known["expires_on"], known["rule"])
    return recordings.from_plain(known, replace(call, expiry=expiry), sha256.hex())


def uuid7(now: datetime) -> UUID:
    """A UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds, 74 random bits."""
    milliseconds = int(now.timestamp() * 1000) & (2**48 - 1)
    value = milliseconds << 80 | secrets.randbits(80)
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)
