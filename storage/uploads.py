"""Uploads that come in parts: begun, taken up again after a cut line or a restart, and finished.

What holds: an offset is told only of bytes that are on the disk and in the row. The offset that is
the whole length is told only when the recording exists, for a client that hears it goes away for
good. What is not finished by its expiry, a day after it was begun or sooner if the call's own year
ends, is gone: the row with the wrapped key at once, the file within a minute, and the night after
destroys the key that wrapped it, for every copy of either.

An upload belongs to the service whose disk has its bytes, and to the access key that began it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from archive.access import Caller
from archive.errors import NotFoundError, TooManyError, UnavailableError
from archive.recording import Call, CallType, Recording
from archive.retention import Expiry
from storage import boxes, quota, recordings, steps
from storage.database import Connection, connection
from storage.growing import GrowingFile, Mark
from storage.keyring import NoDayKeyError, Ring, key_to_seal
from storage.sealing import DamagedError, Identity, Seal, parse_identity
from storage.vault import Vault

LIFE = timedelta(days=1)
"""How long an upload may take, at the most."""

MOST = 1000
"""Unfinished uploads of one key."""

_GONE = "There is no such upload: it never was, was finished long ago, or is past its expiry."


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as its row has it. `recording` is what became of it; `said` what was said of it."""

    id: UUID
    place: str
    expires_at: datetime
    length: int | None
    mark: Mark
    recording: UUID | None
    seal: Seal | None
    said: Mapping[str, Any]

    @property
    def whole(self) -> bool:
        """Whether every byte is here."""
        return self.length == self.mark.size


async def begin(
    vault: Vault, caller: Caller, call: Call, said: Mapping[str, Any], length: int | None,
    now: datetime,
) -> Upload:  # fmt: skip
    """Begin an upload. Raises TooManyError over the key's quota, or its number of uploads;
    UnavailableError when its day has no key yet.
    """
    expires_at = min(now + LIFE, call.expiry.at)
    identity = Identity(vault.policy.day_of(expires_at), uuid4(), uuid4())
    seal = Seal.new(identity)
    details = seal.seal_details(json.dumps(dict(said), ensure_ascii=False).encode())
    header = seal.header(key_to_seal(vault.ring, identity.expires_on), len(details))
    async with connection(vault.pool) as lent:
        await _check_quota(lent, vault, caller, length or 0, now)
        await lent.execute(
            "INSERT INTO upload (id, key, place, expires_at, length, header, details)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            identity.recording,
            caller.id,
            vault.shelf.place,
            expires_at,
            length,
            header,
            details,
        )
    place = vault.shelf.place
    return Upload(identity.recording, place, expires_at, length, Mark(), None, seal, said)


async def finished_at_once(
    vault: Vault, caller: Caller, recording: Recording, now: datetime
) -> Upload:
    """Note an upload that came whole with its creation, for a client that asks after it."""
    upload, size = uuid4(), recording.audio.bytes
    expires_at = min(now + LIFE, recording.call.expiry.at)
    async with connection(vault.pool) as lent:
        await lent.execute(
            "INSERT INTO upload (id, key, place, expires_at, length, received, recording, digest)"
            " VALUES ($1, $2, $3, $4, $5, $5, $6, $7)",
            *(upload, caller.id, vault.shelf.place, expires_at, size, recording.id),
            _sealed(vault.ring, upload, recording),
        )
    place = vault.shelf.place
    return Upload(upload, place, expires_at, size, Mark(size), recording.id, None, {})


async def _check_quota(
    lent: Connection, vault: Vault, caller: Caller, size: int, now: datetime
) -> None:
    """What lies here unfinished counts like what was handed over: it fills a disk as well."""
    row = await lent.fetchrow(
        "SELECT count(*) AS uploads, coalesce(sum(coalesce(length, received)), 0)::bigint AS bytes"
        " FROM upload WHERE key = $1 AND recording IS NULL AND expires_at > archive_now()",
        caller.id,
    )
    if row and row["uploads"] >= MOST:
        raise TooManyError(f"The key has {MOST} unfinished uploads; finish or end some.", 60)
    await quota.require(lent, caller, vault.policy, now, size + (row["bytes"] if row else 0))


async def find(vault: Vault, caller: Caller, upload: UUID) -> Upload:
    """An upload of this caller's. Raises NotFoundError for any other, and for one that expired.

    UnavailableError for one whose bytes another service has: that one has to be asked.
    """
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow(
            "SELECT * FROM upload WHERE id = $1 AND key = $2 AND expires_at > archive_now()",
            upload,
            caller.id,
        )
    if row is None:
        raise NotFoundError(_GONE)
    found = _from_row(vault, row)
    if found.recording is None and found.place != vault.shelf.place:
        raise UnavailableError("Another service of the archive has this upload; ask again.", 1)
    return found


