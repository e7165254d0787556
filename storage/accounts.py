"""Accounts of people: who they are to the archive, what they may, and how their rights end at once.

A local account is made with a password that somebody else knows, so it opens nothing but the page
where its owner makes their own and sets up a second factor (storage/signing_in.py). Names are for
the command line and the sign-in page; the ledger and the log have the account's id alone.
"""

import re
import secrets
import string
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg

from archive.access import Caller, Level
from storage import credentials, ledger, passwords, scopes
from storage.credentials import UNLIMITED, KeyRefusedError, Limits
from storage.database import Connection
from storage.keyring import Ring

INITIAL = timedelta(hours=72)
"""How long a password holds that somebody else made."""

NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")
_SMALL = string.ascii_lowercase + string.digits
_SPOKEN = "abcdefghjkmnpqrstuvwxyz23456789"
"""What cannot be mistaken when it is read out or copied by hand."""

_COLUMNS = (
    "id, name, level, password, initial_until, second_factor, factor,"
    " locked_at IS NOT NULL AS locked"
)


@dataclass(frozen=True, slots=True)
class Account:
    """What signing in needs of a local account. `initial_until`: its owner did not make it yet."""

    id: str
    name: str
    password: str = field(repr=False)
    initial_until: datetime | None
    second_factor: bool
    factor: bytes | None = field(repr=False)
    locked: bool

    @property
    def to_be_set_up(self) -> bool:
        """Whether its owner has to make a password or a second factor first."""
        return self.initial_until is not None or (self.second_factor and self.factor is None)

    def opens(self, now: datetime) -> bool:
        """Whether the right password opens it at all."""
        return not self.locked and (self.initial_until is None or now < self.initial_until)


@dataclass(frozen=True, slots=True)
class AccountRow:
    """What the command line lists of an account; `id` is how the ledger names it as an actor."""

    id: str
    name: str
    level: str
    call_types: tuple[str, ...] | None
    queues: tuple[str, ...] | None
    teams: tuple[str, ...] | None
    provider: bool
    set_up: bool
    created_at: datetime
    signed_in_at: datetime | None
    sessions: int
    locked_at: datetime | None
    person: str | None


def caller(ring: Ring, row: asyncpg.Record) -> Caller:
    """Who asks, by the row of an account."""
    return Caller(row["id"], Level(row["level"]), scope=scopes.read(ring, row))


def new_id() -> str:
    """The id of a new account, which looks unlike a key's."""
    return "person-" + "".join(secrets.choice(_SMALL) for _ in range(12))


async def add(
    connection: Connection,
    ring: Ring,
    name: str,
    level: Level,
    limits: Limits = UNLIMITED,
    own_password: str = "",
) -> str:
    """Make a local account and return its first password, which is not stored.

    `own_password`, of a sample account, holds on, and without a second factor. Raises
    KeyRefusedError.
    """
    name = name.casefold()
    if not NAME.fullmatch(name):
        raise KeyRefusedError("a name has 1 to 128 letters, digits or any of . _ @ + -")
    await _check(connection, level, limits)
    account, password = new_id(), own_password or spoken()
    kept = await passwords.hashed(ring, account, password)
    async with connection.transaction():
        try:
            await connection.execute(
                "INSERT INTO account (id, name, level, call_types, queues, teams, password,"
                " second_factor, initial_until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8,"
                " CASE WHEN $8 THEN archive_now() + $9::interval END)",
                account,
                name,
                level,
                limits.call_types,
                limits.queues,
                limits.teams,
                kept,
                not own_password,
                INITIAL,
            )
        except asyncpg.UniqueViolationError:
            raise KeyRefusedError("there is an account of this name") from None
        facts = {"account": account, "level": level, "second_factor": not own_password}
        await ledger.record(connection, ledger.SYSTEM, "account.added", facts=facts)
    return password


async def _check(connection: Connection, level: Level, limits: Limits) -> None:
    if level is Level.UPLOADER:
        raise KeyRefusedError("an uploader is a machine: make it a key")
    await credentials.check_limits(connection, level, limits)


def spoken() -> str:
    """A password of 98 bits of chance that can be read out."""
    groups = ("".join(secrets.choice(_SPOKEN) for _ in range(5)) for _ in range(4))
    return "-".join(groups)


