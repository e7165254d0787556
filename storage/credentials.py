"""Bearer keys: made once, shown once, stored as a keyed hash.

The id in a token finds the row; of the secret (256 random bit) the row has only the HMAC under a
key of the ring, the pepper, and it is compared in constant time. Rights are read from the row at
each request, so that revoking acts at once. A rotation gives a key a new secret, and the former
holds for a while beside it: the key stays the same one, to its limits and to the ledger.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import TypeGuard

import asyncpg

from archive.access import READERS, Caller, Level
from archive.bounds import FREE, Bounds, Rate
from archive.errors import UnauthenticatedError
from archive.recording import Call, CallType
from archive.token import Token
from storage import ledger, persons, scopes
from storage.database import Connection
from storage.keyring import Ring
from storage.persons import KeyRefusedError

__all__ = ["KeyRefusedError"]

LONGEST_OVERLAP = timedelta(days=31)
"""How long the former secret of a key may hold after a rotation, at the most."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOBODY = bytes(32)
"""What is compared with where there is nothing: no HMAC that anybody can show."""

_RESTING = timedelta(minutes=1)
"""How old the written time of a key's last use is allowed to be."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader's key is limited to when it is made; None is no limit."""

    call_types: Sequence[str] | None = None
    queues: Sequence[str] | None = None
    teams: Sequence[str] | None = None


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Login:
    """A caller who showed a valid token, the archive's now, and what to ask again with.

    `stale`: the key's last use is to be written down. `session`: it is a person's
    (storage/sessions.py), not a key; `idle`: after how long without use it ends.
    """

    caller: Caller
    now: datetime
    shown: bytes = field(repr=False)
    stale: bool = False
    session: bool = False
    idle: timedelta | None = None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What the command line lists of a key; `id` is how the ledger names it as an actor."""

    id: str
    name: str
    level: str
    source: str | None
    call_types: tuple[str, ...] | None
    queues: tuple[str, ...] | None
    teams: tuple[str, ...] | None
    networks: tuple[str, ...] | None
    rate: str | None
    quota: int | None
    created_at: datetime
    former_until: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    person: str | None


def read(text: str) -> Token:
    """Read a token. Raises UnauthenticatedError for what cannot be one, as for an unknown one."""
    if (token := Token.from_text(text)) is None:
        raise _unknown()
    return token


async def authenticate(connection: Connection, ring: Ring, token: Token) -> Login:
    """Tell who holds this token, and the archive's now, in one look at the database.

    Raises UnauthenticatedError for a token that is not known or was revoked, without saying which;
    the same is computed and compared for both.
    """
    row = await _living(connection, token.id)
    shown = _peppered(ring, token)
    if not _shows(row, shown):
        raise _unknown()
    return Login(_caller(ring, token.id, row), row["now"], shown, not row["fresh"])


async def _living(connection: Connection, key: str) -> asyncpg.Record | None:
    """The row of a key that was not revoked, with all that its rights hang on."""
    return await connection.fetchrow(
        f"SELECT k.level, k.source, {scopes.COLUMNS}, k.networks, k.rate, k.quota, k.secret,"  # noqa: S608
        " archive_now() AS now,"
        " CASE WHEN k.former_until > archive_now() THEN k.former END AS former,"
        " k.used_at > archive_now() - $2::interval AS fresh"
        " FROM access_key k WHERE k.id = $1 AND k.revoked_at IS NULL",
        key,
        _RESTING,
    )


async def uploader(connection: Connection, ring: Ring, name: str) -> tuple[Caller, datetime] | None:
    """Who delivers by an uploader's key without showing it, as the configuration names it, and the
    archive's now; None when there is no such key, or it was revoked.
    """
    key = await connection.fetchval(
        "SELECT id FROM access_key WHERE name = $1 AND level = 'uploader'", name
    )
    row = key and await _living(connection, key)
    return (_caller(ring, key, row), row["now"]) if row else None


def _shows(row: asyncpg.Record | None, shown: bytes) -> TypeGuard[asyncpg.Record]:
    """Whether this is what the key's token shows; as much is compared when there is no key."""
    secret = row["secret"] if row else _NOBODY
    former = (row and row["former"]) or _NOBODY
    same = hmac.compare_digest(shown, secret) | hmac.compare_digest(shown, former)
    return same and row is not None


def _caller(ring: Ring, key: str, row: asyncpg.Record) -> Caller:
    networks, rate = row["networks"], row["rate"]
    bounds = Bounds(
        None if networks is None else tuple(networks),
        None if rate is None else Rate.from_text(rate),
        row["quota"],
    )
    return Caller(key, Level(row["level"]), row["source"], scopes.read(ring, row), bounds)


def _unknown() -> UnauthenticatedError:
    return UnauthenticatedError("The key is not known, or was revoked. Ask for a new one.")


def _peppered(ring: Ring, token: Token) -> bytes:
    # With the id, so that a row is no use under another's.
    return hmac.digest(
        ring.lookup_key("access-key"), f"{token.id}_{token.secret}".encode(), "sha256"
    )


async def holds(connection: Connection, ring: Ring, login: Login, *calls: Call) -> bool:
    """Whether who logged in may still know of such calls: asked while they are being sent."""
    row = await _living(connection, login.caller.id)
    if not _shows(row, login.shown) or row["level"] != login.caller.level:
        return False
    scope = scopes.read(ring, row)
    return all(scope.covers(call.call_type, call.queue, call.agent) for call in calls)


async def used(connection: Connection, key: str) -> None:
    """Write down that a key was used just now, if that was not done within the minute."""
    await connection.execute(
        "UPDATE access_key SET used_at = archive_now() WHERE id = $1"
        " AND (used_at IS NULL OR used_at <= archive_now() - $2::interval)",
        key,
        _RESTING,
    )


