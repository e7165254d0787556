"""A body that comes in parts, with hours and restarts between them: a file of sealed frames.

    NONCE (12) | LENGTH of the plain bytes (4) | sealed bytes | TAG (16)      and so on

What `Spool` is for one request, this is for an upload that is taken up again. The file has a name
and outlives the service, so its key cannot be the memory's: who opens it has the key from the
upload's row, wrapped by the key of the day on which the upload expires. A frame's nonce is random,
since after a crash the same place is written once more with other bytes; its place in the body is
authenticated, so that frames cannot be moved, left out or put in twice.

How much of the file counts stands in the row. What a crash left behind that is cut off.
"""

import asyncio
import os
import secrets
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.durable import sync_directory
from storage.sealing import NONCE, TAG, DamagedError
from storage.spool import room

FRAME = 1 << 18
"""Plain bytes of a frame, at most."""

_LENGTH = struct.Struct(">I")
_HEAD = NONCE + _LENGTH.size


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a body is kept for certain: `size` of its bytes, in `stored` bytes of the file."""

    size: int = 0
    stored: int = 0


class GrowingFile:
    """The file of one upload, opened at what is kept of it for certain."""

    def __init__(self, path: Path, key: bytes, mark: Mark) -> None:
        """Raises FileNotFoundError when a file is gone of which something was kept."""
        self.mark = mark
        self._cipher = AESGCM(key)
        self._path = path
        self._new = not mark.stored
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if self._new else 0)
        with room():
            self._fd = os.open(path, flags, 0o600)
        if os.fstat(self._fd).st_size < mark.stored:
            self.close()
            raise DamagedError("the file of an upload is shorter than what was kept")
        os.ftruncate(self._fd, mark.stored)
        self._stored = mark.stored
        self.size = mark.size
        self._held = bytearray()

    @property
    def coming(self) -> int:
        """How many bytes of the body are here, those that are not kept yet among them."""
        return self.size + len(self._held)

    def add(self, piece: bytes) -> None:
        """Add to the end. Raises UnavailableError when the disk is full."""
        self._held += piece
        self._write_held(FRAME)

    async def keep(self) -> Mark:
        """Put what was added on the disk; from then on it outlives a crash of the machine."""
        self._write_held(1)
        await asyncio.to_thread(self._sync)
        self.mark = Mark(self.size, self._stored)
        return self.mark

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it is kept. Raises DamagedError for what is not what was written."""
        size, position = 0, 0
        while position < self.mark.stored:
            plain, position = await asyncio.to_thread(self._read, size, position)
            size += len(plain)
            yield plain

    def close(self) -> None:
        """Let go of the file, which stays."""
        os.close(self._fd)

    def _write_held(self, least: int) -> None:
        """Write what is held, in frames, while there is at least so much: a full disk may have left
        more of it than a frame may have.
        """
        while len(self._held) >= least:
            self._write(bytes(self._held[:FRAME]))
            del self._held[:FRAME]

    def _write(self, plain: bytes) -> None:
        nonce = secrets.token_bytes(NONCE)
        head = nonce + _LENGTH.pack(len(plain))
        frame = head + self._cipher.encrypt(nonce, plain, _place(self.size, len(plain)))
        view, position = memoryview(frame), self._stored
        with room():
            while view:
                written = os.pwrite(self._fd, view, position)
                view, position = view[written:], position + written
        self.size, self._stored = self.size + len(plain), position

    def _sync(self) -> None:
        with room():
            os.fsync(self._fd)
            if self._new:
                sync_directory(self._path.parent)
                self._new = False

    def _read(self, size: int, position: int) -> tuple[bytes, int]:
        head = os.pread(self._fd, _HEAD, position)
        if len(head) < _HEAD:
            raise DamagedError("the file of an upload ends within a frame")
        (length,) = _LENGTH.unpack_from(head, NONCE)
        end = position + _HEAD + length + TAG
        if length > FRAME or end > self.mark.stored:
            raise DamagedError("a frame of an upload is longer than it can be")
        sealed = os.pread(self._fd, length + TAG, position + _HEAD)
        try:
            return self._cipher.decrypt(head[:NONCE], sealed, _place(size, length)), end
        except InvalidTag:
            raise DamagedError("a frame of an upload was changed or moved") from None


def _place(size: int, length: int) -> bytes:
    return struct.pack(">QI", size, length)
