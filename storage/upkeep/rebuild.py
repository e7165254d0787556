"""The database made whole out of what lies outside it: the bucket, the key ring, the ledger's last
checkpoint.

A database that was lost, or put back from a backup, lacks rows of recordings that were acknowledged
since, and has rows of some that were erased since. In this order:

1. The ledger is made whole, and what it tells is done again (`storage.upkeep.replay`). *Nothing
   that was erased comes back, and nothing else may be done on this database until the end.*
2. Every object becomes a row again whose head opens under a living day's key, which is as long as
   it says, and which is not told as erased. *Every acknowledged recording has its row*, also one
   that is due by now and will be erased and told of like any other. Of two objects of one call the
   one that the ledger knows stands for it; if it knows neither, either may have been acknowledged,
   and both become rows.
3. What is told as stored and has no row is told as erased if it was due and nothing is left of it,
   for then only the telling was lost; what is left goes when its day is closed, and is told of
   then. If it is not due it is told as lost, also where the store still holds something that does
   not open, or has it under a delete marker: with its day that goes, and no erasure is ever told.
   *The ledger leaves nothing out that came due, and what can never be erased is no hidden one.*
4. The redacted copies of recordings stand again where the ledger says so (`storage.upkeep.copies`).
   *What nobody was to hear is heard by nobody.*
5. The archive is free again, and erasing is held until people who have looked release it.

Exports are copies, and can be asked for again: their rows and their objects go. *No copy of a
recording is left that its erasing would not find.*

An object that does not open, or is not whole, is put on the list and left alone. What is in it
besides its head the verifying job looks at.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from uuid import UUID

import asyncpg

from archive.certificate import BEGIN
from archive.export import Why
from archive.ledger import instant
from archive.retention import Expiry
from storage import (
    attempts,
    clocks,
    export_erasing,
    frozen,
    holdings,
    ledger,
    recordings,
    steps,
    tree,
)
from storage.attempts import Attempt
from storage.database import Connection, connection
from storage.holdings import Holding
from storage.objects import MissingObjectError
from storage.sealing import DamagedError, Identity, Seal, sealed_length
from storage.upkeep import copies, heads, mark, replay
from storage.upkeep.comparison import Names
from storage.upkeep.replay import Replayed
from storage.upkeep.strays import parse
from storage.vault import Vault

log = logging.getLogger("archive.rebuild")

_PAGE = 200
_AT_ONCE = 16


@dataclass(slots=True)
class Report:
    """What one run did: the ledger's part, then how many objects were looked at and became rows.

    `over` are of recordings that were erased, and of exports; `strange` do not open, are not whole,
    or are of a call that another object stands for. `aside` are those that may be redacted copies.
    `told` recordings are told as erased whose erasing was not told. `lost` ones were acknowledged,
    are not due, and nothing that opens is left of them; of those in `copies` nothing is left of the
    redacted copy that stood for them.
    """

    replayed: Replayed
    objects: int = 0
    rebuilt: int = 0
    over: int = 0
    told: int = 0
    strange: Names = field(default_factory=Names)
    lost: Names = field(default_factory=Names)
    copies: Names = field(default_factory=Names)
    aside: list[Holding] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether somebody has to look at it."""
        return bool(self.strange.count or self.lost.count or self.copies.count)

    @property
    def counts(self) -> dict[str, object]:
        """The numbers alone, as the ledger tells them."""
        return {
            **{f"ledger_{name}": count for name, count in asdict(self.replayed).items()},
            "objects": self.objects,
            "rebuilt": self.rebuilt,
            "over": self.over,
            "told": self.told,
            "strange": self.strange.count,
            "lost": self.lost.count,
            "lost_copies": self.copies.count,
        }

    def as_json(self) -> dict[str, object]:
        """The report as it is shown."""
        return {
            **self.counts,
            "strange_objects": self.strange.named,
            "lost_ids": self.lost.named,
            "lost_copies_of": self.copies.named,
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
    await _end_exports(vault)
    await copies.settle(vault, report.aside, report.strange, report.copies)
    await _tell(vault, report)
    steps.reached("rebuilt")
    async with connection(vault.pool) as lent, lent.transaction():
        await ledger.record(lent, ledger.SYSTEM, "database.rebuilt", facts=report.counts)
        await clocks.hold(lent, "the database was rebuilt, and nobody has looked at it yet")
        await lent.execute("UPDATE archive SET rebuilding = false")
    await tree.checkpoint(vault)
    if vault.ring.days():
        await frozen.freeze(vault)
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
        rows = await lent.fetch(
            "SELECT id, CASE WHEN state = 'stored' THEN attempt END AS attempt FROM recording"
            " WHERE id = ANY($1)",
            ids,
        )
        fates = await ledger.fates(lent, ids)
        exports = await export_erasing.known(lent, ids)
    known = {row["id"]: row["attempt"] for row in rows}
    wanted, later = [], []
    for holding, identifier in named.items():
        if fates.get(identifier) == "erased" or identifier in exports:
            report.over += 1
        elif identifier in known:
            attempt = known[identifier]
            if attempt and not holding.key.endswith(str(attempt)):
                report.aside.append(holding)
        elif told and identifier not in fates:
            later.append(holding)
        else:
            wanted.append(holding)
    await _store(vault, wanted, report)
    return later


async def _end_exports(vault: Vault) -> None:
    """Take away every export of whose end the ledger does not tell, and tell of it. One that the
    store keeps is left to the reconciler.
    """
    async with connection(vault.pool) as lent:
        await lent.execute("DELETE FROM export")
        rows = await lent.fetch(
            "SELECT facts FROM told a WHERE act = 'export.asked' AND NOT EXISTS (SELECT FROM told e"
            " WHERE e.act = 'export.erased' AND e.facts->>'export' = a.facts->>'export')"
        )
    for row in rows:
        expiry = ledger.expiry({**row["facts"], "rule": ""})  # an export has none
        identifier = export_erasing.named(row["facts"].get("export"))
        if expiry is None or identifier is None:  # the archive never wrote this
            continue
        if await attempts.gone(vault, recordings.prefix(expiry.on, identifier)):
            facts = {
                "export": str(identifier),
                "day": expiry.on.isoformat(),
                "due": instant(expiry.at),
                "why": str(Why.WITHDRAWN),
                "absent": holdings.absent(versions=vault.objects.versions),
            }
            async with connection(vault.pool) as lent:
                await ledger.record(lent, ledger.SYSTEM, "export.erased", facts=facts)


async def _tell(vault: Vault, report: Report) -> None:
    """Look for what is told as stored and has no row, and tell of it.

    `over` is what was told so already, by a rebuild before, also one that was broken off.
    """
    async with connection(vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT DISTINCT ON (l.recording) l.recording, l.facts, EXISTS (SELECT FROM told t"
            " WHERE t.recording = l.recording AND t.act = 'recording.lost'"
            " AND t.position > l.position) AS over FROM ledger l WHERE l.act = ANY($1)"
            " AND l.recording IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM recording r WHERE r.id = l.recording) AND NOT EXISTS"
            " (SELECT FROM told t WHERE t.recording = l.recording AND t.act = 'erased')"
            " ORDER BY l.recording, l.position DESC",
            list(BEGIN),
        )
    for row in rows:
        if (expiry := ledger.expiry(row["facts"])) is None:  # the archive never wrote this
            continue
        held = await vault.objects.holdings(recordings.prefix(expiry.on, row["recording"]))
        async with connection(vault.pool) as lent:
            await _tell_gone(vault, lent, row, expiry, report, held=bool(held))


async def _tell_gone(
    vault: Vault,
    lent: Connection,
    row: asyncpg.Record,
    expiry: Expiry,
    report: Report,
    *,
    held: bool,
) -> None:
    """Tell of a recording of which nothing opens: as lost; or as erased if it is due and nothing is
    held either. What is due and held goes when its day is closed, which tells of it.
    """
    identifier, facts = row["recording"], ledger.due(expiry)
    # By the clock as it is now: a loss that is told when it is due excuses nothing.
    if not await lent.fetchval("SELECT $1::timestamptz <= archive_now()", expiry.at):
        report.lost.add(str(identifier))
        log.error("recording %s is lost: it has no row, nor an object that opens", identifier)
        if not row["over"]:
            await ledger.record(
                lent, ledger.SYSTEM, "recording.lost", recording=identifier, facts=facts
            )
    elif not held and not row["over"]:
        report.told += 1
        facts = {**facts, "absent": holdings.absent(versions=vault.objects.versions)}
        await ledger.record(lent, ledger.SYSTEM, "erased", recording=identifier, facts=facts)


async def _store(vault: Vault, wanted: Sequence[Holding], report: Report) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(holding: Holding) -> Attempt | None:
        async with gate:
            return await _read(vault, holding)

    opened = await asyncio.gather(*map(one, wanted))
    made: set[UUID] = set()
    async with connection(vault.pool) as lent, lent.transaction():
        for holding, attempt in zip(wanted, opened, strict=True):
            if attempt is None:
                report.aside.append(holding)
            elif attempt.recording.id in made:
                report.strange.add(holding.key)
            elif await _named(vault, lent, attempt):
                await attempts.make_stored(lent, ledger.SYSTEM, attempt, "rebuilt")
                made.add(attempt.recording.id)
                report.rebuilt += 1
            else:
                report.strange.add(holding.key)


async def _named(vault: Vault, lent: Connection, attempt: Attempt) -> bool:
    """Make a row for an object of which the ledger does not know; False when one that it knows
    stands for the call.

    Beside one of which it knows no more than of this, this one stands under a name of its own: the
    call's cannot be given twice, and which of the two was acknowledged nobody can tell any more.
    """
    if await attempts.intend(lent, attempt):
        return True
    found = attempt.recording
    other = await lent.fetchval(
        "SELECT id FROM recording WHERE source = $1 AND call_hash = $2",
        found.source,
        attempt.call_hash,
    )
    fates = await ledger.fates(lent, [other, found.id])
    if other in fates and found.id not in fates:
        return False
    name = recordings.call_hash(
        vault.ring, found.source, f"{found.call.call_id}\0{attempt.attempt}"
    )
    return await attempts.intend(lent, replace(attempt, call_hash=name))


async def _read(vault: Vault, holding: Holding) -> Attempt | None:
    """What an object's head says of its recording; None if it is not to be believed."""
    day, recording, attempt = parse(holding.key) or (date.min, UUID(int=0), UUID(int=0))
    try:
        header, details, size = await heads.read(vault, holding)
        seal = Seal.unwrap(header, vault.ring.day_key(day))
        if seal.identity != Identity(day, recording, attempt):
            raise DamagedError("the object has the header of another")
        found = recordings.from_details(recording, day, seal.open_details(details))
        if size != len(header) + len(details) + sealed_length(found.audio.bytes):
            raise DamagedError("the object is not as long as it says")
    except (MissingObjectError, ValueError, KeyError):  # it does not open, or says senseless things
        return None
    return attempts.describe(vault.ring, found, attempt, header, details)
