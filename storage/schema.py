"""The schema: brought up to date by its owner, and looked at by everybody else."""

import re
from hashlib import sha256
from importlib.resources import files

import asyncpg

from storage import roles
from storage.database import Connection

OLDEST = 150000
"""The oldest server that is supported, in Postgres' own numbering: 15.0."""

_MIGRATION = 0x63_72_61_31
"""The advisory lock under which two services that start together take turns to migrate."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, sha256 text NOT NULL,"
    " at timestamptz NOT NULL DEFAULT clock_timestamp())"
)

_OTHER = (
    "the database was made by a state of this program between releases, whose tables were others:"
    " go on with that one, or take an empty database and run `archive rebuild`"
    " (docs/operations.md, Upgrade)"
)


class SchemaError(RuntimeError):
    """This program cannot work with this database; the message says what to do."""


async def migrate(connection: Connection) -> list[str]:
    """Bring the schema up to date, as its owner: the numbered files of `storage/migrations`, each
    once, forward only; and give the roles their rights.

    Returns the statements that make the roles which are not there, for who may run them.

    Raises SchemaError when the server is too old, the schema newer than this program, or made from
    other files than its own.
    """
    version = connection.get_server_version()
    if version.major * 10000 < OLDEST:
        raise SchemaError(f"PostgreSQL {version.major} is too old: 15 or newer is needed")
    await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION)
    try:
        await connection.execute(_TABLE)
        known = _migrations()
        done = await _done(connection, known)
        if done - known.keys():
            raise SchemaError("the database was made by a newer release: install that one")
        for number in sorted(known.keys() - done):
            async with connection.transaction():
                await connection.execute(known[number])
                await connection.execute(
                    "INSERT INTO migration (number, sha256) VALUES ($1, $2)",
                    number,
                    _hash(known[number]),
                )
        return await roles.grant(connection)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _MIGRATION)


async def check_schema(connection: Connection) -> None:
    """See that the owner has brought the schema up to date. Raises SchemaError when not."""
    known = _migrations()
    try:
        done = await _done(connection, known)
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        done = set()
    if done != known.keys():
        raise SchemaError(
            "the database's schema is not this program's: run `archive migrate` of the same"
            " release, as the owner of the tables"
        )


async def _done(connection: Connection, known: dict[int, str]) -> set[int]:
    """Which files the schema was made from. Raises SchemaError when one of them was another."""
    try:
        rows = await connection.fetch("SELECT number, sha256 FROM migration")
    except asyncpg.UndefinedColumnError:
        raise SchemaError(_OTHER) from None
    done = {row["number"]: row["sha256"] for row in rows}
    if any(done[number] != _hash(known[number]) for number in done.keys() & known.keys()):
        raise SchemaError(_OTHER)
    return {*done}


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _migrations() -> dict[int, str]:
    found = {}
    for entry in files("storage").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_\w+\.sql", entry.name)
        if match:
            found[int(match[1])] = entry.read_text(encoding="utf-8")
    return found
