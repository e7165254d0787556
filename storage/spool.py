"""A body while it is taken in, or a sealed object while it is worked on: an unnamed file of sealed
chunks.

The file has no name, so that a crash leaves nothing, and holds nothing but sealed chunks, so that
no audio is ever on a disk in clear. The keys are in memory alone until the intent is written.

Hashing and sealing happen where the bytes arrive: handing them to a thread was measured, and costs
the processor more than it saves while client and store run beside.
"""

import errno
import hashlib
import io
import os
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from archive.errors import TooLargeError, UnavailableError
from storage.sealing import CHUNK, TAG, ChunkReader, DamagedError, Seal, sealed_length

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BATCH = 2 * CHUNK
"""Bytes that are hashed, sealed and written in one go: a quarter of a millisecond's work."""

_PIECE = 1 << 18
"""Bytes of a piece that is sent to the store."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class SealedFile:
    """An unnamed file of sealed chunks, closed with its context."""

    def __init__(self, directory: Path) -> None:
        with room():
            # O_TMPFILE where the file system has it; else a name that is gone at once.
            self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115

    @classmethod
    async def copy(cls, directory: Path, pieces: AsyncIterable[bytes]) -> "SealedFile":
        """Hold sealed chunks as they come from the store. UnavailableError on a full disk."""
        held = cls(directory)
        try:
            async for piece in pieces:
                held.write(piece)
        except BaseException:
            held.close()
            raise
        return held

    @property
    def fd(self) -> int:
        """The file's descriptor. Raises ValueError once it is closed."""
        return self._file.fileno()

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Add to the end. Raises UnavailableError when the disk is full."""
        view = memoryview(piece)
        with room():
            while view:
                view = view[os.write(self.fd, view) :]

    def close(self) -> None:
        """Let the file go; nothing of it is left."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Spool(SealedFile):
    """A body that was received: `size` bytes of audio, their `sha256`, and their MD5 if it was
    asked for.
    """

    def __init__(self, directory: Path, seal: Seal, *, md5: bool = False) -> None:
        super().__init__(directory)
        self.seal = seal
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._chunks = 0
        # Of one size: to let it grow and shrink costs a tenth of all, in pages given and taken.
        self._batch = memoryview(bytearray(_BATCH))
        self._filled = 0

    @classmethod
    async def receive(
        cls,
        directory: Path,
        seal: Seal,
        source: AsyncIterable[bytes],
        max_bytes: int,
        *,
        md5: bool = False,
    ) -> "Spool":
        """Take a body in, in one pass, with bounded memory.

        Raises TooLargeError as soon as there is more than `max_bytes`, UnavailableError when the
        disk is full, and whatever `source` raises; nothing is left then.
        """
        spool = cls(directory, seal, md5=md5)
        try:
            async for piece in source:
                _check_size(spool.size + len(piece), max_bytes)
                spool._add(piece)
            spool._finish()
        except BaseException:
            spool.close()
            raise
        return spool

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of the audio."""
        return self._sha256.digest()

    @property
    def plain_md5(self) -> bytes:
        """The MD5 of the audio, if it was asked for; for a sender that announced one."""
        if self._md5 is None:
            raise ValueError("the MD5 was not asked for")
        return self._md5.digest()

    def digest(self, name: str) -> bytes:
        """Another digest of the audio, in a pass of its own. Blocks; for a thread."""
        digest = hashlib.new(name)
        reader = SealedReader(self.fd, 0, self.size, self.seal.reader_keys())
        while plain := reader.read(_BATCH):
            digest.update(plain)
        return digest.digest()

    def reseal(self, directory: Path, seal: Seal) -> "Spool":
        """The same audio under another seal, in another unnamed file. Blocks; for a thread."""
        other = Spool(directory, seal)
        try:
            reader = SealedReader(self.fd, 0, self.size, self.seal.reader_keys())
            while plain := reader.read(_BATCH):
                other._add(plain)
            other._finish()
        except BaseException:
            other.close()
            raise
        other._md5 = self._md5
        return other

    def md5(self, head: bytes) -> bytes:
        """The MD5 of the whole object: its head, then the sealed chunks. Blocks; for a thread."""
        digest = hashlib.md5(head, usedforsecurity=False)
        for piece in self._read():
            digest.update(piece)
        return digest.digest()

    def pieces(self, head: bytes) -> Iterator[bytes]:
        """The whole object, piece by piece."""
        yield head
        yield from self._read()

    def _read(self) -> Iterator[bytes]:
        position, end = 0, sealed_length(self.size)
        while position < end:
            piece = os.pread(self.fd, _PIECE, position)
            if not piece:
                raise DamagedError("the unnamed file is shorter than it was")
            position += len(piece)
            yield piece

    def _add(self, piece: bytes) -> None:
        self.size += len(piece)
        rest = memoryview(piece)
        while rest:
            # Not before there is more: the last chunk must be sealed as the last.
            if self._filled == _BATCH:
                self._seal(last=False)
            part = rest[: _BATCH - self._filled]
            self._batch[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rest = rest[len(part) :]

    def _finish(self) -> None:
        if self._filled:
            self._seal(last=True)
        self._batch = memoryview(b"")

    def _seal(self, *, last: bool) -> None:
        plain = self._batch[: self._filled]
        self._sha256.update(plain)
        if self._md5 is not None:
            self._md5.update(plain)
        for start in range(0, len(plain), CHUNK):
            final = last and start + CHUNK >= len(plain)
            self.write(self.seal.seal_chunk(self._chunks, final, plain[start : start + CHUNK]))
            self._chunks += 1
        self._filled = 0


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise TooLargeError(f"A recording may have {most} bytes at the most.", max_bytes=most)


class SealedReader(io.RawIOBase):
    """The audio in a file of sealed chunks, readable and seekable; every chunk is verified.

    `offset` is where the chunks begin in the file, `size` the bytes of audio. Used inside worker
    processes. Raises DamagedError for a chunk that is not what was sealed.
    """

    def __init__(self, fd: int, offset: int, size: int, keys: bytes) -> None:
        super().__init__()
        self._fd, self._offset, self._size = fd, offset, size
        self._cipher = ChunkReader(keys)
        self._position = 0
        self._index, self._chunk = -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._size:
            index, skip = divmod(self._position, CHUNK)
            self._load(index)
            part = self._chunk[skip : skip + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done

    def _load(self, index: int) -> None:
        if index == self._index:
            return
        final = (self._size - 1) // CHUNK
        length = CHUNK if index < final else self._size - final * CHUNK
        sealed = os.pread(self._fd, length + TAG, self._offset + index * (CHUNK + TAG))
        self._chunk = self._cipher.open_chunk(index, index == final, sealed)
        self._index = index


@contextmanager
def room() -> Iterator[None]:
    """Tell a full disk as what it is for the sender: a reason to try again later."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UnavailableError("The archive's disk is full; nothing was kept.", 60) from error
        raise
