"""The schema: brought up to date by its owner, and looked at by everybody else."""

import re
from importlib.resources import files

import asyncpg

from storage import roles
from storage.database import Connection

OLDEST = 150000
"""The oldest server that is supported, in Postgres' own numbering: 15.0."""

_MIGRATION = 0x63_72_61_31
"""The advisory lock under which two services that start together take turns to migrate."""


class SchemaError(RuntimeError):
    """This program cannot work with this database; the message says what to do."""


async def migrate(connection: Connection) -> list[str]:
    """Bring the schema up to date, as its owner: the numbered files of `storage/migrations`, each
    once, forward only; and give the roles their rights.

    Returns the statements that make the roles which are not there, for who may run them.

    Raises SchemaError when the server is too old, or the schema newer than this program.
    """
    version = connection.get_server_version()
    if version.major * 10000 < OLDEST:
        raise SchemaError(f"PostgreSQL {version.major} is too old: 15 or newer is needed")
    await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION)
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY,"
            " at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migration")}
        known = _migrations()
        if done - known.keys():
            raise SchemaError("the database was made by a newer release: install that one")
        for number in sorted(known.keys() - done):
            async with connection.transaction():
                await connection.execute(known[number])
                await connection.execute("INSERT INTO migration (number) VALUES ($1)", number)
        return await roles.grant(connection)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _MIGRATION)


async def check_schema(connection: Connection) -> None:
    """See that the owner has brought the schema up to date. Raises SchemaError when not."""
    try:
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migration")}
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        done = set()
    if done != _migrations().keys():
        raise SchemaError(
            "the database's schema is not this program's: run `archive migrate` of the same"
            " release, as the owner of the tables"
        )


def _migrations() -> dict[int, str]:
    found = {}
    for entry in files("storage").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_\w+\.sql", entry.name)
        if match:
            found[int(match[1])] = entry.read_text(encoding="utf-8")
    return found
