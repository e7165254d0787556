"""The account of a night: one root over everything that fell due, and what became of it."""

from collections.abc import Iterable
from uuid import UUID

from archive import merkle


def root_over(erased: Iterable[UUID], failed: Iterable[UUID]) -> bytes:
    """The Merkle root (RFC 9162) over `<id> erased` and `<id> failed`, in the order of the ids."""
    outcomes = sorted([(each, "erased") for each in erased] + [(each, "failed") for each in failed])
    leaves = (merkle.leaf_hash(f"{each} {outcome}".encode()) for each, outcome in outcomes)
    return merkle.growth_over(leaves).root
