"""Where an old archive lies: a directory, the rows of a CSV that name files, or a bucket.

Each is gone through once, in order, one item at a time: however many there are, none is kept.
"""

import csv
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from app.folder import ChangedError, Folder
from app.remote import UsageError
from archive import filenames, sidecar
from archive.sidecar import Rules, UnclearError
from storage.objects import ObjectStore
from storage.s3 import MissingObjectError


@dataclass(frozen=True, slots=True)
class Item:
    """A recording that is to be imported. `row` is what a CSV says of it."""

    path: str
    size: int
    stamp: str
    row: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def beside(self, name: str) -> str:
        """The path of another file in the same folder."""
        return os.path.normpath(PurePosixPath(self.path).parent / name)

    @property
    def key(self) -> bytes:
        """What it is remembered by: a name may tell of a person."""
        # A row that was put right is another item.
        text = os.fsencode(self.path) + (json.dumps(self.row).encode() if self.row else b"")
        return hashlib.sha256(text).digest()[:16]


class Source(Protocol):
    """What an import reads from."""

    def items(self) -> AsyncGenerator[Item, None]:
        """Every recording, in order."""

    def opened(self, item: Item) -> AbstractAsyncContextManager[int]:
        """Its bytes as an open file. Raises ChangedError when it is not there."""

    async def beside(self, item: Item) -> Mapping[str, str]:
        """What is said of it besides its name. Raises UnclearError."""


class FolderSource:
    """Every audio in a directory and its folders."""

    def __init__(self, folder: Folder, rules: Rules) -> None:
        self._folder = folder
        self._rules = rules

    async def items(self) -> AsyncGenerator[Item, None]:
        for seen in self._folder.files():
            if filenames.media_type(seen.name):
                yield Item(seen.path, seen.size, seen.stamp)

    @asynccontextmanager
    async def opened(self, item: Item) -> AsyncIterator[int]:
        with self._folder.opened(item.path) as fd:
            yield fd

    async def beside(self, item: Item) -> Mapping[str, str]:
        name = self._rules.sidecar_of(item.name)
        return self._read(item.beside(name), name) if name else {}

    def _read(self, path: str, name: str) -> Mapping[str, str]:
        try:
            with self._folder.opened(path) as fd, open(fd, "rb", closefd=False) as file:
                return sidecar.read(name, file.read(sidecar.MOST + 1))
        except ChangedError:
            raise UnclearError("its sidecar is not there") from None


class TableSource:
    """The rows of a CSV; one column names the file, from the CSV's own folder on."""

    def __init__(self, folder: Folder, table: Path, column: str) -> None:
        self._folder = folder
        self._table = table
        self._column = column

    async def items(self) -> AsyncGenerator[Item, None]:
        for row in self._rows():
            yield self._item(row)

    def _item(self, row: Mapping[str, str]) -> Item:
        if not row.get(self._column):
            raise UsageError(f"The CSV has a row without a {self._column}: see --file-column.")
        path = os.path.normpath(row[self._column])
        seen = self._folder.look(path)
        return Item(path, seen.size if seen else -1, seen.stamp if seen else "", row)

    def _rows(self) -> Iterator[dict[str, str]]:
        try:
            with self._table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                yield from sidecar.rows_of(file)
        except (OSError, csv.Error, UnclearError) as error:
            raise UsageError(f"The CSV cannot be read: {error}") from None

    @asynccontextmanager
    async def opened(self, item: Item) -> AsyncIterator[int]:
        with self._folder.opened(item.path) as fd:
            yield fd

    async def beside(self, item: Item) -> Mapping[str, str]:
        return item.row or {}


class BucketSource:
    """Every audio under a prefix of a bucket; what is being sent lies in an unnamed file."""

    def __init__(self, store: ObjectStore, prefix: str, rules: Rules) -> None:
        self._store = store
        self._prefix = prefix
        self._rules = rules

    async def items(self) -> AsyncGenerator[Item, None]:
        async for held in self._store.walk(self._prefix):
            if held.latest and held.kind != "marker" and filenames.media_type(held.key):
                stamp = f"{held.size}-{held.at.isoformat() if held.at else ''}"
                yield Item(held.key, held.size, stamp)

    @asynccontextmanager
    async def opened(self, item: Item) -> AsyncIterator[int]:
        with tempfile.TemporaryFile() as file:
            if item.size > 0:
                await self._fetch(item.path, item.size, file.write)
            file.flush()
            yield file.fileno()

    async def beside(self, item: Item) -> Mapping[str, str]:
        name = self._rules.sidecar_of(item.name)
        if name is None:
            return {}
        key = item.beside(name)
        async for held in self._store.walk(key):
            if held.key == key and held.size >= 0:
                content = bytearray()
                await self._fetch(key, min(held.size, sidecar.MOST + 1), content.extend)
                return sidecar.read(name, bytes(content))
            break
        raise UnclearError("its sidecar is not there")

    async def _fetch(self, key: str, size: int, write: Callable[[bytes], object]) -> None:
        try:
            async with self._store.get(key, 0, size) as pieces:
                async for piece in pieces:
                    write(piece)
        except MissingObjectError:
            raise ChangedError("it is gone, or shorter than it was") from None
