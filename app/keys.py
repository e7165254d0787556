"""`archive key`: bearer keys, made, listed, rotated and revoked by who may run commands on the
machine.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from app.config import Config
from app.embedded import Embedded
from app.serve import open_ring
from archive.access import Level
from archive.bounds import Bounds
from archive.retention import Policy
from storage import credentials, database
from storage.credentials import KeyRow
from storage.database import Pool, connection
from storage.keyring import Ring


@asynccontextmanager
async def _database(config: Config) -> AsyncIterator[Pool]:
    """The database alone: keys do not need the object store."""
    async with Embedded(
        config.server.data_dir, want_postgres=config.database.embedded, want_s3=False, join=True
    ) as servers:
        pool = await database.open_pool(servers.database_url or config.database.url, size=1)
        try:
            async with connection(pool) as lent:
                await database.migrate(lent)
            yield pool
        finally:
            await pool.close()


async def _ring(config: Config, pool: Pool) -> Ring:
    """The ring, under one of whose keys the secrets of access keys are hashed."""
    return await open_ring(
        config, pool, Policy(config.retention.timezone, config.retention.periods)
    )


async def add(
    config: Config,
    name: str,
    level: Level,
    source: str | None,
    call_types: Sequence[str] | None,
    bounds: Bounds,
) -> str:
    """Make a key; returns its token. Raises KeyRefusedError."""
    async with _database(config) as pool:
        ring = await _ring(config, pool)
        async with connection(pool) as lent:
            return await credentials.add(lent, ring, name, level, source, call_types, bounds)


async def every(config: Config) -> list[KeyRow]:
    """All keys that ever were."""
    async with _database(config) as pool, connection(pool) as lent:
        return await credentials.every(lent)


async def rotate(config: Config, name: str, overlap: timedelta) -> tuple[str, Level, datetime]:
    """Give a key a new token; returns it, and until when the former holds."""
    async with _database(config) as pool:
        ring = await _ring(config, pool)
        async with connection(pool) as lent:
            return await credentials.rotate(lent, ring, name, overlap)


async def revoke(config: Config, name: str) -> None:
    """Revoke a key, at once. Raises KeyRefusedError."""
    async with _database(config) as pool, connection(pool) as lent:
        await credentials.revoke(lent, name)
