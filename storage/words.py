"""What entries of the ledger seal, the terms of a search or the reason of an act, opened for the
privacy officer. Who opened which is on the ledger before they are shown.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from cryptography.exceptions import InvalidTag

from archive.access import EVERYTHING, Level
from archive.ledger import Entry
from storage import four_eyes, ledger
from storage.database import connection
from storage.four_eyes import RefusedError
from storage.keyring import NoDayKeyError
from storage.vault import Vault

_LEVELS = frozenset({Level.PRIVACY})

MOST = 1000
"""Entries that are opened at once: they are named in one entry."""


@dataclass(frozen=True, slots=True)
class Words:
    """An entry, and what it seals until `ends_on` is closed; `why` says what cannot be opened."""

    entry: Entry
    ends_on: date | None
    said: dict[str, object] | None
    why: str = ""


async def read(vault: Vault, token: str, positions: Sequence[int]) -> list[Words]:
    """Open these entries, in their order. Raises RefusedError for another's token, for a position
    that has no entry, and for more than a thousand.
    """
    if len(set(positions)) > MOST:
        raise RefusedError(f"at most {MOST} entries are opened at once: name fewer")
    async with connection(vault.pool) as lent, lent.transaction():
        reader = await four_eyes.holder(lent, vault.ring, token, _LEVELS)
        if reader.scope != EVERYTHING:
            raise RefusedError("this takes a key of level privacy that is not limited")
        rows = await lent.fetch(
            f"SELECT {ledger.COLUMNS}, ends_on, details FROM ledger"  # noqa: S608 - our own words
            " WHERE position = ANY ($1) ORDER BY position",
            positions,
        )
        if missing := sorted(set(positions) - {row["position"] for row in rows}):
            raise RefusedError(f"the ledger has no entry {missing[0]}")
        facts = {"entries": [row["position"] for row in rows]}
        await ledger.record(lent, reader.id, "words.read", facts=facts)
    return [_opened(vault, ledger.from_row(row), row["ends_on"], row["details"]) for row in rows]


def _opened(vault: Vault, entry: Entry, ends_on: date | None, details: bytes | None) -> Words:
    if entry.sealed is None:
        return Words(entry, None, None, "seals nothing")
    if ends_on is None or details is None:
        return Words(entry, None, None, "lost with an earlier database")
    if hashlib.sha256(details).hexdigest() != entry.sealed:
        return Words(entry, ends_on, None, "CHANGED: not what the ledger has the hash of")
    try:
        return Words(entry, ends_on, ledger.unseal(vault.ring, ends_on, details))
    except NoDayKeyError:
        return Words(entry, ends_on, None, f"ended with the key of {ends_on}")
    except InvalidTag:
        return Words(entry, ends_on, None, "CHANGED: not sealed for this day")
