"""Exports as people have them: asked for with a reason, agreed to where they are many, fetched.

Whoever asks must be let in to every recording, and so must whoever fetches: a right that was lost
meanwhile keeps the whole of it shut. What is fetched counts as heard, recording by recording, each
with an entry of its own. `storage.export_making` makes what was asked for, `storage.export_erasing`
takes it away again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID, uuid4

import asyncpg

from archive import access, export
from archive.access import Caller, Level
from archive.errors import (
    ForbiddenError,
    GoneError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from archive.export import Order, Stage
from archive.ledger import instant
from storage import boxes, four_eyes, ledger, reading
from storage.database import Connection, connection
from storage.four_eyes import Matter
from storage.keyring import Ring
from storage.reading import Act
from storage.recordings import Opened, object_key
from storage.sealing import DamagedError, Identity, Seal
from storage.vault import Vault

AGREE = frozenset({Level.PRIVACY})
"""Who may agree to a mass export."""

SHOWN = 50
"""How many exports a list has, at the most."""

_NONE = "There is no such export that you may know of."
_OVER = "The export is over, and its bytes are gone. Ask for another one."


@dataclass(frozen=True, slots=True)
class Export:
    """An export as people are shown it. `bytes` is the length of its file, once that is made."""

    order: Order
    stage: Stage
    mass: bool
    number: int
    done: int
    bytes: int | None
    ended: str | None


@dataclass(frozen=True, slots=True)
class Package:
    """An export that may be fetched now, with what opens its object and all that is in it."""

    order: Order
    recordings: Sequence[Opened]
    seal: Seal
    object_key: str
    offset: int
    size: int


async def ask(
    vault: Vault, caller: Caller, ids: Sequence[UUID], reason: str, now: datetime
) -> Export:
    """Ask for an export of these recordings.

    Raises for any of them what `reading.get` raises, TooLargeError for more than one export may
    hold, and TooManyError where the caller's budget has no room for it.
    """
    found = await _readable(vault, caller, ids, now)
    if sum(one.recording.audio.bytes for one in found) > export.MOST_BYTES:
        raise TooLargeError(
            f"An export may have {export.MOST_BYTES} bytes of audio: ask for several.",
            max_bytes=export.MOST_BYTES,
        )
    await reading.require_room(vault, caller, ids, now)
    over = export.until(now, [one.recording.call.expiry.at for one in found])
    if over <= now:
        raise GoneError("One of them ends within minutes, and is exported no more.")
    day = vault.policy.day_of(over)
    identifier = uuid4()
    sealed = _seal(vault.ring, day, identifier, reason)
    async with connection(vault.pool) as lent, lent.transaction():
        mass = await _alone(lent, caller, now) + len(ids) > export.ALONE
        [row] = await lent.fetch(
            "INSERT INTO export (id, asker, asked_at, expires_at, expires_on, number, recordings,"
            " mass, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *",
            identifier, caller.id, now, over, day, len(ids), list(ids), mass, sealed,
        )  # fmt: skip
        facts = {
            "export": str(identifier), "recordings": len(ids), "mass": mass,
            "day": day.isoformat(), "due": instant(over),
        }  # fmt: skip
        why = ledger.seal(vault.ring, vault.policy.furthest(now), {"reason": reason})
        await ledger.record(lent, caller.id, "export.asked", facts=facts, sealed=why)
    return _from_row(vault.ring, row, now)


async def _readable(
    vault: Vault, caller: Caller, ids: Sequence[UUID], now: datetime
) -> list[Opened]:
    """All of them, or none. Raises what `reading.get` raises."""
    return [await reading.get(vault, caller, each, now) for each in ids]


async def _alone(lent: Connection, caller: Caller, now: datetime) -> int:
    """How many recordings a person asked for alone within a day, whichever keys they have.

    Until the end of the transaction they ask for nothing more: several requests at once would not
    see each other.
    """
    person: str = await lent.fetchval(
        "SELECT coalesce((SELECT person FROM holder WHERE id = $1), $1)", caller.id
    )
    await lent.execute("SELECT pg_advisory_xact_lock(hashtextextended('export ' || $1, 0))", person)
    count: int = await lent.fetchval(
        "SELECT coalesce(sum(number), 0) FROM export WHERE NOT mass AND asked_at > $3"
        " AND (asker = $1 OR asker IN (SELECT id FROM holder WHERE person = $2))",
        caller.id,
        person,
        now - export.DAY,
    )
    return count


async def find(vault: Vault, caller: Caller, identifier: UUID, now: datetime) -> Export:
    """One's own export, or one that waits for a second person, who may hear all of it too.

    Raises NotFoundError.
    """
    access.require(caller, access.READERS)
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow("SELECT * FROM export WHERE id = $1", identifier)
    if row is None or not (row["asker"] == caller.id or _may_agree(caller, row, now)):
        raise NotFoundError(_NONE)
    if row["asker"] != caller.id:
        try:
            await _readable(vault, caller, row["recordings"], now)
        except (NotFoundError, GoneError):
            raise NotFoundError(_NONE) from None
    return _from_row(vault.ring, row, now)


def _may_agree(caller: Caller, row: asyncpg.Record, now: datetime) -> bool:
    waits = row["mass"] and row["agreed_by"] is None and row["ended"] is None
    in_time = now < row["expires_at"] and not unanswered(row["asked_at"], now)
    return caller.level in AGREE and waits and in_time


def unanswered(asked_at: datetime, now: datetime) -> bool:
    """Whether it is too late to agree to what was asked for then: it has to be asked for anew."""
    return now >= asked_at + four_eyes.WAIT


async def of(vault: Vault, caller: Caller, now: datetime) -> list[Export]:
    """One's own exports, newest first; before them those that wait for who may agree to whatever
    is in them. Whoever is limited has to be told of one that is within.
    """
    access.require(caller, access.READERS)
    async with connection(vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT * FROM export WHERE asker = $1 OR $2 AND mass AND agreed_by IS NULL"
            " AND ended IS NULL AND expires_at > $3 AND asked_at > $4"
            " ORDER BY asker = $1, asked_at DESC LIMIT $5",
            caller.id,
            caller.level in AGREE and caller.scope == access.EVERYTHING,
            now,
            now - four_eyes.WAIT,
            SHOWN,
        )
    return [_from_row(vault.ring, row, now) for row in rows]


async def agree(vault: Vault, caller: Caller, identifier: UUID, now: datetime) -> Export:
    """Agree to a mass export that another person asked for, of recordings that one may hear too.

    Raises NotFoundError where nothing waits, ForbiddenError for whoever is no second person.
    """
    access.require(caller, AGREE)
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow("SELECT * FROM export WHERE id = $1", identifier)
    if row is None or not _may_agree(caller, row, now):
        raise NotFoundError("No such export waits for a second person.")
    await _readable(vault, caller, row["recordings"], now)
    matter = Matter("export.asked", "export.agreed", access.READERS, {"export": str(identifier)})
    async with connection(vault.pool) as lent, lent.transaction():
        row = await lent.fetchrow(
            "UPDATE export SET agreed_by = $2 WHERE id = $1 AND agreed_by IS NULL"
            " AND ended IS NULL AND asker <> $2 RETURNING *",
            identifier,
            caller.id,
        )
        if row is None or await four_eyes.agree(lent, caller.id, matter) is None:
            raise ForbiddenError(
                "It takes another person than who asked, within a day, and who asked must still"
                " hold their key."
            )
    return _from_row(vault.ring, row, now)


async def withdraw(vault: Vault, caller: Caller, identifier: UUID, now: datetime) -> Export:
    """End one's own export; nobody can fetch it from now on. Raises NotFoundError."""
    access.require(caller, access.READERS)
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow(
            "UPDATE export SET ended = coalesce(ended, 'withdrawn')"
            " WHERE id = $1 AND asker = $2 AND erased_at IS NULL RETURNING *",
            identifier,
            caller.id,
        )
    if row is None:
        raise NotFoundError(_NONE)
    return _from_row(vault.ring, row, now)


