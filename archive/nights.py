"""The account of a night: one root over everything that fell due, and what became of it."""

from collections.abc import Iterable
from uuid import UUID

from archive import merkle

NAMED = 1000
"""How many recordings that are due and not erased are named in the ledger, at the most."""


def root_over(erased: Iterable[UUID] | Iterable[str], failed: Iterable[UUID]) -> bytes:
    """The Merkle root (RFC 9162) over `<id> erased` and `<id> failed`, in the order of the ids."""
    outcomes = sorted([f"{each} erased" for each in erased] + [f"{each} failed" for each in failed])
    # All ids are of one length, so that the order of these texts is that of the ids.
    return merkle.growth_over(merkle.leaf_hash(each.encode()) for each in outcomes).root
