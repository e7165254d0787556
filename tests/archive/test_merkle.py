"""The tree: against the words of RFC 9162, its published vectors, and everything that is a lie."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import merkle
from archive.merkle import Growth, Node, ProofError

# The entries and roots that Certificate Transparency's own tests use (RFC 6962 hashing, the same).
VECTOR = [
    *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def words(leaves: list[bytes]) -> bytes:
    """MTH as section 2.1.1 says it, word by word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(words(leaves[:split]), words(leaves[split:]))


def leaves(size: int) -> list[bytes]:
    return [merkle.leaf_hash(b"entry %d" % number) for number in range(size)]


def grown(size: int) -> tuple[Growth, dict[Node, bytes]]:
    tree, nodes = Growth(), {}
    for number, leaf in enumerate(leaves(size)):
        nodes[Node(0, number)] = leaf
        nodes.update(tree.add(leaf))
    return tree, nodes


def test_the_published_vectors() -> None:
    tree = Growth()
    for entry, expected in zip(VECTOR, ROOTS, strict=True):
        tree.add(merkle.leaf_hash(bytes.fromhex(entry)))
        assert tree.root.hex() == expected
    assert merkle.EMPTY.hex() == Growth().root.hex()
    assert merkle.EMPTY.hex().startswith("e3b0c44298fc1c14")


@pytest.mark.parametrize("size", range(40))
def test_a_grown_tree_is_the_one_of_the_words(size: int) -> None:
    tree, nodes = grown(size)
    assert tree.root == words(leaves(size))
    assert merkle.root(size, nodes.__getitem__) == tree.root
    again = Growth(size, [nodes[node] for node in merkle.peaks(size)])
    again.add(merkle.leaf_hash(b"more"))
    assert again.root == words([*leaves(size), merkle.leaf_hash(b"more")])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 900, 4096, 12345])
@pytest.mark.parametrize("first", [0, 1, 256, 300, 12345])
def test_a_tree_made_in_blocks_is_the_same(size: int, first: int) -> None:
    tree, _ = grown(size)
    fast = merkle.growth_over(leaves(size)[:first])
    merkle.extend(fast, leaves(size)[first:])
    assert (fast.size, fast.root) == (size, tree.root)
    fast.add(merkle.leaf_hash(b"more"))
    tree.add(merkle.leaf_hash(b"more"))
    assert fast.root == tree.root


def test_a_tree_goes_on_only_with_what_belongs_to_its_size() -> None:
    with pytest.raises(ValueError, match="number of full trees"):
        Growth(3, [b"x" * 32])


def test_every_entry_of_every_small_tree_is_proven_and_none_elsewhere() -> None:
    _, nodes = grown(34)
    for size in range(1, 35):
        expected = merkle.root(size, nodes.__getitem__)
        for index in range(size):
            path = merkle.proof(merkle.inclusion_nodes(index, size), nodes.__getitem__)
            merkle.check_inclusion(nodes[Node(0, index)], index, size, path, expected)
            for other in {*range(size)} - {index}:
                with pytest.raises(ProofError):
                    merkle.check_inclusion(nodes[Node(0, index)], other, size, path, expected)
            for lie in ([*path, bytes(32)], path[:-1] if path else [bytes(32)]):
                with pytest.raises(ProofError):
                    merkle.check_inclusion(nodes[Node(0, index)], index, size, lie, expected)


def test_every_small_tree_is_a_beginning_of_every_larger_one() -> None:
    _, nodes = grown(34)
    roots = [merkle.root(size, nodes.__getitem__) for size in range(35)]
    for old in range(35):
        for new in range(old, 35):
            path = merkle.proof(merkle.consistency_nodes(old, new), nodes.__getitem__)
            merkle.check_consistency(old, roots[old], new, roots[new], path)
            wrong = bytes(31) + b"\1"
            lies = [
                (old, wrong, new, roots[new], path),
                (old, roots[old], new, roots[new], [*path, wrong]),
                (new + 1, roots[new], new, roots[new], path),
                *[(old, roots[old], new, roots[new], path[:-1])] * bool(path),
                # An empty tree is the beginning of whatever there is.
                *[(old, roots[old], new, wrong, path)] * bool(old),
                *[(old + 1, roots[old], new, roots[new], path)] * (0 < old < new),
            ]
            for lie in lies:
                with pytest.raises(ProofError):
                    merkle.check_consistency(*lie)


@given(st.integers(1, 5000), st.data())
def test_a_change_of_any_hash_of_a_proof_is_seen(size: int, data: st.DataObject) -> None:
    nodes = CHANGING
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    root = merkle.root(size, nodes.__getitem__)
    path = merkle.proof(merkle.inclusion_nodes(index, size), nodes.__getitem__)
    merkle.check_inclusion(nodes[Node(0, index)], index, size, path, root)
    shown = merkle.proof(merkle.consistency_nodes(old, size), nodes.__getitem__)
    before = merkle.root(old, nodes.__getitem__)
    merkle.check_consistency(old, before, size, root, shown)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        path[at] = bytes(32)
        with pytest.raises(ProofError):
            merkle.check_inclusion(nodes[Node(0, index)], index, size, path, root)
    if shown:
        shown[data.draw(st.integers(0, len(shown) - 1))] = bytes(32)
        with pytest.raises(ProofError):
            merkle.check_consistency(old, before, size, root, shown)


_, CHANGING = grown(5000)


def test_what_cannot_be_proven_is_not_asked_for() -> None:
    for index, size in [(-1, 3), (3, 3), (0, 0)]:
        with pytest.raises(ValueError, match="no entry at this place"):
            merkle.inclusion_nodes(index, size)
        with pytest.raises(ProofError):
            merkle.check_inclusion(bytes(32), index, size, [], bytes(32))
    with pytest.raises(ValueError, match="only grows"):
        merkle.consistency_nodes(4, 3)


def test_the_nodes_of_a_tree_are_full_and_next_to_each_other() -> None:
    for size in range(1, 300):
        spans = [(n.number << n.level, (n.number + 1) << n.level) for n in merkle.peaks(size)]
        assert (spans[0][0], spans[-1][1]) == (0, size)
        assert all(left[1] == right[0] for left, right in pairwise(spans))
