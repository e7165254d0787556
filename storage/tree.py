"""The ledger's tree: giving entries their places, and proving what is in it.

Entries come in from many transactions, which commit in another order than they began in. One
sequencer at a time, whichever service it runs in, takes what waits and gives it the next positions,
under the lock of the head's row; so the ledger has no gap, and a reader who pages through it misses
nothing. In the same transaction the tree's hashes grow, in tiles of 256 (C2SP tlog-tiles): a proof
then costs a look at a few tiles, whatever the size of the ledger.

The hash of an entry is made from the row as the database gave it back, not from what was sent. What
has no one form, is too long for a bundle or too deep for its readers was not written by
`ledger.record`: whoever wrote it does not stop the ledger, for in the place of its facts the hash
of what they were is told.
"""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass

from archive import merkle, tiles
from archive.ledger import Entry, canonical, too_deep
from archive.merkle import Growth, Node
from archive.note import Note
from archive.tiles import FULL, STEP, Tile, Tiles
from storage import ledger, published, steps
from storage.database import Connection, connection
from storage.signer import RewrittenError
from storage.vault import LedgerParts, Vault

log = logging.getLogger("archive.ledger")

_BATCH = 5000

_UNTOLD = (TypeError, ValueError, OverflowError, RecursionError)
"""What comes of an entry that has no one form, or too long a one."""


@dataclass(frozen=True, slots=True)
class Head:
    """How many entries the ledger has, and the root over them."""

    size: int
    root: bytes


async def sequence(vault: Vault) -> int:
    """Give every entry that waits by now its place; returns how many there were.

    Raises RewrittenError for a ledger that is shorter than what was signed: in a database that was
    put back the next places are taken already.
    """
    given = 0
    while True:
        async with connection(vault.sequencer) as lent:
            if not await lent.fetchval("SELECT EXISTS (SELECT FROM ledger_waiting)"):
                return given
            signed = await asyncio.to_thread(vault.signer.last)
            least = signed.size if signed else 0
            try:
                async with lent.transaction():
                    taken = await _take(lent, least, [])
            except _UNTOLD as error:
                async with lent.transaction():
                    taken = await _take(lent, least, await _untold(lent, error))
        steps.reached("sequenced")
        given += taken
        if taken < _BATCH:
            # What came meanwhile waits for the next time: one by one they would cost far more.
            return given


async def _untold(lent: Connection, error: Exception) -> list[int]:
    """The numbers of what waits that the ledger cannot tell as it is; raises the error if none."""
    await lent.execute("SELECT FROM ledger_head FOR UPDATE")
    rows = await lent.fetch(
        "SELECT number, act || actor AS names, facts::text AS said FROM ledger_waiting"
        " ORDER BY number LIMIT $1",
        _BATCH,
    )
    found = [row["number"] for row in rows if not _can_be_told(row["names"], row["said"])]
    if not found:
        raise error
    log.error("%d entries have facts that the ledger cannot tell: it has their hashes", len(found))
    return found


def _can_be_told(names: str, said: str) -> bool:
    try:
        facts = json.loads(said)
        text = canonical({"names": names, "facts": facts})
    except _UNTOLD:
        return False
    return isinstance(facts, dict) and len(text) <= ledger.MOST and not too_deep(text, facts)


async def _take(lent: Connection, signed: int, untold: list[int]) -> int:
    size = await lent.fetchval("SELECT size FROM ledger_head FOR UPDATE")
    if size < signed:
        raise _put_back(size, signed)
    rows = await lent.fetch(
        # By their places in the table: nobody moves what waits, and no index is asked once a row.
        "WITH taken AS (DELETE FROM ledger_waiting WHERE ctid = ANY (ARRAY"
        " (SELECT ctid FROM ledger_waiting ORDER BY number LIMIT $2)) RETURNING *)"
        " INSERT INTO ledger SELECT $1 + row_number() OVER (ORDER BY number) - 1, at, actor, act,"
        " recording, CASE WHEN number = ANY ($3::bigint[]) THEN jsonb_build_object('untold',"
        " encode(sha256(convert_to(facts::text, 'UTF8')), 'hex')) ELSE facts END,"
        " encode(sha256(details), 'hex'), ends_on, details FROM taken"
        " RETURNING position, at, actor, act, recording, facts, sealed",
        size,
        _BATCH,
        untold,
    )
    entries = sorted((ledger.from_row(row) for row in rows), key=lambda entry: entry.position)
    await extend(lent, size, entries)
    return len(entries)


