"""The ledger in hands that should not have it: its export, and the database past its triggers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from storage import ledger, tree
from storage.database import Connection
from storage.vault import Vault
from tests.roles import connection


async def export(vault: Vault, path: Path) -> Path:
    """What `archive ledger export` writes."""
    note = await tree.checkpoint(vault)
    async with connection(vault.pool) as lent, lent.transaction():
        lines = [each.text + b"\n" async for each in tree.everything(lent, await tree.size(lent))]
    path.write_bytes(b"".join(lines) + b"\n" + str(note).encode())
    return path


@asynccontextmanager
async def unguarded(vault: Vault) -> AsyncIterator[Connection]:
    """Write to the database as its owner can, past the triggers."""
    async with connection(vault.pool) as lent:
        await lent.execute("ALTER TABLE ledger DISABLE TRIGGER ALL")
        yield lent
        await lent.execute("ALTER TABLE ledger ENABLE TRIGGER ALL")


async def rewrite_tree(lent: Connection) -> None:
    """Make head and tiles anew from the rows, as who covers a change of the ledger up would."""
    await lent.execute("DELETE FROM ledger_tile")
    await lent.execute("UPDATE ledger_head SET size = 0")
    rows = await lent.fetch(f"SELECT {ledger.COLUMNS} FROM ledger ORDER BY position")
    await tree.extend(lent, 0, [ledger.from_row(row) for row in rows])
