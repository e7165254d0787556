"""Whether the database is still the one that was seen last, or an older one that was put back.

After a restore every object that came in since is unknown to the database, or is of an upload that
it takes for unfinished: to delete on its word would make of a partial loss a whole one. What was
seen of the database is kept outside of it, in the key store's file `reconcile.mark`: which
PostgreSQL it is in, how far its log of writes had come and on which timeline, and how long the
ledger was. None of these ever goes back by itself. The ledger's last signed checkpoint, beside it,
is asked too.

A timeline ends where a standby takes over, or a backup is recovered: what was written last may be
missing, though all else has gone on by the time that somebody looks. Whether anything is missing,
PostgreSQL does not tell. A restart, also after a crash, stays on its timeline.
"""

import asyncio
import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg

from archive.errors import UnavailableError
from storage import durable, tree
from storage.database import Connection, connection
from storage.signer import RewrittenError, SignerError
from storage.vault import LedgerParts, Vault

FILE = "reconcile.mark"

_ADVICE = "`archive rebuild` makes it whole, docs/operations.md says how to restore"


@dataclass(frozen=True, slots=True)
class Mark:
    """What was seen of a database. `system` and `timeline` are None where PostgreSQL does not tell.

    `written` is the position up to which its log of writes was durable, in bytes.
    """

    system: str | None
    written: int
    ledger: int
    timeline: str | None = None


async def gone_back(vault: Vault) -> str:
    """Why the database is not the one that was seen last; empty if it is, and then it is marked.

    Raises UnavailableError when it cannot be asked, SignerError when the mark cannot be read, and
    OSError when it cannot be kept.
    """
    try:
        await tree.agree(vault)
        async with connection(vault.pool) as lent:
            seen = await recognize(vault, lent)
    except RewrittenError as error:
        return str(error)
    await asyncio.to_thread(_keep, vault.signer.directory / FILE, seen)
    return ""


async def recognize(vault: LedgerParts, lent: Connection) -> Mark:
    """What is seen of the database at the end of this connection, which stays the same one.

    Raises RewrittenError when it is not the one that was marked last, SignerError when the mark
    cannot be read, UnavailableError when it is a standby, which only reads.
    """
    known = await asyncio.to_thread(_read, vault.signer.directory / FILE)  # it cannot be ahead then
    seen = await _look(lent)
    if known is not None and (why := _behind(known, seen)):
        raise RewrittenError(f"{why}; {_ADVICE}")
    return seen


async def keep(vault: Vault) -> None:
    """Mark the database as it is now. Raises as `recognize`, and OSError when it cannot be kept."""
    async with connection(vault.pool) as lent:
        seen = await recognize(vault, lent)
    await asyncio.to_thread(_keep, vault.signer.directory / FILE, seen)


async def begin_anew(vault: Vault) -> None:
    """Take the database as it is for the one to go on from: it was made whole."""
    async with connection(vault.pool) as lent:
        seen = await _look(lent)
    await asyncio.to_thread(_write, vault.signer.directory / FILE, seen)


async def _look(lent: Connection) -> Mark:
    # A standby knows no position of a next write, and fails in words of no server that is away.
    if await lent.fetchval("SELECT pg_is_in_recovery()"):
        raise UnavailableError("The database is away; it only reads.")
    system = await _ask(lent, "SELECT system_identifier::text FROM pg_control_system()")
    # That of the next write: the one of the last checkpoint may be older than the takeover.
    timeline = await _ask(lent, "SELECT left(pg_walfile_name(pg_current_wal_flush_lsn()), 8)")
    row = await lent.fetchrow(
        "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS written, size AS ledger"
        " FROM ledger_head"
    )
    if row is None:
        raise RuntimeError("the table `ledger_head` has lost its row")
    return Mark(system, row["written"], row["ledger"], timeline)


async def _ask(lent: Connection, question: str) -> str | None:
    """What PostgreSQL says of itself; None where it does not know that, or may not say it."""
    found: str | None = None
    with suppress(asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedFunctionError):
        found = await lent.fetchval(question)
    return found


def _behind(known: Mark, seen: Mark) -> str:
    another = "it is an old one that was put back, or another"
    if known.system and seen.system and known.system != seen.system:
        return f"the database is in another PostgreSQL than before: {another}"
    if seen.written < known.written:
        return f"the database has written less than it had before: {another}"
    if seen.ledger < known.ledger:
        return f"the database's ledger is shorter than it was: {another}"
    if known.timeline and seen.timeline and known.timeline != seen.timeline:
        return (
            "a standby has taken over the database, or it was recovered from a backup, and may lack"
            f" what was written last (timeline {int(seen.timeline, 16)} after"
            f" {int(known.timeline, 16)})"
        )
    return ""


def _read(path: Path) -> Mark | None:
    """The mark, or None if there is none yet. A mark that cannot be read is an error."""
    try:
        return Mark(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SignerError(f"{path} cannot be read: {error}; {_ADVICE}") from error


def _keep(path: Path, seen: Mark) -> None:
    """Write the mark. Of two processes at once the lower may stay: it is as true."""
    known = _read(path)
    if known is not None:
        ahead = max(known.written, seen.written), max(known.ledger, seen.ledger)
        seen = Mark(seen.system or known.system, *ahead, seen.timeline or known.timeline)
    _write(path, seen)


def _write(path: Path, seen: Mark) -> None:
    # Two nights at once may write it, of one process or of two.
    new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    durable.write(new, json.dumps(asdict(seen)).encode())
    durable.rename(new, path)