async def add(
    connection: Connection,
    ring: Ring,
    name: str,
    level: Level,
    source: str | None = None,
    limits: Limits = UNLIMITED,
    bounds: Bounds = FREE,
    person: str | None = None,
) -> str:
    """Make a key and return its token, which is not stored. Raises KeyRefusedError."""
    if level is Level.UPLOADER:
        source = source or name
    _check(name, level, source, bounds)
    await check_limits(connection, level, limits)
    token = Token.new()
    async with connection.transaction():
        try:
            await connection.execute(
                "INSERT INTO access_key (id, name, level, source, call_types, queues, teams,"
                " networks, rate, quota, secret, person)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                token.id,
                name,
                level,
                source,
                limits.call_types,
                limits.queues,
                limits.teams,
                bounds.networks,
                bounds.rate and bounds.rate.text,
                bounds.quota,
                _peppered(ring, token),
                None if person is None else persons.spelled(person),
            )
        except asyncpg.UniqueViolationError:
            raise KeyRefusedError("there is a key of this name; revoked names stay taken") from None
        facts = {"key": token.id, "level": level, "source": source}
        await ledger.record(connection, ledger.SYSTEM, "key.added", facts=facts)
    return token.text()


def _check(
    name: str,
    level: Level,
    source: str | None,
    bounds: Bounds,
) -> None:
    if not _NAME.fullmatch(name):
        raise KeyRefusedError("a name has 1 to 64 letters, digits, dots, dashes or underscores")
    if source and level is not Level.UPLOADER:
        raise KeyRefusedError("only an uploader's key has a source")
    if source and not _NAME.fullmatch(source):
        raise KeyRefusedError("a source is written like a name")
    if bounds.quota and level is not Level.UPLOADER:
        raise KeyRefusedError("only an uploader's key has a quota")


async def check_limits(connection: Connection, level: Level, limits: Limits) -> None:
    """Refuse what nobody of this level can be limited to. Raises KeyRefusedError."""
    types = limits.call_types
    if types is not None and not (types and set(types) <= set(CallType)):
        raise KeyRefusedError("call types are one or more of " + ", ".join(CallType))
    for names in (limits.queues, limits.teams):
        if names is not None and not (names and all(each.strip() for each in names)):
            raise KeyRefusedError("queues and teams are one or more names")
    if limits != UNLIMITED and level not in READERS:
        raise KeyRefusedError("only who reads is limited to call types, queues or teams")
    await _check_teams(connection, limits.teams)


async def _check_teams(connection: Connection, teams: Sequence[str] | None) -> None:
    found = await connection.fetchval(
        "SELECT count(*) FROM team WHERE name = ANY ($1)", [*(teams or ())]
    )
    if found != len(set(teams or ())):
        raise KeyRefusedError("there is no team of that name: `archive team list` lists them")


async def rotate(
    connection: Connection, ring: Ring, name: str, overlap: timedelta
) -> tuple[str, Level, datetime]:
    """Give a key a new secret; returns its token, the level, and until when the former holds.

    An even older one ends now. Raises KeyRefusedError when there is no such key that lives.
    """
    if not timedelta() <= overlap <= LONGEST_OVERLAP:
        raise KeyRefusedError(f"an overlap is at the most {LONGEST_OVERLAP.days} days")
    async with connection.transaction():
        row = await connection.fetchrow(
            "SELECT id, level FROM access_key WHERE name = $1 AND revoked_at IS NULL"
            " FOR NO KEY UPDATE",
            name,
        )
        if row is None:
            raise KeyRefusedError("there is no living key of this name")
        token = Token.new(row["id"])
        until: datetime = await connection.fetchval(
            "UPDATE access_key SET secret = $2, former = secret,"
            " former_until = archive_now() + $3::interval WHERE id = $1 RETURNING former_until",
            token.id,
            _peppered(ring, token),
            overlap,
        )
        facts = {"key": token.id, "overlap": int(overlap.total_seconds())}
        await ledger.record(connection, ledger.SYSTEM, "key.rotated", facts=facts)
    return token.text(), Level(row["level"]), until


async def revoke(connection: Connection, name: str) -> None:
    """Revoke a key, at once. Raises KeyRefusedError when there is none of that name that lives."""
    async with connection.transaction():
        identifier = await connection.fetchval(
            "UPDATE access_key SET revoked_at = archive_now()"
            " WHERE name = $1 AND revoked_at IS NULL RETURNING id",
            name,
        )
        if identifier is None:
            raise KeyRefusedError("there is no living key of this name")
        await ledger.record(connection, ledger.SYSTEM, "key.revoked", facts={"key": identifier})


async def every(connection: Connection) -> list[KeyRow]:
    """All keys that ever were, oldest first."""
    rows = await connection.fetch(
        "SELECT id, name, level, source, call_types, queues, teams, networks, rate, quota,"
        " created_at,"
        " CASE WHEN former_until > archive_now() THEN former_until END AS former_until,"
        " used_at, revoked_at, person FROM access_key ORDER BY created_at, name"
    )
    return [_row(row) for row in rows]


def _row(row: asyncpg.Record) -> KeyRow:
    networks = row["networks"]
    return KeyRow(
        row["id"],
        row["name"],
        row["level"],
        row["source"],
        _names(row["call_types"]),
        _names(row["queues"]),
        _names(row["teams"]),
        None if networks is None else tuple(str(ip_network(each)) for each in networks),
        row["rate"],
        row["quota"],
        row["created_at"],
        row["former_until"],
        row["used_at"],
        row["revoked_at"],
        row["person"],
    )


def _names(found: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if found is None else tuple(found)