async def named(connection: Connection, name: str) -> tuple[Account | None, datetime]:
    """The local account of this name, as it is typed; and the archive's now."""
    row = await connection.fetchrow(
        f"SELECT archive_now() AS now, a.* FROM (SELECT 1) one LEFT JOIN"  # noqa: S608 - our own
        f" (SELECT {_COLUMNS} FROM account WHERE name = $1 AND password IS NOT NULL) a ON true",
        name.strip().casefold()[:128],
    )
    assert row is not None
    return (None if row["id"] is None else _account(row)), row["now"]


def _account(row: asyncpg.Record) -> Account:
    return Account(
        row["id"],
        row["name"],
        row["password"],
        row["initial_until"],
        row["second_factor"],
        row["factor"],
        row["locked"],
    )


async def of_id(connection: Connection, account: str) -> Account | None:
    """A local account by its id."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM account WHERE id = $1 AND password IS NOT NULL",  # noqa: S608
        account,
    )
    return _account(row) if row else None


async def change(connection: Connection, name: str, level: Level, limits: Limits) -> None:
    """Give an account another level and other limits; its next request has them."""
    await _check(connection, level, limits)
    async with connection.transaction():
        account = await _told(
            connection.fetchval(
                "UPDATE account SET level = $2, call_types = $3, queues = $4, teams = $5"
                " WHERE name = $1 RETURNING id",
                name.casefold(),
                level,
                limits.call_types,
                limits.queues,
                limits.teams,
            )
        )
        facts = {"account": account, "level": level}
        await ledger.record(connection, ledger.SYSTEM, "account.changed", facts=facts)


async def lock(connection: Connection, name: str) -> None:
    """Lock an account: it is signed out everywhere, at once. KeyRefusedError if there is none."""
    await _mark(connection, name, "account.locked", "locked_at = archive_now()")


async def unlock(connection: Connection, name: str) -> None:
    """Let an account sign in again."""
    await _mark(connection, name, "account.unlocked", "locked_at = NULL")


async def _mark(connection: Connection, name: str, act: str, change: str) -> None:
    async with connection.transaction():
        account = await _told(
            connection.fetchval(
                f"UPDATE account SET {change} WHERE name = $1 RETURNING id",  # noqa: S608 - our own
                name.casefold(),
            )
        )
        await connection.execute("DELETE FROM session WHERE account = $1", account)
        await ledger.record(connection, ledger.SYSTEM, act, facts={"account": account})


async def reset(connection: Connection, ring: Ring, name: str) -> str:
    """Give a local account a first password again, which is returned, and no second factor.

    For who forgot the one or lost the other. It is signed out everywhere. KeyRefusedError if
    there is no such local account.
    """
    account = await _told(
        connection.fetchval(
            "SELECT id FROM account WHERE name = $1 AND password IS NOT NULL", name.casefold()
        )
    )
    password = spoken()
    kept = await passwords.hashed(ring, account, password)
    async with connection.transaction():
        await connection.execute(
            "UPDATE account SET password = $2, initial_until = archive_now() + $3::interval,"
            " factor = NULL, factor_step = NULL, second_factor = true WHERE id = $1",
            account,
            kept,
            INITIAL,
        )
        await connection.execute("DELETE FROM session WHERE account = $1", account)
        await ledger.record(connection, ledger.SYSTEM, "account.reset", facts={"account": account})
    return password


async def _told(found: Awaitable[str | None]) -> str:
    if (account := await found) is None:
        raise KeyRefusedError("there is no such account of this name")
    return account


async def every(connection: Connection) -> list[AccountRow]:
    """All accounts, oldest first."""
    rows = await connection.fetch(
        "SELECT a.id, name, level, call_types, queues, teams, subject IS NOT NULL AS provider,"
        " initial_until IS NULL AND (factor IS NOT NULL OR NOT second_factor OR"
        " subject IS NOT NULL) AS set_up, created_at, signed_in_at, locked_at, person,"
        " (SELECT count(*) FROM session s WHERE s.account = a.id AND s.setup IS NULL"
        " AND s.ends_at > archive_now() AND s.seen_at + s.idle > archive_now()) AS sessions"
        " FROM account a ORDER BY created_at, name"
    )
    return [_row(row) for row in rows]


def _row(row: asyncpg.Record) -> AccountRow:
    types, queues, teams = (
        None if row[limit] is None else tuple(row[limit])
        for limit in ("call_types", "queues", "teams")
    )
    return AccountRow(
        row["id"],
        row["name"],
        row["level"],
        types,
        queues,
        teams,
        row["provider"],
        row["set_up"],
        row["created_at"],
        row["signed_in_at"],
        row["sessions"],
        row["locked_at"],
        row["person"],
    )
