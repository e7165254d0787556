"""The database and the ring, for commands that need no more: on keys, accounts, teams, periods."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app import pools
from app.config import Config
from app.embedded import Embedded
from app.vault import open_ring
from storage import schema
from storage.database import Connection, Pool, connection
from storage.keyring import Ring


@asynccontextmanager
async def database(config: Config) -> AsyncIterator[Pool]:
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
    async with database(config) as pool:
        ring = await open_ring(config, pool, config.retention)
        async with connection(pool) as lent:
            yield lent, ring
