"""The ledger outside the database: every entry lies in the object store before it is signed.

Entries go into bundles of 256 under `ledger/`, named by their number, how many entries they hold,
and a mark: `ledger/000000000012-256-9f86...`. A bundle that is not full is put again, wider, under
another name, and then the narrower one goes; so no object is ever overwritten. The bundles hold
nothing personal.

A database that is put back from a backup has lost the end of its ledger. What was signed last lies
with the keys, and all that was signed is here: the one is made whole from the other. The few after
that, which a crash left unsigned, are believed for their mark, which is an HMAC of the bundle under
a key of the ring: who can write to the bucket alone cannot put a word into the ledger's mouth.

Beside them lies `ledger/owner-` and a mark, which says whose bucket it is. Two archives in one
would take each other's objects for strays, and the close of a day empties that day's folder; so no
archive starts on a bucket that bears another's mark.
"""

import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence

from archive import merkle, tiles
from archive.errors import UnavailableError
from archive.ledger import Entry
from storage import ledger
from storage.database import connection
from storage.holdings import Holding
from storage.keyring import KeyRingError
from storage.objects import MissingObjectError
from storage.signer import SignerError
from storage.vault import LedgerParts, Vault

log = logging.getLogger("archive.published")

PREFIX = "ledger/"

_NAME = re.compile(r"ledger/\d{12}-(\d{3})-[0-9a-f]{32}")
_OWNER = f"{PREFIX}owner-"
_WORDS = b"This bucket belongs to one archive, which marked it so. No other may use it.\n"
_WHOLE = ("object", "version")
_TIMEOUT = 60.0


async def publish(vault: Vault) -> int:
    """Put what is not in the object store yet; returns how many entries are there now.

    Raises UnavailableError when database or store is away, SignerError when the rows, as they are
    read back here, are not what the tree has hashed: a checkpoint would sign what nobody can show.
    Doing it again does no harm.
    """
    async with connection(vault.sequencer) as lent:
        row = await lent.fetchrow("SELECT size, published FROM ledger_head")
    if row is None:
        raise RuntimeError("the table `ledger_head` has lost its row")
    size, done = row["size"], row["published"]
    while done < size:
        number = done // tiles.FULL
        first = number * tiles.FULL
        async with connection(vault.sequencer) as lent:
            entries = await ledger.page(lent, first, min(tiles.FULL, size - first))
            hashes = await lent.fetchval(
                "SELECT hashes FROM ledger_tile WHERE level = 0 AND number = $1", number
            )
        texts = [entry.text for entry in entries]
        if not texts or not (hashes or b"").startswith(b"".join(map(merkle.leaf_hash, texts))):
            raise SignerError(
                f"entries {first} to {size - 1} of the ledger, or some of them, are not what its"
                " tree has hashed: rows were changed, and nothing is signed; docs/operations.md"
                " says what to do"
            )
        await put(vault, number, texts)
        done = first + len(entries)
        async with connection(vault.sequencer) as lent:
            await lent.execute(
                "UPDATE ledger_head SET published = $1 WHERE published < $1 AND size >= $1", done
            )
    return int(size)


async def put(vault: Vault, number: int, texts: list[bytes]) -> None:
    """Put one bundle, unless it is there; then remove the narrower ones of the same number."""
    there = await _bundles(vault, number)
    content = tiles.bundle(texts)
    key = _name(vault, number, len(texts), content)
    if key not in [holding.key for _, holding in there]:
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        await vault.objects.put(key, [content], len(content), digest, _TIMEOUT)
    narrower = [
        holding
        for width, holding in there
        if width < len(texts)
        and holding.key == _name(vault, number, width, tiles.bundle(texts[:width]))
    ]
    await vault.objects.remove(narrower)


async def missing(vault: Vault, bundles: Mapping[int, Sequence[bytes]]) -> list[int]:
    """Which of these bundles, one behind the other, are not in the store under their names."""
    if not bundles:
        return []
    first, last = (f"{PREFIX}{number:012}-" for number in (min(bundles), max(bundles)))
    held = await vault.objects.holdings(PREFIX, first, last)
    there = {holding.key for holding in held if holding.kind in _WHOLE and holding.latest}
    names = {
        number: _name(vault, number, len(texts), tiles.bundle(texts))
        for number, texts in bundles.items()
    }
    return [number for number, name in names.items() if name not in there]


