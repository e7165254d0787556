"""The database as each part of the service sees it: by a login of its own, or as the owner.

A login of its own is more than one that may become a role: who gets hold of a part's connection has
nothing to go back to.
"""

import logging
from contextlib import AsyncExitStack

from app.config import Config, ConfigError
from app.embedded import Embedded
from storage import database
from storage.database import Pool

log = logging.getLogger("archive")

SIZES = {
    **{"ingest": 20, "retrieval": 20, "operations": 5, "jobs": 10},
    **{"sequencer": 5, "sign_in": 5},
}
"""Connections that a role holds at the most."""


def owner(config: Config, servers: Embedded) -> str:
    """Where the owner of the tables logs in. Raises ConfigError when that is not known here."""
    if found := servers.database_url or config.database.url:
        return found
    raise ConfigError(
        str(config.path), "database", "url", "is needed for this: it is the owner's login"
    )


async def open_owner(
    config: Config, servers: Embedded, size: int = 20, patience: float = database.PATIENCE
) -> Pool:
    """The owner's pool. Raises ConfigError when its login is not known here or cannot be used."""
    return await _open(config, "url", owner(config, servers), size, patience)


async def _open(
    config: Config, key: str, url: str, size: int, patience: float = database.PATIENCE
) -> Pool:
    try:
        return await database.open_pool(url, size, patience)
    except database.UrlError as error:
        raise ConfigError(str(config.path), "database", key, str(error)) from None


class Pools:
    """The pools of the roles, opened as they are asked for; the stack closes them."""

    def __init__(self, config: Config, servers: Embedded, stack: AsyncExitStack) -> None:
        self._config = config
        self._servers = servers
        self._stack = stack
        self._opened: dict[str, Pool] = {}

    async def of(self, role: str) -> Pool:
        """The role's pool. Those that have no login share the owner's."""
        url = self._servers.logins.get(role) or self._config.database.logins[role]
        key, size = f"{role}_login", SIZES[role]
        if not url:
            key, url, size = "url", owner(self._config, self._servers), 20
            log.warning(
                "%s works as the owner of the database's tables: [database] %s_login gives it fewer"
                " rights",
                role,
                role,
            )
        if url not in self._opened:
            self._opened[url] = pool = await _open(self._config, key, url, size)
            self._stack.push_async_callback(pool.close)
        return self._opened[url]