async def extend(lent: Connection, size: int, entries: Iterable[Entry]) -> None:
    """Grow the tree by entries whose rows are there already, from position `size` on."""
    look = await looking(lent, merkle.peaks(size))
    growth = Growth(size, [look(node) for node in merkle.peaks(size)])
    made: dict[Tile, bytearray] = defaultdict(bytearray)
    leaves = []
    for position, entry in enumerate(entries, size):
        if entry.position != position:
            raise AssertionError("the ledger has a gap")
        text = entry.text
        if len(text) > tiles.LONGEST or not isinstance(entry.facts, dict):
            raise ValueError("an entry is too long for a bundle, or is none")
        if too_deep(text, entry.facts):
            raise ValueError("an entry is too deep for who reads it later")
        leaf = merkle.leaf_hash(text)
        made[0, position // FULL] += leaf
        leaves.append(leaf)
    for node, found in merkle.extend(growth, leaves):
        if node.level % STEP == 0:
            made[node.level // STEP, node.number // FULL] += found
    await lent.executemany(
        "INSERT INTO ledger_tile (level, number, hashes) VALUES ($1, $2, $3)"
        " ON CONFLICT (level, number) DO UPDATE SET hashes = ledger_tile.hashes || EXCLUDED.hashes",
        [(*tile, bytes(hashes)) for tile, hashes in made.items()],
    )
    await lent.execute("UPDATE ledger_head SET size = $1", growth.size)


async def checkpoint(vault: Vault) -> Note:
    """The ledger as it stands now, published and then signed.

    Raises RewrittenError when it is not what was signed, UnavailableError when the database or the
    store is away: what is not outside the database yet is not signed.
    """
    await sequence(vault)
    while True:
        last = await asyncio.to_thread(vault.signer.last)
        since = last.size if last else 0
        async with vault.publishing:
            size = await published.publish(vault)
        async with connection(vault.pool) as lent:
            now = await head(lent, size)
            proof = await consistency(lent, since, now.size) if since <= now.size else []
        note = await asyncio.to_thread(vault.signer.sign, now.size, now.root, since, proof)
        if note:
            return note


async def agree(vault: LedgerParts) -> None:
    """Raise RewrittenError unless the database's ledger goes on from what was signed last, and the
    database is not half rebuilt.
    """
    last = await asyncio.to_thread(vault.signer.last)
    async with connection(vault.pool) as lent:
        if await lent.fetchval("SELECT rebuilding FROM archive"):
            raise RewrittenError(
                "the database is being rebuilt: run `archive rebuild` to its end, nothing may be"
                " done before"
            )
        if last is None:
            return
        count = await size(lent)
        with suppress(LookupError):  # a tile is missing, or shorter than the ledger
            if count >= last.size and (await head(lent, last.size)).root == last.root:
                return
    raise _put_back(count, last.size)


async def agree_wholly(vault: Vault) -> None:
    """The same, and as `look_wholly`. What an old bucket lacks is published with the next
    checkpoint.
    """
    if not await look_wholly(vault):
        async with connection(vault.sequencer) as lent:
            await lent.execute("UPDATE ledger_head SET published = 0")


async def look_wholly(vault: LedgerParts) -> bool:
    """As `agree`, and see that no more is published than the database knows: a crash may have come
    between publishing and signing. Whether all is in the bucket that was published; writes nothing.
    Raises UnavailableError also when the store is away.
    """
    await agree(vault)
    async with connection(vault.pool) as lent:
        count = await size(lent)
    reached = await published.reach(vault, count)
    async with connection(vault.pool) as lent:
        count = await size(lent)  # another service may have gone on meanwhile
        done: int = await lent.fetchval("SELECT published FROM ledger_head")
    if count < reached:
        raise _put_back(count, reached)
    return reached >= done


def _put_back(size: int, signed: int) -> RewrittenError:
    return RewrittenError(
        f"the ledger of the database ({size} entries) is not the one that was signed or published"
        f" last ({signed} entries): it was rewritten, or the database is an old one that was put"
        " back; `archive rebuild` makes an old one whole, docs/operations.md says how to restore"
    )


async def size(lent: Connection) -> int:
    """How many entries have their place."""
    found: int = await lent.fetchval("SELECT size FROM ledger_head")
    return found


async def head(lent: Connection, at: int | None = None) -> Head:
    """The ledger as it stands, or as it stood with `at` entries."""
    count = await size(lent) if at is None else at
    look = await looking(lent, merkle.peaks(count))
    return Head(count, merkle.root(count, look))


async def inclusion(lent: Connection, index: int, count: int) -> list[bytes]:
    """The proof that the entry at `index` is in the tree of `count` entries."""
    return await _proof(lent, merkle.inclusion_nodes(index, count))


async def consistency(lent: Connection, old: int, new: int) -> list[bytes]:
    """The proof that the tree of `old` entries is a beginning of the one of `new`."""
    return await _proof(lent, merkle.consistency_nodes(old, new))


async def _proof(lent: Connection, parts: list[list[Node]]) -> list[bytes]:
    return merkle.proof(parts, await looking(lent, [node for part in parts for node in part]))


async def tile(lent: Connection, level: int, number: int) -> bytes | None:
    """The hashes of a tile, as far as it is filled."""
    found: bytes | None = await lent.fetchval(
        "SELECT hashes FROM ledger_tile WHERE level = $1 AND number = $2", level, number
    )
    return found


async def looking(lent: Connection, nodes: Iterable[Node]) -> merkle.Look:
    """Fetch the tiles that these nodes lie in; gives a node's hash, made from its tile."""
    wanted = tiles.needed([list(nodes)])
    rows = await lent.fetch(
        "SELECT level, number, hashes FROM ledger_tile JOIN"
        " unnest($1::smallint[], $2::bigint[]) AS wanted(level, number) USING (level, number)",
        [level for level, _ in wanted],
        [number for _, number in wanted],
    )
    return Tiles({(row["level"], row["number"]): row["hashes"] for row in rows}).look


async def everything(lent: Connection, count: int) -> AsyncIterator[Entry]:
    """Every entry up to `count`, in a transaction of the caller's."""
    async for row in lent.cursor(
        f"SELECT {ledger.COLUMNS} FROM ledger WHERE position < $1"  # noqa: S608 - our own words
        " ORDER BY position",
        count,
        prefetch=1000,
    ):
        yield ledger.from_row(row)