async def own(vault: Vault) -> None:
    """Mark the bucket as this archive's. Raises KeyRingError when it is another's, UnavailableError
    when the store is away.
    """
    if not await owned(vault):
        digest = hashlib.md5(_WORDS, usedforsecurity=False).digest()
        await vault.objects.put(_mark(vault), [_WORDS], len(_WORDS), digest, _TIMEOUT)
        await owned(vault)  # another may have come at the same moment


async def owned(vault: LedgerParts) -> bool:
    """Whether the bucket is marked as this archive's; puts nothing there. Raises as `own` does."""
    marks = await _marks(vault)
    if others := marks - {_mark(vault)}:
        raise _owned(f"its mark {min(others)}")
    if not marks and await _bundles(vault, 0) and not await _get(vault, 0):
        raise _owned("its ledger")
    return bool(marks)


def _mark(vault: LedgerParts) -> str:
    mark = hmac.digest(vault.ring.lookup_key("bucket-owner"), b"owner", "sha256").hex()[:32]
    return f"{_OWNER}{mark}"


async def _marks(vault: LedgerParts) -> set[str]:
    held = await vault.objects.holdings(_OWNER)
    return {holding.key for holding in held if holding.kind in _WHOLE and holding.latest}


def _owned(what: str) -> KeyRingError:
    return KeyRingError(
        f"the bucket in [objects] belongs to another archive: {what} is in it. Name a bucket of its"
        " own for this one; docs/operations.md says what to do about an archive that is no more"
    )


async def entries(vault: Vault, first: int) -> AsyncIterator[Entry]:
    """The published entries from a position on, as far as they go without a gap.

    Raises UnavailableError when the store is away or has an entry that cannot be read.
    """
    number = first // tiles.FULL
    while True:
        texts = await _get(vault, number)
        for index, text in enumerate(texts):
            position = number * tiles.FULL + index
            if position >= first:
                yield _parsed(position, text)
        if len(texts) < tiles.FULL:
            return
        number += 1


async def reach(vault: LedgerParts, size: int) -> int:
    """Up to where entries are published, looked for around a ledger of this size; 0 if nothing is
    there.
    """
    number = size // tiles.FULL
    for each in (number + 1, number):
        if texts := await _get(vault, each):
            return each * tiles.FULL + len(texts)
    return 0


def _name(vault: LedgerParts, number: int, width: int, content: bytes) -> str:
    """The name of a bundle, with the mark that only the archive can make."""
    key = vault.ring.lookup_key("published-ledger")
    mark = hmac.digest(key, number.to_bytes(8, "big") + content, "sha256").hex()[:32]
    return f"{PREFIX}{number:012}-{width:03}-{mark}"


async def _bundles(vault: LedgerParts, number: int) -> list[tuple[int, Holding]]:
    """What is named as a bundle of a number, and how many entries it says to have, most first.

    What lies under a mark of deletion is not there: no plain reading would find it.
    """
    held = await vault.objects.holdings(f"{PREFIX}{number:012}-")
    whole = [holding for holding in held if holding.kind in _WHOLE and holding.latest]
    named = ((holding, _NAME.fullmatch(holding.key)) for holding in whole)
    found = [(int(name[1]), holding) for holding, name in named if name]
    return sorted(found, key=lambda each: each[0], reverse=True)


async def _get(vault: LedgerParts, number: int) -> list[bytes]:
    """The widest bundle of this number that bears its mark; nothing if there is none."""
    for width, holding in await _bundles(vault, number):
        try:
            async with vault.objects.get(holding.key, 0, holding.size) as body:
                content = b"".join([piece async for piece in body])
        except MissingObjectError:  # it went since it was listed: a wider one has its entries
            continue
        if hmac.compare_digest(holding.key, _name(vault, number, width, content)):
            return tiles.unbundle(content)
        log.error("%s is damaged, or is not of this archive's ledger", holding.key)
    return []


def _parsed(position: int, text: bytes) -> Entry:
    try:
        return Entry.parse(position, text)
    except ValueError as error:
        raise UnavailableError(f"Entry {position} of the published ledger is damaged.") from error
