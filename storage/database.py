"""Postgres: the pool, and the one clock.

`archive_now()` of the database is the archive's only "now": not the service's clock, and not the
transaction's. A connection that breaks is told to callers as UnavailableError, whatever the driver
called it; whether a commit that was under way landed is for the verb to find out, never to assume.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from archive.errors import UnavailableError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection

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
