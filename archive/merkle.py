"""The ledger's tree: a Merkle tree over entries in their order, as RFC 9162 section 2.1 hashes it.

The root of a tree of n entries stands for all of them. An inclusion proof shows that an entry is
the one at its place; a consistency proof, that an older root is a beginning of a newer one: nothing
in between was changed, removed or put in. A proof is a list of 32-byte hashes.

Trees of 2^level entries that begin at a multiple of it never change once they are full. They are
named `Node(level, number)`: the entries from `number << level` on. Every proof is made of such
nodes, so whoever keeps them can prove anything (`storage.tree` keeps them in tiles).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

EMPTY = hashlib.sha256(b"").digest()
"""The root of a tree without entries (RFC 9162, 2.1.1)."""


_LEVEL = 8
_BLOCK = 1 << _LEVEL
"""Entries whose tree is made at once, several times as fast as one after the other."""


class Node(NamedTuple):
    """A full tree of 2^level entries, the `number`-th of its size."""

    level: int
    number: int


Look = Callable[[Node], bytes]
"""Gives the hash of a node."""


class ProofError(ValueError):
    """A proof does not show what it is to show."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry: SHA-256(0x00 | entry)."""
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two trees side by side: SHA-256(0x01 | left | right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Growth:
    """A tree that entries are added to: it holds one hash for each bit of its size."""

    def __init__(self, size: int = 0, full: Iterable[bytes] = ()) -> None:
        """Go on at `size`, with the hashes of `peaks(size)`, largest first."""
        self.size = size
        self._full = list(full)
        if len(self._full) != size.bit_count():
            raise ValueError("a tree of this size has another number of full trees in it")

    def add(self, found: bytes, level: int = 0) -> list[tuple[Node, bytes]]:
        """Add the hash of an entry, or of a full tree of 2^level, of which the size is a multiple.

        Returns the nodes above it that are full now, lowest first.
        """
        made: list[tuple[Node, bytes]] = []
        number = self.size >> level
        self.size += 1 << level
        while number & 1:
            found = node_hash(self._full.pop(), found)
            level, number = level + 1, number >> 1
            made.append((Node(level, number), found))
        self._full.append(found)
        return made

    @property
    def root(self) -> bytes:
        """The hash that stands for everything added so far."""
        return _joined(self._full)


def growth_over(leaves: Iterable[bytes]) -> Growth:
    """The tree over the hashes of entries, several times as fast as adding one after the other."""
    growth = Growth()
    extend(growth, leaves)
    return growth


def extend(growth: Growth, leaves: Iterable[bytes]) -> list[tuple[Node, bytes]]:
    """Add the hashes of entries, a block at a time; the nodes of a block or more that are full now,
    in the order in which they became so.
    """
    rest = iter(leaves)
    made = [each for leaf in islice(rest, -growth.size % _BLOCK) for each in growth.add(leaf)]
    while len(block := list(islice(rest, _BLOCK))) == _BLOCK:
        while len(block) > 1:
            block = [
                hashlib.sha256(b"\1" + left + right).digest()
                for left, right in zip(block[::2], block[1::2], strict=True)
            ]
        made.append((Node(_LEVEL, growth.size // _BLOCK), block[0]))
        made += growth.add(block[0], _LEVEL)
    for leaf in block:
        growth.add(leaf)
    return [(node, found) for node, found in made if node.level >= _LEVEL]


def peaks(size: int) -> list[Node]:
    """The largest full trees that a tree of this size consists of, from its beginning on."""
    return _covering(0, size)


def root(size: int, look: Look) -> bytes:
    """The root of the first `size` entries."""
    return _joined([look(node) for node in peaks(size)])


def inclusion_nodes(index: int, size: int) -> list[list[Node]]:
    """What proves that an entry is at `index` of `size`: each hash as the nodes it is made of."""
    if not 0 <= index < size:
        raise ValueError("there is no entry at this place of the tree")
    return [_covering(*span) for span in _path(index, 0, size)]


def consistency_nodes(old: int, new: int) -> list[list[Node]]:
    """What proves that the first `old` of `new` entries are the older tree: hashes as nodes."""
    if not 0 <= old <= new:
        raise ValueError("a tree only grows")
    if old in (0, new):
        return []
    return [_covering(*span) for span in _subproof(old, 0, new, whole=True)]


def proof(parts: Sequence[Sequence[Node]], look: Look) -> list[bytes]:
    """The hashes of a proof whose nodes `inclusion_nodes` or `consistency_nodes` named."""
    return [_joined([look(node) for node in part]) for part in parts]


def check_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], expected: bytes
) -> None:
    """Raise ProofError unless `path` leads from this entry's hash to the root (RFC 9162, 2.1.3.2).

    `index` counts from 0.
    """
    if not 0 <= index < size:
        raise ProofError("the entry's place is outside the tree")
    found = leaf
    for each, left in _steps(index, size - 1, path):
        found = node_hash(each, found) if left else node_hash(found, each)
    if found != expected:
        raise ProofError("the entry is not in the tree of this root")


def check_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]
) -> None:
    """Raise ProofError unless the old tree is a beginning of the new one (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new:
        raise ProofError("the tree has become smaller")
    if old in (0, new):
        same = old_root == (EMPTY if old == 0 else new_root)
        if path or not same:
            raise ProofError("trees of one size have different roots")
        return
    # The old tree is one of the new one's nodes if it is full, and then needs no telling.
    known = [old_root] if old & (old - 1) == 0 else []
    rest = [*known, *path]
    if not rest:
        raise ProofError("the proof is too short")
    below = (old & -old).bit_length() - 1
    first = second = rest[0]
    for each, left in _steps((old - 1) >> below, (new - 1) >> below, rest[1:]):
        first = node_hash(each, first) if left else first
        second = node_hash(each, second) if left else node_hash(second, each)
    if (first, second) != (old_root, new_root):
        raise ProofError("the older tree is not a beginning of the newer one")


def _steps(place: int, last: int, path: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The hashes on the way up from a place to the root, and whether each stands to the left."""
    for each in path:
        if last == 0:
            raise ProofError("the proof is too long")
        left = bool(place & 1) or place == last
        yield each, left
        while left and place and not place & 1:
            place, last = place >> 1, last >> 1
        place, last = place >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")


def _covering(start: int, stop: int) -> list[Node]:
    """The largest nodes that cover entries `start` to `stop` - 1, in their order."""
    nodes = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append(Node(level, start >> level))
        start += 1 << level
    return nodes


def _joined(full: Sequence[bytes]) -> bytes:
    """The root over trees that grow smaller: they join from the right."""
    if not full:
        return EMPTY
    found = full[-1]
    for each in reversed(full[:-1]):
        found = node_hash(each, found)
    return found


def _split(size: int) -> int:
    """The largest power of two that is smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _path(index: int, start: int, stop: int) -> list[tuple[int, int]]:
    """The spans beside the way from entry `index` up to the root of a span, lowest first."""
    found = []
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            found.append((middle, stop))
            stop = middle
        else:
            found.append((start, middle))
            start = middle
    return found[::-1]


def _subproof(old: int, start: int, stop: int, *, whole: bool) -> list[tuple[int, int]]:
    """The spans of a consistency proof (RFC 9162, 2.1.4.1); `whole` while the old root is known."""
    found = []
    while old != stop:
        middle = start + _split(stop - start)
        if old <= middle:
            found.append((middle, stop))
            stop = middle
        else:
            found.append((start, middle))
            start, whole = middle, False
    return [*([] if whole else [(start, stop)]), *found[::-1]]
