"""Postgres: the pool, the schema, and the one clock.

`archive_now()` of the database is the archive's only "now": not the service's clock, and not the
transaction's. A connection that breaks is told to callers as UnavailableError, whatever the driver
called it; whether a commit that was under way landed is for the verb to find out, never to assume.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from archive.errors import UnavailableError
from storage import roles

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection

OLDEST = 150000
"""The oldest server that is supported, in Postgres' own numbering: 15.0."""

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # Of a connection that the server ended while it was idle, if its end is not noticed yet.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    # Of two that wait for each other's rows it is one that gives way; nothing of it was done.
    asyncpg.DeadlockDetectedError,
)
"""What the driver raises when the server is away, restarting, full or gives a statement up."""

TURNED_AWAY = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""What it raises when the server does not know the user, the password or the database."""

_MIGRATION = 0x63_72_61_31
"""The advisory lock under which two services that start together take turns to migrate."""


class SchemaError(RuntimeError):
    """This program cannot work with this database; the message says what to do."""


PATIENCE = 60.0
"""Seconds that a statement may take."""

LONG = 86400.0
"""The same where a person waits for a look at everything, which nobody else waits for."""


async def open_pool(url: str, size: int = 20, patience: float = PATIENCE) -> Pool:
    """Connect to the database. Raises UnavailableError when it cannot be reached."""
    with _told():
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=10,
            command_timeout=patience,
            init=_prepare,
            reset=_leave,
            server_settings={
                "timezone": "UTC",
                "application_name": "call-archive",
            },
        )


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads
    )


async def _leave(connection: Connection) -> None:
    """Nothing to undo when a connection goes back: no verb changes its session.

    What asyncpg does here by default is one more round trip for each loan.
    """


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """Lend a connection; a server that is away becomes UnavailableError."""
    with _told():
        async with pool.acquire(timeout=10) as lent:
            yield lent


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the driver raises when the server is away into what a caller is told."""
    try:
        yield
    except AWAY as error:
        raise UnavailableError("The database is away; try again.") from error
    except TURNED_AWAY as error:
        raise UnavailableError("The database refuses this user, password or name.") from error


async def now(pool: Pool) -> datetime:
    """The archive's clock."""
    async with connection(pool) as lent:
        return _instant(await lent.fetchval("SELECT archive_now()"))


def _instant(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError("the database's clock gave no time")
    return value


async def migrate(connection: Connection) -> list[str]:
    """Bring the schema up to date, as its owner: the numbered files of `storage/migrations`, each
    once, forward only; and give the roles their rights.

    Returns the statements that make the roles which are not there, for who may run them.

    Raises SchemaError when the server is too old, or the schema newer than this program.
    """
    version = connection.get_server_version()
    if version.major * 10000 < OLDEST:
        raise SchemaError(f"PostgreSQL {version.major} is too old: 15 or newer is needed")
    await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION)
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY,"
            " at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migration")}
        known = _migrations()
        if done - known.keys():
            raise SchemaError("the database was made by a newer release: install that one")
        for number in sorted(known.keys() - done):
            async with connection.transaction():
                await connection.execute(known[number])
                await connection.execute("INSERT INTO migration (number) VALUES ($1)", number)
        return await roles.grant(connection)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _MIGRATION)


async def check_schema(connection: Connection) -> None:
    """See that the owner has brought the schema up to date. Raises SchemaError when not."""
    try:
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migration")}
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        done = set()
    if done != _migrations().keys():
        raise SchemaError(
            "the database's schema is not this program's: run `archive migrate` of the same"
            " release, as the owner of the tables"
        )


def _migrations() -> dict[int, str]:
    found = {}
    for entry in files("storage").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_\w+\.sql", entry.name)
        if match:
            found[int(match[1])] = entry.read_text(encoding="utf-8")
    return found
