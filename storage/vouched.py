"""Accounts of people whom a provider vouches for: made at their first sign-in, and changed at each
to what the provider's groups grant.

They are known by a keyed hash of what the provider calls them; their name is for the command line
alone.
"""

import hmac
from typing import Any

import asyncpg

from archive.grants import Grant
from storage import accounts, ledger
from storage.database import Connection
from storage.keyring import Ring


async def account_of(
    connection: Connection, ring: Ring, subject: str, name: str, grant: Grant
) -> str | None:
    """The account of somebody whom a provider vouches for, made or changed to what it grants.

    None if it is locked here. `subject` is the provider's address and what it calls the person.
    In the caller's transaction.
    """
    known = _subject(ring, subject)
    rights = (grant.level, *(limit and list(limit) for limit in grant.limits))
    row = await _find(connection, known)
    if row is None:
        if made := await _make(connection, known, name, rights):
            return made
        # The same person's other browser was first, at this very moment.
        row = await _find(connection, known)
        assert row is not None
    account = str(row["id"])
    if row["locked_at"]:
        return None
    if rights != (row["level"], row["call_types"], row["queues"], row["teams"]):
        await connection.execute(
            "UPDATE account SET level = $2, call_types = $3, queues = $4, teams = $5 WHERE id = $1",
            account,
            *rights,
        )
        await _tell(connection, "account.changed", account, rights)
    return account


async def _find(connection: Connection, known: bytes) -> asyncpg.Record | None:
    return await connection.fetchrow(
        "SELECT id, level, call_types, queues, teams, locked_at FROM account WHERE subject = $1"
        " FOR NO KEY UPDATE",
        known,
    )


async def _make(
    connection: Connection, known: bytes, name: str, rights: tuple[Any, ...]
) -> str | None:
    """Make an account, by what the provider calls somebody if nobody is called so, or by its id.

    None when there is one of this person by now.
    """
    account = accounts.new_id()
    for called in (name.casefold(), account):
        if accounts.NAME.fullmatch(called) and await connection.fetchval(
            "INSERT INTO account (id, name, subject, level, call_types, queues, teams)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING true",
            account,
            called,
            known,
            *rights,
        ):
            await _tell(connection, "account.added", account, rights)
            return account
    return None


async def _tell(connection: Connection, act: str, account: str, rights: tuple[Any, ...]) -> None:
    facts = {"account": account, "level": rights[0], "by": "provider"}
    await ledger.record(connection, ledger.SYSTEM, act, facts=facts)


def _subject(ring: Ring, subject: str) -> bytes:
    return hmac.digest(ring.lookup_key("subject"), subject.encode(errors="replace"), "sha256")


async def ungranted(connection: Connection, ring: Ring, subject: str) -> str | None:
    """Sign somebody out everywhere whom the provider knows, and who may nothing any more.

    Returns the account, if there ever was one.
    """
    account: str | None = await connection.fetchval(
        "SELECT id FROM account WHERE subject = $1", _subject(ring, subject)
    )
    await connection.execute("DELETE FROM session WHERE account = $1", account)
    return account
