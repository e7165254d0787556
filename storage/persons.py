"""Whose a key or an account is, as the operator says it.

What needs two people asks for two whose names stand here and differ (`two_people` in the schema):
one person can have a key, another key and an account, and nothing else tells. The name is the
operator's own word for somebody; the ledger says that it was set, and for which key or account.
"""

import re

from storage import ledger
from storage.database import Connection

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")


class KeyRefusedError(ValueError):
    """A key, or an account, cannot be made or changed as asked; the message says why."""


async def of_key(connection: Connection, name: str, person: str) -> None:
    """Say whose a key is. Raises KeyRefusedError."""
    await _say(connection, "access_key", name, person, "key")


async def of_account(connection: Connection, name: str, person: str) -> None:
    """Say whose an account is. Raises KeyRefusedError."""
    await _say(connection, "account", name.casefold(), person, "account")


def spelled(person: str) -> str:
    """The word for a person as it is compared: Anna is anna, too. Raises KeyRefusedError."""
    if not _NAME.fullmatch(person.casefold()):
        raise KeyRefusedError("a person is written in 1 to 128 letters, digits or any of . _ @ + -")
    return person.casefold()


async def _say(connection: Connection, table: str, name: str, person: str, kind: str) -> None:
    async with connection.transaction():
        found = await connection.fetchval(
            f"UPDATE {table} SET person = $2 WHERE name = $1 RETURNING id",  # noqa: S608 - our own
            name,
            spelled(person),
        )
        if found is None:
            raise KeyRefusedError(f"there is no {kind} of this name")
        await ledger.record(connection, ledger.SYSTEM, f"{kind}.person", facts={kind: found})
