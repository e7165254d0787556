"""Tiles: their names, and proofs out of them alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import merkle, tiles
from archive.merkle import Growth, Node
from archive.tiles import FULL, STEP, Tiles


def grown(size: int) -> tuple[dict[tuple[int, int], bytes], list[bytes]]:
    """The tiles of a tree, and the roots of every tree on its way."""
    tree, made, roots = Growth(), {}, [merkle.EMPTY]
    for number in range(size):
        leaf = merkle.leaf_hash(b"%d" % number)
        for node, found in ((Node(0, number), leaf), *tree.add(leaf)):
            if node.level % STEP == 0:
                tile = (node.level // STEP, node.number // FULL)
                made[tile] = made.get(tile, b"") + found
        roots.append(tree.root)
    return made, roots


SIZE = 70_000
MADE, ROOTS = grown(SIZE)


@given(st.integers(1, SIZE), st.data())
def test_proofs_come_out_of_the_tiles_of_their_size(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))

    def proof(parts: list[list[Node]]) -> list[bytes]:
        """Made of no more of each tile than a tree of this size has."""
        published = {
            tile: MADE[tile][: tiles.width(tile, size) * 32] for tile in tiles.needed(parts)
        }
        return merkle.proof(parts, Tiles(published).look)

    leaf, root = merkle.leaf_hash(b"%d" % index), ROOTS[size]
    merkle.check_inclusion(leaf, index, size, proof(merkle.inclusion_nodes(index, size)), root)
    shown = proof(merkle.consistency_nodes(old, size))
    merkle.check_consistency(old, ROOTS[old], size, root, shown)


def test_a_tree_fills_its_tiles() -> None:
    assert {tile: len(hashes) // 32 for tile, hashes in MADE.items()} == {
        (level, number): tiles.width((level, number), SIZE)
        for level in range(4)
        for number in range(300)
        if tiles.width((level, number), SIZE)
    }


def test_a_tile_that_is_short_or_not_there_gives_nothing() -> None:
    for made in ({}, {(0, 0): bytes(31)}, {(0, 0): bytes(32)}):
        with pytest.raises(LookupError):
            Tiles(made).look(Node(1, 0))


def test_the_names_of_the_format() -> None:
    assert tiles.path(0, 1234067) == "0/x001/x234/067"
    assert tiles.path(1, 5, 112) == "1/005.p/112"
    assert tiles.path(None, 1000, 1) == "entries/x001/000.p/1"
    assert tiles.parse("0/x001/x234/067") == (0, 1234067, 256)


@given(st.none() | st.integers(0, 63), st.integers(0, 10**17), st.integers(1, 256))
def test_names_read_what_they_wrote(level: int | None, number: int, width: int) -> None:
    assert tiles.parse(tiles.path(level, number, width)) == (level, number, width)


@pytest.mark.parametrize(
    "name",
    [
        *("", "0", "0/", "0/1", "0/01", "0/0001", "64/000", "-1/000", "0/x000/001", "0/000.p/0"),
        *("0/000.p/256", "0/000.p/257", "0/000/", "entries/x1/000", "0/x001/x234/067.p/", "../000"),
    ],
)
def test_what_is_no_name(name: str) -> None:
    assert tiles.parse(name) is None


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_gives_back_its_entries(texts: list[bytes]) -> None:
    content = tiles.bundle(texts)
    assert tiles.unbundle(content) == texts
    if content:
        with pytest.raises(ValueError, match="in the middle"):
            tiles.unbundle(content[:-1] if texts[-1] else content + b"\0")