async def fetch(
    vault: Vault, caller: Caller, identifier: UUID, now: datetime, *, heard: bool = True
) -> Package:
    """Open one's own export; each recording in it counts as heard, and the ledger tells of each,
    unless it is not to be `heard`.

    Raises NotFoundError for another's, UnavailableError while it is being made, GoneError once it
    is over, ForbiddenError when the caller may not hear all of it any more, and TooManyError where
    the budget has no room.
    """
    access.require(caller, access.READERS)
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow(
            "SELECT * FROM export WHERE id = $1 AND asker = $2", identifier, caller.id
        )
    if row is None:
        raise NotFoundError(_NONE)
    known = _from_row(vault.ring, row, now)
    _require_ready(known.stage)
    found = await _still_readable(vault, caller, row["recordings"], now)
    if [one.seal.identity.attempt for one in found] != row["packed"]:
        await withdraw(vault, caller, identifier, now)  # other audio stands for a recording now
        raise GoneError(_OVER)
    if heard:
        await _hear(vault, caller, known.order, row["recordings"], now)
    return _package(vault.ring, row, known.order, found)


async def _hear(
    vault: Vault, caller: Caller, wanted: Order, ids: Sequence[UUID], now: datetime
) -> None:
    await reading.require_room(vault, caller, ids, now)
    act = Act("exported", {"export": str(wanted.id)}, hears=True, reason=wanted.reason)
    for each in ids:
        await reading.get(vault, caller, each, now, act)
    async with connection(vault.pool) as lent:
        facts = {"export": str(wanted.id), "recordings": len(ids)}
        await ledger.record(lent, caller.id, "export.downloaded", facts=facts)


