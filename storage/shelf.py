"""Where a service keeps the files of unfinished uploads, and which of them somebody has in hand."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID
from weakref import WeakValueDictionary

from archive.errors import UnavailableError
from storage import durable

PATIENCE = 10.0
"""Seconds that one request waits for another that has the upload."""

_PLACE = "place"


@dataclass(slots=True, weakref_slot=True, eq=False)
class Hold:
    """An upload in somebody's hands. `break_off` ends what is still arriving for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    break_off: Callable[[], None] | None = None


class Shelf:
    """The directory of one service; `place` is its name, which it keeps there. Blocks, shortly."""

    def __init__(self, directory: Path) -> None:
        durable.make_directory(directory)
        name = directory / _PLACE
        if not name.exists():
            _name(name)
        self._directory = directory
        self._holds: WeakValueDictionary[UUID, Hold] = WeakValueDictionary()
        self.place = name.read_text()

    def file(self, upload: UUID) -> Path:
        """The file of one upload."""
        return self._directory / str(upload)

    def lying(self) -> dict[str, Path]:
        """All files that are here, by the name of their upload."""
        files = self._directory.iterdir()
        return {path.name: path for path in files if not path.name.startswith(_PLACE)}

    @asynccontextmanager
    async def in_hand(self, upload: UUID) -> AsyncIterator[Hold]:
        """Take an upload in hand, alone. Who comes later knows more of the line than who waits for
        bytes on it: what is still arriving is broken off. UnavailableError while it is finished.
        """
        hold = self._holds.setdefault(upload, Hold())
        if hold.break_off:
            hold.break_off()
        try:
            async with asyncio.timeout(PATIENCE):
                await hold.lock.acquire()
        except TimeoutError:
            raise UnavailableError("The upload is in somebody's hands; ask again.", 1) from None
        try:
            yield hold
        finally:
            hold.break_off = None
            hold.lock.release()


def _name(name: Path) -> None:
    """Give a directory its name, once, whoever else does so at this moment: the first one stays."""
    new = name.with_name(f"{_PLACE}.{secrets.token_hex(8)}")
    durable.write(new, secrets.token_hex(16).encode())
    with suppress(FileExistsError):
        os.link(new, name)
    new.unlink()
    durable.sync_directory(name.parent)
