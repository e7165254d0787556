"""A ZIP that is written while it is read, in flat memory, to what cannot seek.

Each file is a stream of deflate whose blocks are not packed: the audio hardly gets smaller, and a
reader of streams takes a file whose length comes after it only where its end can be told.
"""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol
from zipfile import ZIP_DEFLATED, ZipFile

from archive.export import File


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@dataclass(slots=True)
class Packed:
    """A file on its way into a ZIP: what went in, and what it comes to."""

    name: str
    pieces: AsyncIterable[bytes]
    size: int = 0
    sha256: _Digest = field(default_factory=hashlib.sha256)
    sha512: _Digest = field(default_factory=hashlib.sha512)

    async def read(self) -> AsyncIterator[bytes]:
        """The pieces, counted."""
        async for piece in self.pieces:
            self.size += len(piece)
            self.sha256.update(piece)
            self.sha512.update(piece)
            yield piece

    @property
    def file(self) -> File:
        """What it came to, once it was read."""
        return File(self.name, self.size, self.sha256.digest().hex())


class _Outlet:
    """What a ZipFile writes to; `taken` hands it on."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        """There is nothing further down."""

    def taken(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held


async def zipped(files: AsyncIterable[Packed]) -> AsyncIterator[bytes]:
    """The bytes of a ZIP of these files, which are each read to the end before the next is asked
    for.
    """
    outlet = _Outlet()
    with ZipFile(outlet, "w", ZIP_DEFLATED, compresslevel=0) as archive:  # type: ignore[call-overload]
        async for file in files:
            with archive.open(file.name, "w") as place:
                async for piece in file.read():
                    place.write(piece)
                    yield outlet.taken()
            yield outlet.taken()
    yield outlet.taken()


async def whole(content: bytes) -> AsyncIterator[bytes]:
    """A file that is at hand."""
    yield content