def _from_row(vault: Vault, row: asyncpg.Record) -> Upload:
    seal, said = None, {}
    if row["header"] is not None:
        try:
            day = parse_identity(row["header"]).expires_on
            seal = Seal.unwrap(row["header"], vault.ring.day_key(day))
        except NoDayKeyError:
            raise NotFoundError(_GONE) from None
        said = json.loads(seal.open_details(row["details"]))
    mark = Mark(row["received"], row["stored"])
    facts = (row["id"], row["place"], row["expires_at"], row["length"])
    return Upload(*facts, mark, row["recording"], seal, said)


async def opened(vault: Vault, upload: Upload) -> GrowingFile:
    """The file of an unfinished upload, at what is kept of it.

    Raises NotFoundError without it, and when something of it is gone: the upload is ended then, so
    that its sender begins anew.
    """
    if upload.seal is None:
        raise NotFoundError(_GONE)
    key = upload.seal.reader_keys()[:32]
    try:
        return GrowingFile(vault.shelf.file(upload.id), key, upload.mark)
    except (FileNotFoundError, DamagedError):
        await end(vault, upload.id)
        raise NotFoundError(_GONE) from None


async def say_length(
    vault: Vault, caller: Caller, upload: Upload, length: int, now: datetime
) -> None:
    """Fix the length that was left open."""
    async with connection(vault.pool) as lent:
        await _check_quota(lent, vault, caller, length - upload.mark.size, now)
        await lent.execute(
            "UPDATE upload SET length = $2 WHERE id = $1 AND length IS NULL", upload.id, length
        )


async def keep(vault: Vault, upload: UUID, file: GrowingFile) -> Mark:
    """Put on the disk what was added, then into the row how much there is: now it may be told.

    Raises NotFoundError when the upload was ended, or expired, meanwhile.
    """
    mark = await file.keep()
    steps.reached("synced")
    async with connection(vault.pool) as lent:
        told = await lent.fetchval(
            "UPDATE upload SET received = $2, stored = $3"
            " WHERE id = $1 AND recording IS NULL AND expires_at > archive_now() RETURNING true",
            upload,
            mark.size,
            mark.stored,
        )
    if not told:
        raise NotFoundError(_GONE)
    steps.reached("kept")
    return mark


def _sealed(ring: Ring, upload: UUID, recording: Recording) -> bytes:
    """The recording's digest for the receipt: what is sealed of a recording, who takes in may not
    read, not even its own. It ends with the recording's day, in every copy.
    """
    digest = bytes.fromhex(recording.audio.sha256)
    return boxes.seal(_key(ring, recording.call.expiry.on), digest, upload.bytes)


def _unsealed(ring: Ring, upload: UUID, day: date, sealed: bytes) -> str:
    return boxes.unseal(_key(ring, day), sealed, upload.bytes).hex()


def _key(ring: Ring, day: date) -> bytes:
    return boxes.key_for(ring.day_key(day), b"upload digest")


async def become(vault: Vault, upload: UUID, recording: Recording) -> None:
    """Note which recording an upload became; its bytes and what was said of it go."""
    async with connection(vault.pool) as lent:
        await lent.execute(
            "UPDATE upload SET recording = $2, digest = $3, header = NULL, details = NULL"
            " WHERE id = $1",
            upload,
            recording.id,
            _sealed(vault.ring, upload, recording),
        )
    steps.reached("became")
    vault.shelf.file(upload).unlink(missing_ok=True)


async def end(vault: Vault, upload: UUID) -> None:
    """End an upload before its time; nothing of it stays."""
    async with connection(vault.pool) as lent:
        await lent.execute("DELETE FROM upload WHERE id = $1", upload)
    vault.shelf.file(upload).unlink(missing_ok=True)


async def receipt(vault: Vault, caller: Caller, upload: Upload) -> Recording:
    """The recording that an upload became, for who sent it, as far as a receipt's headers tell.

    NotFoundError once that is gone.
    """
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow(
            f"SELECT {recordings.PLAIN}, u.digest AS sealed FROM recording r"  # noqa: S608
            " JOIN upload u ON u.recording = r.id WHERE u.id = $1 AND r.source = $2"
            " AND r.state = 'stored' AND r.expires_at > archive_now()",
            upload.id,
            caller.source,
        )
    if row is None:
        raise NotFoundError(_GONE)
    expiry = Expiry(row["expires_at"], row["expires_on"], row["rule"])
    call = Call("", CallType(row["call_type"]), row["started_at"], expiry)
    return recordings.from_plain(
        row, call, _unsealed(vault.ring, upload.id, row["expires_on"], row["sealed"])
    )


async def collect(vault: Vault, *, by_time: bool = True) -> int:
    """Forget uploads that expired, and remove files of which no row knows; returns how many.

    Not `by_time`, while the clock is in doubt: then none is forgotten.
    """
    if by_time:
        async with connection(vault.pool) as lent:
            await lent.execute("DELETE FROM upload WHERE expires_at <= archive_now()")
    lying = vault.shelf.lying()
    async with connection(vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT id FROM upload WHERE place = $1 AND recording IS NULL", vault.shelf.place
        )
    known = {str(row["id"]) for row in rows}
    strays = [path for name, path in lying.items() if name not in known]
    for path in strays:
        path.unlink(missing_ok=True)
    return len(strays)