def _package(ring: Ring, row: asyncpg.Record, wanted: Order, found: Sequence[Opened]) -> Package:
    identity = Identity(row["expires_on"], row["id"], row["attempt"])
    seal = Seal.unwrap(row["header"], ring.day_key(row["expires_on"]))
    if seal.identity != identity:
        raise DamagedError("the row holds the header of another export")
    key = object_key(identity.expires_on, identity.recording, identity.attempt)
    return Package(wanted, found, seal, key, len(row["header"]), row["bytes"])


def _require_ready(stage: Stage) -> None:
    if stage is Stage.WAITING:
        raise ForbiddenError("It waits for a second person to agree.")
    if stage in (Stage.QUEUED, Stage.MAKING):
        raise UnavailableError("It is still being made; ask again in a moment.", 5)
    if stage is not Stage.READY:
        raise GoneError(_OVER)


async def _still_readable(
    vault: Vault, caller: Caller, ids: Sequence[UUID], now: datetime
) -> list[Opened]:
    try:
        return await _readable(vault, caller, ids, now)
    except GoneError:
        raise GoneError(_OVER) from None
    except NotFoundError:
        raise ForbiddenError("You may not hear every recording in it any more.") from None


async def stands(lent: Connection, identifier: UUID) -> bool:
    """Whether an export that is being sent is not over."""
    return bool(
        await lent.fetchval("SELECT true FROM export WHERE id = $1 AND ended IS NULL", identifier)
    )


def order(ring: Ring, row: asyncpg.Record) -> Order:
    """What was asked for, out of a row; of one that is erased, or whose day is over, nobody knows
    why any more.
    """
    known = row["reason"] and row["expires_on"] not in ring.destroyed()
    return Order(
        row["id"],
        row["asker"],
        row["asked_at"],
        row["agreed_by"],
        _unseal(ring, row["expires_on"], row["id"], row["reason"]) if known else "",
        row["expires_at"],
    )


def _from_row(ring: Ring, row: asyncpg.Record, now: datetime) -> Export:
    # Its day may be over also by a clock that was put back.
    over = now >= row["expires_at"] or row["expires_on"] in ring.destroyed()
    stage = export.stage(
        erased=row["erased_at"] is not None,
        over=over or row["ended"] is not None,
        made=row["made_at"] is not None,
        working=row["attempt"] is not None,
        mass=row["mass"],
        agreed=row["agreed_by"] is not None,
    )
    ended = row["ended"] or (export.Why.EXPIRED if over else None)
    facts = (row["mass"], row["number"], row["done"], row["bytes"], ended)
    return Export(order(ring, row), stage, *facts)


def _seal(ring: Ring, day: date, identifier: UUID, reason: str) -> bytes:
    """What was said for an export: it ends with the export's day, in every copy."""
    return boxes.seal(_key(ring, day), reason.encode(), identifier.bytes)


def _unseal(ring: Ring, day: date, identifier: UUID, sealed: bytes) -> str:
    return boxes.unseal(_key(ring, day), sealed, identifier.bytes).decode()


def _key(ring: Ring, day: date) -> bytes:
    return boxes.key_for(ring.day_key(day), b"export reason")
