"""Postgres: the pool, and the one clock.

`archive_now()` of the database is the archive's only "now": not the service's clock, and not the
transaction's. A connection that breaks is told to callers as UnavailableError, whatever the driver
called it; whether a commit that was under way landed is for the verb to find out, never to assume.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg

from archive.errors import UnavailableError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    _Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = _Driver = asyncpg.Connection

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # Of a connection that the server ended while it was idle, if its end is not noticed yet.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    # Of a standby, or of one that was the primary until another took over.
    asyncpg.ReadOnlySQLTransactionError,
    # Of two that wait for each other's rows it is one that gives way; nothing of it was done.
    asyncpg.DeadlockDetectedError,
)
"""What the driver raises when the server is away, restarting, full, not the primary, or gives a
statement up.
"""

TURNED_AWAY = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""What it raises when the server does not know the user, the password or the database."""

PATIENCE = 60.0
"""Seconds that a statement may take."""

LONG = 86400.0
"""The same where a person waits for a look at everything, which nobody else waits for."""

KNOWN = {
    oid: {
        "oid": oid,
        "ns": "pg_catalog",
        "name": f"_{name}",
        "kind": b"b",
        "elemtype": element,
        "elemdelim": ",",
        "elemtype_name": name,
        "basetype": None,
        "range_subtype": None,
        "attrtypoids": None,
    }
    for oid, element, name in (
        (651, 650, "cidr"),
        (1001, 17, "bytea"),
        (1005, 21, "int2"),
        (1007, 23, "int4"),
        (1016, 20, "int8"),
        (1182, 1082, "date"),
        (1185, 1184, "timestamptz"),
        (2287, 2249, "record"),
        (2951, 2950, "uuid"),
        (3807, 3802, "jsonb"),
    )
}
"""The arrays that statements use, as PostgreSQL's catalogue tells of them (its pg_type.dat)."""

SETTINGS = {
    "timezone": "UTC",
    "application_name": "call-archive",
    "synchronous_commit": "on",
}
"""What each connection asks for, before anything that is set for the server, the database or the
role: what is acknowledged is on the disk, and on that of a synchronous standby. (`remote_apply`
keeps nothing safer: it waits for readers of the standby, of which the archive is none.)
"""

FILES = ("sslrootcert", "sslcrl", "sslcert", "sslkey")
"""What a URL may name a file in."""


class UrlError(ValueError):
    """The URL of the database cannot be used. It is not repeated: it may hold a password."""


class _Link(_Driver):
    """A connection that knows PostgreSQL's arrays without asking what they are.

    The driver asks on each connection, at the first use of each type, and the answer costs the
    server 10 ms: as much as seven uploads.
    """

    async def _introspect_types(self, typeoids: Any, timeout: float | None) -> Any:
        if all(oid in KNOWN for oid in typeoids):
            return [KNOWN[oid] for oid in typeoids], SimpleNamespace(name="not asked")
        return await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]


async def open_pool(url: str, size: int = 20, patience: float = PATIENCE) -> Pool:
    """Connect to the database. Raises UnavailableError when it cannot be reached, UrlError when the
    URL says what the driver cannot do.
    """
    _check_files(url)
    with _told(), _understood():
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=10,
            command_timeout=patience,
            connection_class=_Link,
            init=_prepare,
            reset=_leave,
            server_settings=SETTINGS,
        )


def _check_files(url: str) -> None:
    """A missing file would look like the socket of a server that is away."""
    named = parse_qs(urlsplit(url).query)
    for key in (key for key in FILES if key in named):
        if not os.access(named[key][-1], os.R_OK):
            raise UrlError(f"names a file in {key} that is not there or cannot be read")


@contextmanager
def _understood() -> Iterator[None]:
    """Turn what the driver says of a URL into an error without its words, which repeat the URL."""
    try:
        yield
    except ValueError:  # ClientConfigurationError is one, too
        raise UrlError("has a host or a parameter that cannot be used") from None


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
