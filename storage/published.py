"""The ledger outside the database: every entry lies in the object store before it is signed.

Entries go into bundles of 256 under `ledger/`, named by their number and how many entries they
hold: `ledger/000000000012-256`. A bundle that is not full is put again, wider, under another name,
and then the narrower one goes; so no object is ever overwritten. The bundles hold nothing personal.

A database that is put back from a backup has lost the end of its ledger. What was signed last lies
with the keys, and all that was signed is here: the one is made whole from the other.
"""

import hashlib
import re
from collections.abc import AsyncIterator

from archive import tiles
from archive.errors import UnavailableError
from archive.ledger import Entry
from storage import ledger
from storage.database import Pool, connection
from storage.objects import Holding, ObjectStore

PREFIX = "ledger/"

_NAME = re.compile(r"ledger/(\d{12})-(\d{3})")
_WHOLE = ("object", "version")
_TIMEOUT = 60.0


async def publish(pool: Pool, objects: ObjectStore) -> int:
    """Put what is not in the object store yet; returns how many entries are there now.

    Raises UnavailableError when database or store is away; doing it again does no harm.
    """
    async with connection(pool) as lent:
        row = await lent.fetchrow("SELECT size, published FROM ledger_head")
    if row is None:
        raise RuntimeError("the table `ledger_head` has lost its row")
    size, done = row["size"], row["published"]
    while done < size:
        number = done // tiles.FULL
        first = number * tiles.FULL
        async with connection(pool) as lent:
            entries = await ledger.page(lent, first, min(tiles.FULL, size - first))
        await _put(objects, number, [entry.text for entry in entries])
        done = first + len(entries)
        async with connection(pool) as lent:
            await lent.execute(
                "UPDATE ledger_head SET published = $1 WHERE published < $1 AND size >= $1", done
            )
    return int(size)


async def _put(objects: ObjectStore, number: int, texts: list[bytes]) -> None:
    """Put one bundle, unless it is there; then remove the narrower ones of the same number."""
    there = await _bundles(objects, number)
    key = f"{PREFIX}{number:012}-{len(texts):03}"
    if len(texts) not in there:
        content = tiles.bundle(texts)
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        await objects.put(key, [content], len(content), digest, _TIMEOUT)
    await objects.remove([holding for width, holding in there.items() if width < len(texts)])


async def entries(objects: ObjectStore, first: int) -> AsyncIterator[Entry]:
    """The published entries from a position on, as far as they go without a gap.

    Raises UnavailableError when the store is away or has a bundle that cannot be read.
    """
    number = first // tiles.FULL
    while True:
        texts = await _get(objects, number)
        for index, text in enumerate(texts):
            position = number * tiles.FULL + index
            if position >= first:
                yield _parsed(position, text)
        if len(texts) < tiles.FULL:
            return
        number += 1


async def reach(objects: ObjectStore, size: int) -> int:
    """Up to where entries are published, looked for around a ledger of this size; 0 if nothing is
    there.
    """
    number = size // tiles.FULL
    for each in (number + 1, number):
        if bundles := await _bundles(objects, each):
            return each * tiles.FULL + max(bundles)
    return 0


async def _bundles(objects: ObjectStore, number: int) -> dict[int, Holding]:
    """The bundles of a number, by how many entries they have."""
    held = await objects.holdings(f"{PREFIX}{number:012}-")
    named = ((holding, _NAME.fullmatch(holding.key)) for holding in held)
    return {int(name[2]): holding for holding, name in named if name and holding.kind in _WHOLE}


async def _get(objects: ObjectStore, number: int) -> list[bytes]:
    """The widest bundle of this number; nothing if there is none."""
    found = await _bundles(objects, number)
    if not found:
        return []
    widest = found[max(found)]
    async with objects.get(widest.key, 0, widest.size) as body:
        content = b"".join([piece async for piece in body])
    try:
        return tiles.unbundle(content)
    except ValueError as error:
        raise UnavailableError(f"The bundle {widest.key} of the ledger is damaged.") from error


def _parsed(position: int, text: bytes) -> Entry:
    try:
        return Entry.parse(position, text)
    except ValueError as error:
        raise UnavailableError(f"Entry {position} of the published ledger is damaged.") from error
