"""The database made whole out of what lies outside it: the bucket, the key ring, the ledger's last
checkpoint.

A database that was lost, or put back from a backup, lacks rows of recordings that were acknowledged
since, and has rows of some that were erased since. In this order:

1. The ledger is made whole, and what it tells is done again (`storage.upkeep.replay`). *Nothing
   that was erased comes back, and nothing else may be done on this database until the end.*
2. Every object becomes a row again whose head opens under a living day's key, which is as long as
   it says, which is not told as erased, and whose year is not over. *Every acknowledged recording
   has its row.* Of two objects of one call the one that the ledger knows comes first.
3. The archive is free again, and erasing waits for a person who has looked.

An object that does not open, or is not whole, is put on the list and left alone. What is in it
besides its head the verifying job looks at.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from uuid import UUID

from archive.errors import UnavailableError
from storage import attempts, ledger, recordings, steps, tree
from storage.attempts import Attempt
from storage.database import connection, now
from storage.holdings import Holding
from storage.objects import MissingObjectError
from storage.sealing import (
    HEADER,
    DamagedError,
    Identity,
    Seal,
    details_length,
    sealed_length,
)
from storage.upkeep import mark, replay
from storage.upkeep.comparison import Names
from storage.upkeep.replay import Replayed
from storage.upkeep.strays import parse
from storage.vault import Vault

HEAD = 4096
"""Bytes in which the head of nearly every object lies whole."""

_PAGE = 200
_AT_ONCE = 16


@dataclass(slots=True)
class Report:
    """What one run did: the ledger's part, then how many objects were looked at and became rows.

    `over` are of recordings that were erased, or whose year is over; `strange` do not open, are not
    whole, or are of a call that another object stands for.
    """

    replayed: Replayed
    objects: int = 0
    rebuilt: int = 0
    over: int = 0
    strange: Names = field(default_factory=Names)

    def as_json(self) -> dict[str, object]:
        """The report as it is shown; its counts stand on the ledger as well."""
        return {
            **{f"ledger_{name}": count for name, count in asdict(self.replayed).items()},
            "objects": self.objects,
            "rebuilt": self.rebuilt,
            "over": self.over,
            "strange": self.strange.count,
            "strange_objects": self.strange.named,
        }


async def run(vault: Vault) -> Report:
    """Make the database whole. No service may run on it.

    Raises RewrittenError when the ledger cannot be made whole, UnavailableError when database or
    store is away; run again, it goes on where it was.
    """
    report = Report(await replay.run(vault))
    steps.reached("replayed")
    later: list[Holding] = []
    for day in sorted(vault.ring.days()):
        async for page in _pages(vault, day):
            report.objects += len(page)
            later += await _rebuild(vault, page, report, told=True)
    for start in range(0, len(later), _PAGE):
        await _rebuild(vault, later[start : start + _PAGE], report, told=False)
    steps.reached("rebuilt")
    facts = {name: value for name, value in report.as_json().items() if name != "strange_objects"}
    async with connection(vault.pool) as lent, lent.transaction():
        await ledger.record(lent, ledger.SYSTEM, "database.rebuilt", facts=facts)
        await lent.execute("UPDATE archive SET rebuilding = false")
    await tree.checkpoint(vault)
    await mark.begin_anew(vault)
    return report


async def _pages(vault: Vault, day: date) -> AsyncIterator[list[Holding]]:
    """The day's objects as they stand now, without older versions, a page at a time."""
    page: list[Holding] = []
    async for holding in vault.objects.walk(f"{day.isoformat()}/"):
        if holding.latest and holding.kind != "marker":
            page.append(holding)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


async def _rebuild(
    vault: Vault, page: Sequence[Holding], report: Report, *, told: bool
) -> list[Holding]:
    """Make rows of a page of objects; returns those that the ledger does not tell of, if `told`."""
    named = {holding: parts[1] for holding in page if (parts := parse(holding.key))}
    for holding in page:
        if holding not in named:
            report.strange.add(holding.key)
    async with connection(vault.pool) as lent:
        ids = list(named.values())
        rows = await lent.fetch("SELECT id FROM recording WHERE id = ANY($1)", ids)
        fates = await ledger.fates(lent, ids)
    known = {row["id"] for row in rows}
    wanted, later = [], []
    for holding, identifier in named.items():
        if fates.get(identifier) == "erased":
            report.over += 1
        elif identifier in known:
            continue
        elif told and identifier not in fates:
            later.append(holding)
        else:
            wanted.append(holding)
    await _store(vault, wanted, report)
    return later


async def _store(vault: Vault, wanted: Sequence[Holding], report: Report) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(holding: Holding) -> Attempt | None:
        async with gate:
            return await _read(vault, holding)

    opened = await asyncio.gather(*map(one, wanted))
    at = await now(vault.pool)
    async with connection(vault.pool) as lent, lent.transaction():
        for holding, attempt in zip(wanted, opened, strict=True):
            if attempt is None:
                report.strange.add(holding.key)
            elif attempt.recording.call.expiry.at <= at:
                report.over += 1
            elif await attempts.intend(lent, attempt) and await attempts.make_stored(
                lent, ledger.SYSTEM, attempt, "rebuilt"
            ):
                report.rebuilt += 1
            else:
                report.strange.add(holding.key)


async def _read(vault: Vault, holding: Holding) -> Attempt | None:
    """What an object's head says of its recording; None if it is not to be believed."""
    day, recording, attempt = parse(holding.key) or (date.min, UUID(int=0), UUID(int=0))
    try:
        header, details, size = await _head(vault, holding)
        seal = Seal.unwrap(header, vault.ring.day_key(day))
        if seal.identity != Identity(day, recording, attempt):
            raise DamagedError("the object has the header of another")
        found = recordings.from_details(recording, day, seal.open_details(details))
        if size != len(header) + len(details) + sealed_length(found.audio.bytes):
            raise DamagedError("the object is not as long as it says")
    except (MissingObjectError, ValueError, KeyError):  # it does not open, or says senseless things
        return None
    return attempts.describe(vault.ring, found, attempt, header, details)


async def _head(vault: Vault, holding: Holding) -> tuple[bytes, bytes, int]:
    """An object's header and sealed details, and its whole length in bytes."""
    if holding.size < 0:
        raise UnavailableError("The object store's list does not say how long the objects are.")
    if holding.size < HEADER:
        raise DamagedError("the object is shorter than a header")
    stop = min(HEAD, holding.size)
    head = await _get(vault, holding.key, 0, stop)
    header = head[:HEADER]
    end = HEADER + details_length(header)
    if end > stop:
        head += await _get(vault, holding.key, stop, min(end, holding.size))
    return header, head[HEADER:end], holding.size


async def _get(vault: Vault, key: str, start: int, stop: int) -> bytes:
    async with vault.objects.get(key, start, stop) as pieces:
        return b"".join([piece async for piece in pieces])
