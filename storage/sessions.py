"""Sessions of people: begun with a fresh secret, asked at each request, ended at once.

The browser holds 256 random bit; the database their HMAC under a key of the ring. A session ends
when it was not used for a while, when it has lasted long enough, when its owner signs out, and with
its account: rights are the account's, read from its row each time.
"""

import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg

from archive.errors import NotFoundError, UnauthenticatedError
from archive.recording import Call
from storage import accounts, ledger, scopes
from storage.credentials import Login
from storage.database import Connection
from storage.keyring import Ring

_RESTING = timedelta(seconds=20)
"""How old the written time of a session's last use is allowed to be."""

_SETTING_UP = timedelta(minutes=15)

_LIVES = "s.ends_at > archive_now() AND s.seen_at + s.idle > archive_now() AND k.locked_at IS NULL"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a session lasts: without being used, and at all."""

    idle: timedelta = timedelta(minutes=15)
    absolute: timedelta = timedelta(hours=8)


USUAL = Limits()
"""Where nothing else is said."""


@dataclass(frozen=True, slots=True)
class SettingUp:
    """Whose password and second factor are being set up, and the secret that is offered for it."""

    account: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """A session as its owner is told of it. `id` names it and opens nothing; `this`: it asks."""

    id: str
    began_at: datetime
    seen_at: datetime
    ends_at: datetime
    this: bool


_NAMED = "encode(substr(s.id, 1, 16), 'hex')"


def _over() -> UnauthenticatedError:
    return UnauthenticatedError("You are not signed in, or not any more: sign in at /sign-in.")


def _id(ring: Ring, secret: str) -> bytes:
    return hmac.digest(ring.lookup_key("session"), secret.encode(), "sha256")


def token(ring: Ring, secret: str) -> str:
    """What a form of this session has to carry, which no other site can know."""
    return hmac.new(ring.lookup_key("session-form"), secret.encode(), "sha256").hexdigest()


async def begin(connection: Connection, ring: Ring, account: str, limits: Limits, by: str) -> str:
    """Begin a session; returns the secret, which is new each time. In the caller's transaction."""
    secret = secrets.token_urlsafe(32)
    await _forget(connection)
    await connection.execute(
        "INSERT INTO session (id, account, idle, ends_at)"
        " VALUES ($1, $2, $3, archive_now() + $4::interval)",
        _id(ring, secret),
        account,
        limits.idle,
        limits.absolute,
    )
    await connection.execute(
        "UPDATE account SET signed_in_at = archive_now() WHERE id = $1", account
    )
    await ledger.record(connection, account, "signed_in", facts={"by": by})
    return secret


async def begin_setup(connection: Connection, ring: Ring, account: str, sealed: bytes) -> str:
    """Begin what opens the page alone where a password and a second factor are set up."""
    secret = secrets.token_urlsafe(32)
    await _forget(connection)
    await connection.execute(
        "INSERT INTO session (id, account, setup, idle, ends_at)"
        " VALUES ($1, $2, $3, $4, archive_now() + $4::interval)",
        _id(ring, secret),
        account,
        sealed,
        _SETTING_UP,
    )
    return secret


async def _forget(connection: Connection) -> None:
    await connection.execute(
        "DELETE FROM session WHERE ends_at < archive_now() OR seen_at + idle < archive_now()"
    )


async def authenticate(connection: Connection, ring: Ring, secret: str) -> Login:
    """Tell who holds this session, and the archive's now. Raises UnauthenticatedError."""
    identifier = _id(ring, secret)
    row = await _living(connection, identifier)
    if row is None:
        raise _over()
    if row["stale"]:
        await _touch(connection, identifier)
    caller, idle = accounts.caller(ring, row), row["idle"]
    return Login(caller, row["now"], identifier, session=True, idle=idle)


async def _living(connection: Connection, identifier: bytes) -> asyncpg.Record | None:
    return await connection.fetchrow(
        f"SELECT k.id, k.level, {scopes.COLUMNS}, archive_now() AS now, s.idle,"  # noqa: S608
        " s.seen_at <= archive_now() - $2::interval AS stale FROM session s"
        f" JOIN account k ON k.id = s.account WHERE s.id = $1 AND s.setup IS NULL AND {_LIVES}",
        identifier,
        _RESTING,
    )


async def _touch(connection: Connection, identifier: bytes) -> None:
    """Write down that a session was used just now."""
    await connection.execute("UPDATE session SET seen_at = archive_now() WHERE id = $1", identifier)


async def holds(connection: Connection, ring: Ring, login: Login, *calls: Call) -> bool:
    """Whether who is signed in may still know of such calls: asked while they are being sent.

    To listen is to use the session.
    """
    row = await _living(connection, login.shown)
    if row is None:
        return False
    if row["stale"]:
        await _touch(connection, login.shown)
    caller = accounts.caller(ring, row)
    known = (caller.scope.covers(call.call_type, call.queue, call.agent) for call in calls)
    return caller.level is login.caller.level and all(known)


async def setting_up(connection: Connection, ring: Ring, secret: str) -> SettingUp:
    """Who sets up what. Raises UnauthenticatedError."""
    row = await connection.fetchrow(
        "SELECT s.account, s.setup FROM session s JOIN account k ON k.id = s.account"  # noqa: S608
        f" WHERE s.id = $1 AND s.setup IS NOT NULL AND {_LIVES}",
        _id(ring, secret),
    )
    if row is None:
        raise _over()
    return SettingUp(row["account"], row["setup"])


async def end(connection: Connection, ring: Ring, secret: str) -> None:
    """Sign out."""
    async with connection.transaction():
        row = await connection.fetchrow(
            "DELETE FROM session WHERE id = $1 RETURNING account, setup IS NULL AS open",
            _id(ring, secret),
        )
        if row and row["open"]:
            await ledger.record(connection, row["account"], "signed_out")


async def end_all(connection: Connection, account: str, but: bytes = b"") -> None:
    """Sign an account out everywhere, or everywhere else."""
    await connection.execute("DELETE FROM session WHERE account = $1 AND id <> $2", account, but)


async def held(connection: Connection, login: Login) -> list[Held]:
    """Where somebody is signed in, the latest first. A key is nowhere."""
    rows = await connection.fetch(
        f"SELECT {_NAMED} AS id, s.began_at, s.seen_at,"  # noqa: S608 - our own words
        " least(s.ends_at, s.seen_at + s.idle) AS ends_at, s.id = $2 AS this"
        " FROM session s JOIN account k ON k.id = s.account"
        f" WHERE k.id = $1 AND s.setup IS NULL AND {_LIVES} ORDER BY s.began_at DESC, s.id",
        login.caller.id,
        login.shown,
    )
    return [Held(**dict(row)) for row in rows]


async def end_one(connection: Connection, account: str, named: str) -> None:
    """Sign somebody out in one place. Raises NotFoundError for none of theirs."""
    # Whatever else stands in an address is not shown to the database, which may log it.
    known = re.fullmatch("[0-9a-f]{32}", named) is not None
    async with connection.transaction():
        if not known or not await connection.fetchval(
            "DELETE FROM session s WHERE account = $1 AND s.setup IS NULL"  # noqa: S608 - our own
            f" AND {_NAMED} = $2 RETURNING true",
            account,
            named,
        ):
            raise NotFoundError("No session of yours has this id.")
        await ledger.record(connection, account, "signed_out")
