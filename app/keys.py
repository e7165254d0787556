"""`archive key`: bearer keys, made, listed and revoked by who may run commands on the machine."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.config import Config
from app.embedded import Embedded
from archive.access import Level
from storage import credentials, database
from storage.credentials import KeyRow
from storage.database import Connection, connection


@asynccontextmanager
async def _database(config: Config) -> AsyncIterator[Connection]:
    """The database alone: keys need neither the object store nor the ring."""
    async with Embedded(
        config.server.data_dir, want_postgres=config.database.embedded, want_s3=False, join=True
    ) as servers:
        pool = await database.open_pool(servers.database_url or config.database.url, size=1)
        try:
            async with connection(pool) as lent:
                await database.migrate(lent)
                yield lent
        finally:
            await pool.close()


async def add(
    config: Config, name: str, level: Level, source: str | None, call_types: Sequence[str] | None
) -> str:
    """Make a key; returns its token. Raises KeyRefusedError."""
    async with _database(config) as lent:
        return await credentials.add(lent, name, level, source, call_types)


async def every(config: Config) -> list[KeyRow]:
    """All keys that ever were."""
    async with _database(config) as lent:
        return await credentials.every(lent)


async def revoke(config: Config, name: str) -> None:
    """Revoke a key, at once. Raises KeyRefusedError."""
    async with _database(config) as lent:
        await credentials.revoke(lent, name)
