"""How the tree's hashes are kept and published: tiles, as C2SP tlog-tiles lays them out.

A tile is up to 256 hashes side by side. Level 0 has those of the entries; the hash of a full tile
is one hash of the level above. A tile that is not full yet is named with how many hashes it has
(`.p/W`), so that whatever has a name never changes. Entries are published likewise, 256 to a
bundle, each with its length (16 bits, big-endian) ahead of it.

https://c2sp.org/tlog-tiles
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from archive import merkle
from archive.merkle import Node

FULL = 256
"""Hashes in a full tile, and entries in a full bundle."""

STEP = 8
"""Levels of the tree that a tile spans."""

HASH = 32

LONGEST = 2**16 - 1
"""Bytes that an entry may have: so many the length ahead of it in a bundle can tell."""

Tile = tuple[int, int]
"""A tile's level and its number on that level."""

_PATH = re.compile(
    r"(?P<level>[0-9]|[1-5][0-9]|6[0-3]|entries)/(?P<high>(?:x[0-9]{3}/){0,5})(?P<low>[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


class Tiles:
    """Some tiles of a tree, and what nodes hash to by them."""

    def __init__(self, tiles: Mapping[Tile, bytes]) -> None:
        self._tiles = tiles

    def look(self, node: Node) -> bytes:
        """A node's hash. Raises LookupError when its tile is not among them or too short."""
        tile, first, count = place(node)
        hashes = self._tiles[tile][first * HASH : (first + count) * HASH]
        if len(hashes) != count * HASH:
            raise LookupError("a tile of the ledger is shorter than the ledger")
        found = [hashes[at : at + HASH] for at in range(0, len(hashes), HASH)]
        while len(found) > 1:
            found = [
                merkle.node_hash(left, right)
                for left, right in zip(found[::2], found[1::2], strict=True)
            ]
        return found[0]


def place(node: Node) -> tuple[Tile, int, int]:
    """The tile that a node lies in, its first hash there, and how many hashes it covers."""
    level, above = divmod(node.level, STEP)
    first = node.number << above
    return (level, first // FULL), first % FULL, 1 << above


def needed(parts: Iterable[Sequence[Node]]) -> set[Tile]:
    """The tiles that the nodes of a proof lie in."""
    return {place(node)[0] for part in parts for node in part}


def width(tile: Tile, size: int) -> int:
    """How many hashes a tile has in a tree of so many entries: none to 256."""
    level, number = tile
    return max(0, min(FULL, (size >> (STEP * level)) - number * FULL))


def path(level: int | None, number: int, width: int = FULL) -> str:
    """The name of a tile, or of a bundle of entries (`level` None), under `tile/`."""
    digits = f"{number:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    partial = f".p/{width}" if width < FULL else ""
    return f"{'entries' if level is None else level}/{name}{partial}"


def parse(text: str) -> tuple[int | None, int, int] | None:
    """Read what `path` gave: level (None: entries), number and width. None for anything else."""
    match = _PATH.fullmatch(text)
    if match is None:
        return None
    level = None if match["level"] == "entries" else int(match["level"])
    number = int(re.sub("[x/]", "", match["high"]) + match["low"])
    found = level, number, int(match["width"] or FULL)
    # There is one name for each: no leading groups of zeros, no partial tile that is full.
    return found if path(*found) == text and found[2] <= FULL else None


def bundle(texts: Iterable[bytes]) -> bytes:
    """Entries one behind the other, each with its length ahead of it."""
    return b"".join(len(text).to_bytes(2, "big") + text for text in texts)


def unbundle(content: bytes) -> list[bytes]:
    """The entries of a bundle. Raises ValueError when it ends in the middle of one."""
    texts, at = [], 0
    while at < len(content):
        end = at + 2 + int.from_bytes(content[at : at + 2], "big")
        if end > len(content) or end < at + 2 or at + 2 > len(content):
            raise ValueError("a bundle of entries ends in the middle of one")
        texts.append(content[at + 2 : end])
        at = end
    return texts
