"""The database's roles in tests: a vault that works as one, and a test that looks behind it as the
owner.

A verb that a test calls with a vault of `open_vault(roles=True)` is the jobs'; the doors of
`open_service` have their own. What a test itself does through `connection`, the owner does.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from storage import database, roles
from storage.database import Connection, Pool
from storage.vault import Vault


@dataclass(frozen=True, slots=True)
class _Pools:
    owner: Pool
    of: dict[str, Pool]
    doors: list[Vault] = field(default_factory=list)


_KNOWN: dict[Pool, _Pools] = {}


def login(url: str, role: str) -> str:
    """The address of the same database, for a role."""
    found = url.replace("://archive@", f"://archive_{role}@")
    assert found != url
    return found


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[dict[str, Pool]]:
    """A pool for each role."""
    async with AsyncExitStack() as stack:
        owner = await database.open_pool(url)
        stack.push_async_callback(owner.close)
        found = _Pools(owner, {})
        for role in roles.RIGHTS:
            found.of[role] = pool = await database.open_pool(login(url, role))
            stack.push_async_callback(pool.close)
            _KNOWN[pool] = found
        yield found.of
        for pool in found.of.values():
            del _KNOWN[pool]


def acting(vault: Vault, role: str) -> Vault:
    """The same vault in the hands of another part of the service."""
    if (known := _KNOWN.get(vault.pool)) is None:
        return vault
    known.doors.append(replace(vault, pool=known.of[role]))
    return known.doors[-1]


def change(vault: Vault, name: str, value: object) -> None:
    """Put another part into a vault and into what the doors have of it."""
    known = _KNOWN.get(vault.pool)
    for each in (vault, *(known.doors if known else ())):
        object.__setattr__(each, name, value)


def owned(vault: Vault) -> Vault:
    """The same vault in the hands of a command."""
    known = _KNOWN.get(vault.pool)
    if known is None:
        return vault
    return replace(vault, pool=known.owner, sequencer=known.owner, sign_in=known.owner)


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """Lend the owner's connection to the database of this pool."""
    known = _KNOWN.get(pool)
    async with database.connection(known.owner if known else pool) as lent:
        yield lent
