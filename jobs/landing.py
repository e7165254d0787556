"""Taking in what lies in a landing bucket, and removing it from there once it is kept.

A look goes through the whole bucket, in flat memory, and does with each recording:

1. wait for what has to lie beside it; 2. read it, and take it in by the same way as an upload;
3. write down that it was taken, so that it is never read again; 4. remove it, and what lay beside.

A crash after any of these costs at most that it is read once more: the archive knows the call. What
is refused stays where it is, is told of, and asked about again a day later. Nothing is removed that
was not taken in.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime

from archive.access import Caller
from archive.errors import (
    ArchiveError,
    ForbiddenError,
    InvalidError,
    TooLargeError,
    TooManyError,
    UnavailableError,
)
from archive.sidecar import UnclearError
from jobs.schedule import tell
from storage import credentials, database, intake, landing, leftovers, mapped, steps
from storage.database import connection
from storage.holdings import Holding
from storage.landing import ChangedError, Landing
from storage.leftovers import Fate, Left
from storage.vault import Vault

log = logging.getLogger("archive.landing")

REST = 30.0
"""Seconds between two looks, unless the last one took something in."""

AT_ONCE = 4
"""Recordings of one bucket that are taken in side by side."""

PAGE = 500
"""Objects that are looked up at once."""

MISSES = 10
"""Failures in a row that are no fault of an object, before a look is broken off."""

_FAILED = "the archive failed of it, its log says where; it is tried again"


class _WaitingError(Exception):
    """What has to lie beside it is not there yet."""


@dataclass(slots=True)
class Look:
    """One look at a bucket: recordings taken in; objects left, and those of them that are refused;
    and since when the oldest lies there. `failed`: why it is not whole, if it is not.
    """

    taken: int = 0
    left: int = 0
    refused: int = 0
    oldest: datetime | None = None
    failed: str = ""
    misses: int = 0

    def leave(self, held: Holding, fate: Fate | None = None) -> None:
        """Count what stays."""
        self.left += 1
        self.refused += fate is Fate.REFUSED
        if held.at and (self.oldest is None or held.at < self.oldest):
            self.oldest = held.at

    def miss(self, why: str) -> None:
        """Count what says nothing of the object."""
        self.failed = why
        self.misses += 1


async def run(vault: Vault, place: Landing, ending: asyncio.Event) -> None:
    """Look at a bucket again and again, until it is to end."""
    checked, refused = False, 0
    while not ending.is_set():
        found = Look()
        try:
            if not checked:
                await landing.check_residency(place)
                checked = True
            found = await look(vault, place, ending)
            _log(place, found, refused)
            refused = found.refused
        except Exception as error:  # the one boundary of this job
            tell(f"landing {place.name}", error)
        if not found.taken or found.failed:
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), REST)


def _log(place: Landing, found: Look, before: int) -> None:
    if found.taken or found.refused != before:
        log.info("landing %s: %s taken in, %s refused", place.name, found.taken, found.refused)
    if found.failed:
        log.warning("landing %s: %s", place.name, found.failed)


async def look(vault: Vault, place: Landing, ending: asyncio.Event | None = None) -> Look:
    """Look once at everything that lies there, or at as much as can be before it is to end."""
    found, began = Look(), await database.now(vault.pool)
    async with aclosing(landing.walk(place)) as walk, aclosing(pages(walk)) as found_pages:
        async for page in found_pages:
            await _work(vault, place, page, found, ending)
            if found.misses >= MISSES or (ending and ending.is_set()):
                found.failed = found.failed or "it was to end before all was looked at"
                break
    if not found.failed:
        async with connection(vault.pool) as lent:
            await leftovers.looked(lent, place.name, began, found.oldest, found.refused)
    return found


async def _work(
    vault: Vault, place: Landing, page: Sequence[Holding], found: Look, ending: asyncio.Event | None
) -> None:
    async with connection(vault.pool) as lent:
        known = await leftovers.of(lent, vault.ring, place.name, page)
    left = iter(page)

    async def one_by_one() -> None:
        for held in left:
            if found.misses >= MISSES or (ending and ending.is_set()):
                return
            await _one(vault, place, held, known.get(held), found)

    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))


async def pages(walk: AsyncIterator[Holding]) -> AsyncGenerator[Sequence[Holding], None]:
    """So many at once as are looked up in one go."""
    page: list[Holding] = []
    async for held in walk:
        page.append(held)
        if len(page) == PAGE:
            yield page
            page = []
    yield page


async def _one(vault: Vault, place: Landing, held: Holding, left: Left | None, found: Look) -> None:
    try:
        if left and left.fate is Fate.TAKEN:
            await _remove(vault, place, held, found)
        elif (left and not left.due) or not _is_audio(place, held):
            found.leave(held, left.fate if left else None)
        else:
            await _take(vault, place, held, found)
            found.taken += 1
        found.misses = 0
    except ChangedError:
        found.misses = 0  # it is gone, or the next look sees what it is now
    except _WaitingError:
        await _leave(vault, place, held, found, Fate.WAITING, "waits for what lies beside it")
    except (UnavailableError, TooManyError) as error:
        found.leave(held)
        found.miss(error.detail)
    except (ArchiveError, UnclearError) as error:
        await _leave(vault, place, held, found, Fate.REFUSED, _why(error))
    except Exception as error:  # a fault here, of which the others are not to suffer
        tell(f"landing {place.name}", error)
        found.leave(held)
        found.miss(type(error).__name__)
        if not (left and left.fate is Fate.TAKEN):  # the next look is to get further than this one
            await _note(vault, place, held, Fate.WAITING, _FAILED)


def _is_audio(place: Landing, held: Holding) -> bool:
    """Whether it may be a recording, and what its key stands for now; its bytes will tell."""
    return held.latest and held.kind != "upload" and not place.is_sidecar(held.key)


async def _take(vault: Vault, place: Landing, held: Holding, found: Look) -> None:
    if held.size > (most := vault.limits.max_bytes):
        raise TooLargeError(f"A recording may have {most} bytes at the most.")
    both: list[Holding] = [held]
    said: Mapping[str, str] = {}
    if beside := place.beside(held.key):
        if (side := await landing.find(place, beside, versions=held.id is not None)) is None:
            raise _WaitingError
        both, said = [held, side], await landing.table(place, side)
    caller = await _take_in(vault, place, held, said)
    async with connection(vault.pool) as lent:
        await leftovers.note(lent, vault.ring, place.name, both, Fate.TAKEN)
        await credentials.used(lent, caller.id)
    steps.reached("landed")
    for each in both:
        await _remove(vault, place, each, found)
        steps.reached("cleared")


async def _take_in(vault: Vault, place: Landing, held: Holding, said: Mapping[str, str]) -> Caller:
    async with connection(vault.pool) as lent:
        known = await credentials.uploader(lent, vault.ring, place.key)
    if known is None:
        raise UnavailableError("the uploader's key that it delivers by is not there, or revoked")
    (caller, now), reading = known, place.reading
    path = reading.path(held.key.removeprefix(place.prefix)) or {}
    async with landing.opened(place, held) as arrived:
        raw = {"path": path, "metadata": arrived.metadata, "sidecar": said}
        offer, body, at = arrived.offer, arrived.pieces, arrived.at or now
        if admitted := await mapped.admit(vault, caller, reading, raw, now):
            await intake.take_in(vault, caller, admitted, offer, body, now)
        else:
            await mapped.take_in(vault, caller, reading, lambda: raw, offer, body, at, now)
    return caller


async def _remove(vault: Vault, place: Landing, held: Holding, found: Look) -> None:
    """Remove what was taken in. If it is another one by now it stays, and the next look sees it; if
    the store refuses, each look asks again.
    """
    try:
        await landing.remove(place, held)
    except ChangedError:
        return
    except ForbiddenError as error:
        await _leave(vault, place, held, found, Fate.TAKEN, f"is taken in; {error.detail}")


async def _leave(
    vault: Vault, place: Landing, held: Holding, found: Look, fate: Fate, why: str
) -> None:
    found.leave(held, fate)
    found.misses = 0
    await _note(vault, place, held, fate, why)


async def _note(vault: Vault, place: Landing, held: Holding, fate: Fate, why: str) -> None:
    async with connection(vault.pool) as lent:
        await leftovers.note(lent, vault.ring, place.name, [held], fate, why)


def _why(error: Exception) -> str:
    if isinstance(error, InvalidError):
        return "; ".join(f"{field} {why}" for field, why in error.errors.items())
    return error.detail if isinstance(error, ArchiveError) else str(error)
