"""Whether the database is still the one that was seen last, or an older one that was put back.

After a restore every object that came in since is unknown to the database: to delete on its word
would make of a partial loss a whole one. What was seen of the database is kept outside of it, in
the key store's file `reconcile.mark`: which PostgreSQL it is in, how far its log of writes had
come, and how long the ledger was. None of these ever goes back by itself. The ledger's last signed
checkpoint, beside it, is asked too.
"""

import asyncio
import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg

from storage import durable, tree
from storage.database import Connection, connection
from storage.signer import RewrittenError
from storage.vault import Vault

FILE = "reconcile.mark"

_ADVICE = "docs/operations.md tells how to restore"


@dataclass(frozen=True, slots=True)
class Mark:
    """What was seen of a database. `system` is None where PostgreSQL does not tell it.

    `written` is the position up to which its log of writes was durable, in bytes.
    """

    system: str | None
    written: int
    ledger: int


async def gone_back(vault: Vault) -> str:
    """Why the database is not the one that was seen last; empty if it is, and then it is marked.

    Raises UnavailableError when it cannot be asked, OSError when the mark cannot be kept.
    """
    try:
        await tree.agree(vault)
    except RewrittenError as error:
        return str(error)
    path = vault.signer.directory / FILE
    known = await asyncio.to_thread(_read, path)  # before the look, so that it cannot be ahead
    async with connection(vault.pool) as lent:
        seen = await _look(lent)
    if known is not None and (why := _behind(known, seen)):
        return f"{why}: it is an old one that was put back, or another; {_ADVICE}"
    await asyncio.to_thread(_keep, path, seen)
    return ""


async def begin_anew(vault: Vault) -> None:
    """Take the database as it is for the one to go on from: it was made whole."""
    async with connection(vault.pool) as lent:
        seen = await _look(lent)
    await asyncio.to_thread(_write, vault.signer.directory / FILE, seen)


async def _look(lent: Connection) -> Mark:
    system: str | None = None
    with suppress(asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedFunctionError):
        system = await lent.fetchval("SELECT system_identifier::text FROM pg_control_system()")
    row = await lent.fetchrow(
        "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS written, size AS ledger"
        " FROM ledger_head"
    )
    if row is None:
        raise RuntimeError("the table `ledger_head` has lost its row")
    return Mark(system, row["written"], row["ledger"])


def _behind(known: Mark, seen: Mark) -> str:
    if known.system and seen.system and known.system != seen.system:
        return "the database is in another PostgreSQL than before"
    if seen.written < known.written:
        return "the database has written less than it had before"
    if seen.ledger < known.ledger:
        return "the database's ledger is shorter than it was"
    return ""


def _read(path: Path) -> Mark | None:
    """The mark, or None if there is none yet. A mark that cannot be read is an error."""
    try:
        return Mark(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise OSError(f"{path} cannot be read: {error}") from error


def _keep(path: Path, seen: Mark) -> None:
    """Write the mark. Of two processes at once the lower may stay: it is as true."""
    known = _read(path)
    if known is not None:
        ahead = max(known.written, seen.written), max(known.ledger, seen.ledger)
        seen = Mark(seen.system or known.system, *ahead)
    _write(path, seen)


def _write(path: Path, seen: Mark) -> None:
    # Two nights at once may write it, of one process or of two.
    new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    durable.write(new, json.dumps(asdict(seen)).encode())
    durable.rename(new, path)
