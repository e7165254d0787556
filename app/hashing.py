"""The tree over the entries of an export.

Hashing takes about as long as reading what the entries tell. So a large export is hashed by a
process of its own meanwhile, which is this file as a program: it gets the open file as its standard
input, the sizes that are asked for as arguments, and prints a root for each.
"""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

from archive import merkle
from archive.merkle import Growth

_LARGE = 8 << 20
"""Bytes of an export that are worth another process."""

_ROOT = Path(__file__).parents[1]

Head = tuple[int, bytes]
"""A size, and the root over as many entries."""


class Hashed(Protocol):
    """Waits for the tree."""

    def __call__(self) -> list[Head]: ...


def lines(file: Iterator[bytes]) -> Iterator[bytes]:
    """The entries of an export, up to the empty line. Raises ValueError when it has none."""
    for line in file:
        if line == b"\n":
            return
        yield line[:-1]
    raise ValueError("The export has no checkpoint at its end: it was cut.")


@contextmanager
def hashing(file: IO[bytes], sizes: Sequence[int]) -> Iterator[Hashed]:
    """Begin to hash; what is lent gives the heads at these sizes, and that of all entries last.

    A size that the export does not reach has the head of as many entries as there are.
    """
    if os.fstat(file.fileno()).st_size < _LARGE:
        yield lambda: heads(file.fileno(), sizes)
        return
    command = [sys.executable, "-m", "app.hashing", *map(str, sizes)]
    with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, cwd=_ROOT) as process:  # noqa: S603 - our own program
        yield lambda: _told(process)


def _told(process: "subprocess.Popen[bytes]") -> list[Head]:
    out, _ = process.communicate()
    if process.returncode:
        raise OSError("The process that hashes the export ended before it had done so.")
    told = [line.split() for line in out.decode().splitlines()]
    return [(int(size), bytes.fromhex(root)) for size, root in told]


def heads(file: int, sizes: Sequence[int]) -> list[Head]:
    """The head at each size, and of all entries; the place in the open file stays as it is."""
    found, growth = dict[int, Head](), Growth()
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        leaves = map(merkle.leaf_hash, lines(iter(content.readline, b"")))
        for size in sorted(sizes):
            merkle.extend(growth, islice(leaves, size - growth.size))
            found[size] = growth.size, growth.root
        merkle.extend(growth, leaves)
    return [*(found[size] for size in sizes), (growth.size, growth.root)]


if __name__ == "__main__":
    for reached, over in heads(sys.stdin.fileno(), list(map(int, sys.argv[1:]))):
        print(reached, over.hex())
