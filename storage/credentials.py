"""Bearer keys: made once, shown once, stored as a hash.

A token is `cra_<id>_<secret>`: the id finds the row, the secret (256 random bits) is compared with
its SHA-256 in constant time. Rights are read from the row at each request, so that revoking acts at
once.
"""

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import asyncpg

from archive.access import Caller, Level
from archive.errors import UnauthenticatedError
from archive.recording import CallType
from storage import ledger
from storage.database import Connection

_TOKEN = re.compile(r"cra_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeyRefusedError(ValueError):
    """A key cannot be made or revoked as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What the command line lists of a key; `id` is how the ledger names it as an actor."""

    id: str
    name: str
    level: str
    source: str | None
    call_types: tuple[str, ...] | None
    created_at: datetime
    revoked_at: datetime | None


async def authenticate(connection: Connection, token: str) -> tuple[Caller, datetime]:
    """Tell who holds this token, and the archive's now, in one look at the database.

    Raises UnauthenticatedError for a token that is not known or was revoked, without saying which.
    """
    match = _TOKEN.fullmatch(token)
    row = match and await connection.fetchrow(
        "SELECT level, source, call_types, secret_sha256, archive_now() AS now"
        " FROM access_key WHERE id = $1 AND revoked_at IS NULL",
        match[1],
    )
    if not (match and row):
        raise UnauthenticatedError("The key is not known, or was revoked. Ask for a new one.")
    if not hmac.compare_digest(sha256(match[2].encode()).digest(), row["secret_sha256"]):
        raise UnauthenticatedError("The key is not known, or was revoked. Ask for a new one.")
    types = row["call_types"]
    limits = None if types is None else frozenset(types)
    return Caller(match[1], Level(row["level"]), row["source"], limits), row["now"]


async def add(
    connection: Connection,
    name: str,
    level: Level,
    source: str | None = None,
    call_types: Sequence[str] | None = None,
) -> str:
    """Make a key and return its token, which is not stored. Raises KeyRefusedError."""
    if not _NAME.fullmatch(name):
        raise KeyRefusedError("a name has 1 to 64 letters, digits, dots, dashes or underscores")
    if level is Level.UPLOADER:
        source = source or name
    elif source:
        raise KeyRefusedError("only an uploader's key has a source")
    if source and not _NAME.fullmatch(source):
        raise KeyRefusedError("a source is written like a name")
    if call_types is not None and not (call_types and set(call_types) <= set(CallType)):
        raise KeyRefusedError("call types are one or more of " + ", ".join(CallType))
    if call_types is not None and level not in (Level.SUPERVISOR, Level.PRIVACY):
        raise KeyRefusedError("only a key that reads recordings is limited to call types")
    identifier = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(12))
    secret = secrets.token_urlsafe(32)
    async with connection.transaction():
        try:
            await connection.execute(
                "INSERT INTO access_key (id, name, level, source, call_types, secret_sha256)"
                " VALUES ($1, $2, $3, $4, $5, $6)",
                identifier,
                name,
                level,
                source,
                call_types,
                sha256(secret.encode()).digest(),
            )
        except asyncpg.UniqueViolationError:
            raise KeyRefusedError("there is a key of this name; revoked names stay taken") from None
        facts = {"key": identifier, "level": level, "source": source}
        await ledger.record(connection, ledger.SYSTEM, "key.added", facts=facts)
    return f"cra_{identifier}_{secret}"


async def revoke(connection: Connection, name: str) -> None:
    """Revoke a key, at once. Raises KeyRefusedError when there is none of that name that lives."""
    async with connection.transaction():
        identifier = await connection.fetchval(
            "UPDATE access_key SET revoked_at = archive_now()"
            " WHERE name = $1 AND revoked_at IS NULL RETURNING id",
            name,
        )
        if identifier is None:
            raise KeyRefusedError("there is no living key of this name")
        await ledger.record(connection, ledger.SYSTEM, "key.revoked", facts={"key": identifier})


async def every(connection: Connection) -> list[KeyRow]:
    """All keys that ever were, oldest first."""
    rows = await connection.fetch(
        "SELECT id, name, level, source, call_types, created_at, revoked_at FROM access_key"
        " ORDER BY created_at, name"
    )
    return [
        KeyRow(
            row["id"],
            row["name"],
            row["level"],
            row["source"],
            None if row["call_types"] is None else tuple(row["call_types"]),
            row["created_at"],
            row["revoked_at"],
        )
        for row in rows
    ]
