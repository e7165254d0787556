"""`archive key`: bearer keys, made, listed, rotated and revoked by who may run commands on the
machine.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from app import pools
from app.config import Config
from app.embedded import Embedded
from app.vault import open_ring
from archive.access import Level
from archive.bounds import Bounds
from storage import credentials, schema
from storage.credentials import KeyRow, Limits
from storage.database import Connection, Pool, connection
from storage.keyring import Ring


@asynccontextmanager
async def _database(config: Config) -> AsyncIterator[Pool]:
    """The database alone: keys do not need the object store."""
    async with Embedded(
        config.server.data_dir, want_postgres=config.database.embedded, want_s3=False, join=True
    ) as servers:
        pool = await pools.open_owner(config, servers, size=1)
        try:
            async with connection(pool) as lent:
                await schema.migrate(lent)
            yield pool
        finally:
            await pool.close()


@asynccontextmanager
async def keyed(config: Config) -> AsyncIterator[tuple[Connection, Ring]]:
    """A connection, and the ring, under whose keys secrets are hashed and teams are sealed."""
    async with _database(config) as pool:
        ring = await open_ring(config, pool, config.retention)
        async with connection(pool) as lent:
            yield lent, ring


async def add(
    config: Config,
    name: str,
    level: Level,
    source: str | None,
    limits: Limits,
    bounds: Bounds,
    person: str | None,
) -> str:
    """Make a key; returns its token. Raises KeyRefusedError."""
    async with keyed(config) as (lent, ring):
        return await credentials.add(lent, ring, name, level, source, limits, bounds, person)


async def every(config: Config) -> list[KeyRow]:
    """All keys that ever were."""
    async with _database(config) as pool, connection(pool) as lent:
        return await credentials.every(lent)


async def rotate(config: Config, name: str, overlap: timedelta) -> tuple[str, Level, datetime]:
    """Give a key a new token; returns it, and until when the former holds."""
    async with keyed(config) as (lent, ring):
        return await credentials.rotate(lent, ring, name, overlap)


async def revoke(config: Config, name: str) -> None:
    """Revoke a key, at once. Raises KeyRefusedError."""
    async with _database(config) as pool, connection(pool) as lent:
        await credentials.revoke(lent, name)
