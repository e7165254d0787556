"""The walk through all rows and all objects, side by side, for `storage.upkeep.reconcile`.

Both are walked in the same order, day by day, a page of each at a time: the memory that this takes
does not grow with the archive. While uploads and erasures go on, the two are never seen at the same
moment, so a difference is only a suspicion, and is looked at again before it is told.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from archive.lifecycle import State
from storage import attempts, export_erasing, ledger
from storage.database import connection
from storage.holdings import Holding
from storage.objects import SKEW, MissingObjectError
from storage.upkeep import listed, strays
from storage.upkeep.listed import Row
from storage.upkeep.strays import Stray, Why
from storage.vault import Vault

NAMED = 1000
"""How many of a kind are named in a report, at the most."""

HELD = 10_000
"""How many objects one run may remove; what is left goes with the next."""

OURS = ("ledger/", "check/")
"""What the archive itself keeps in the bucket besides recordings."""

_ASKED = 200


@dataclass(slots=True)
class Names:
    """How many there are of a kind, and the first of them by name."""

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.named) < NAMED:
            self.named.append(name)


@dataclass(slots=True)
class Report:
    """What one run saw and did.

    `objects` counts all that the store showed under expiry days, `recordings` the stored rows.
    `lost` names recordings, `unknown` objects. `due` counts, by the evidence, what is to be
    removed; `removed` what was. `versions` are older versions of objects that are in their place.
    `stopped` says why nothing was removed; empty if nothing stood in the way.
    """

    objects: int = 0
    recordings: int = 0
    lost: Names = field(default_factory=Names)
    unknown: Names = field(default_factory=Names)
    due: dict[str, int] = field(default_factory=lambda: {str(why): 0 for why in Why})
    removed: int = 0
    versions: int = 0
    stopped: str = ""

    @property
    def failed(self) -> bool:
        """Whether somebody has to look at it at once."""
        return bool(self.lost.count or self.unknown.count or self.stopped)

    @property
    def counts(self) -> dict[str, object]:
        """The numbers alone, as the ledger tells them."""
        return {
            "objects": self.objects,
            "recordings": self.recordings,
            "lost": self.lost.count,
            "unknown": self.unknown.count,
            "due": dict(self.due),
            "removed": self.removed,
            "versions": self.versions,
            "stopped": bool(self.stopped),
        }

    def as_json(self) -> dict[str, object]:
        """The report as it is shown."""
        return {
            **self.counts,
            "lost_ids": self.lost.named,
            "unknown_objects": self.unknown.named,
            "stopped": self.stopped or None,
        }

    def as_kept(self) -> dict[str, object]:
        """The report as a night keeps it, for ever: a name that the archive never gave may say
        anything, a number too.
        """
        ours = [name for name in self.unknown.named if strays.parse(name)]
        return {**self.as_json(), "unknown_objects": ours}


class Comparison:
    """One walk: what it saw so far, and what it still has to ask about."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._closed: set[date] = set()
        self._missing: list[Row] = []
        self._nameless: list[tuple[UUID, Holding]] = []
        self.report = Report()
        self.doomed: list[Stray] = []

    async def everything(self) -> None:
        """Walk through all. Raises UnavailableError when database or store is away."""
        self._closed = await _closed(self._vault)
        days = set(await _stored_days(self._vault))
        for folder in await self._vault.objects.folders():
            if day := _day(folder):
                days.add(day)
            elif folder not in OURS:
                await self._foreign(folder)
        for each in sorted(days):
            await self._side_by_side(each)
        await self._ask_missing()
        await self._ask_nameless()
        await self._unfinished()

    async def _side_by_side(self, day: date) -> None:
        folder = f"{day.isoformat()}/"
        rows = listed.rows(self._vault, day)
        row = await anext(rows, None)
        async for holding in self._vault.objects.walk(folder):
            self.report.objects += 1
            rest = holding.key.removeprefix(folder)
            while row is not None and row.name < rest and not rest.startswith(row.name):
                await self._passed(row)
                row = await anext(rows, None)
            if row is not None and rest.startswith(row.name):
                await self._judge(day, holding, row)
            else:
                await self._judge_alone(day, holding)
        while row is not None:
            await self._passed(row)
            row = await anext(rows, None)

    async def _judge(self, day: date, holding: Holding, row: Row) -> None:
        """Decide on an object under the name of a recording that has a row."""
        if day in self._closed:
            self._doom(Stray(holding, Why.DAY_CLOSED, row.id))
        elif row.state == State.ERASED:
            self._doom(Stray(holding, Why.ERASED, row.id))
        elif row.state == State.ABANDONED and row.over:
            self._doom(Stray(holding, Why.ABANDONED, row.id))
        elif row.state != State.STORED:
            return
        elif named := next(
            (one for one in (row, row.copy) if one and holding.key == one.key), None
        ):
            if not holding.latest:
                self.report.versions += 1
            elif holding.kind != "marker":
                named.whole = holding.size in (named.length, -1)
        else:
            await self._ask_copy(holding)

    async def _judge_alone(self, day: date, holding: Holding) -> None:
        """Decide on an object that no row seems to name."""
        parts = strays.parse(holding.key)
        recording = parts[1] if parts else None
        if day in self._closed:
            self._doom(Stray(holding, Why.DAY_CLOSED, recording))
        elif recording is None:
            self.report.unknown.add(holding.key)
        else:
            self._nameless.append((recording, holding))
            if len(self._nameless) >= _ASKED:
                await self._ask_nameless()

    async def _passed(self, row: Row) -> None:
        """Take leave of a row: all objects under its name have been seen."""
        if row.state != State.STORED:
            return
        self.report.recordings += 1
        for each in (row, row.copy):
            if each and not each.whole:
                self._missing.append(each)
        if len(self._missing) >= _ASKED:
            await self._ask_missing()

    def _doom(self, stray: Stray) -> None:
        self.report.due[stray.why] += 1
        if len(self.doomed) < HELD:
            self.doomed.append(stray)

    async def _ask_missing(self) -> None:
        """Tell as lost what is not there at a second look while its row is still stored."""
        rows, self._missing = self._missing, []
        for row in rows:
            if not await _is_whole(self._vault, row) and await _is_stored(self._vault, row):
                self.report.lost.add(str(row.id))

    async def _ask_copy(self, holding: Holding) -> None:
        """Tell as unknown what is no redacted copy, neither one that stands now nor another that is
        being stored or is to go.
        """
        parts = strays.parse(holding.key)
        async with connection(self._vault.pool) as lent:
            known = parts and await lent.fetchval(
                "SELECT EXISTS (SELECT FROM redaction_attempt WHERE id = $2)"
                " OR EXISTS (SELECT FROM recording WHERE id = $1 AND redacted = $2)",
                parts[1],
                parts[2],
            )
        if not known:
            self.report.unknown.add(holding.key)

    async def _ask_nameless(self) -> None:
        """Tell as unknown what still has no row: it may have come in after its page was read.

        In a database that was made anew erased recordings have no row, nor have exports: the ledger
        tells of them.
        """
        found, self._nameless = self._nameless, []
        ids = [each for each, _ in found]
        async with connection(self._vault.pool) as lent:
            rows = await lent.fetch("SELECT id FROM recording WHERE id = ANY($1)", ids)
            fates = await ledger.fates(lent, ids)
            exports = await export_erasing.known(lent, ids)
        known = {row["id"] for row in rows}
        for identifier, holding in found:
            if fates.get(identifier) == "erased":
                self._doom(Stray(holding, Why.ERASED, identifier))
            elif strays.is_over(holding, exports):
                self._doom(Stray(holding, Why.EXPORT, identifier))
            elif identifier in exports:
                continue
            elif identifier not in known:
                self.report.unknown.add(holding.key)

    async def _foreign(self, folder: str) -> None:
        async for holding in self._vault.objects.walk(folder):
            self.report.unknown.add(holding.key)

    async def _unfinished(self) -> None:
        """Find uploads in parts that nobody can be sending any more; the archive makes none."""
        longest = timedelta(seconds=SKEW + attempts.patience(self._vault.limits.max_bytes))
        before = await self._vault.objects.clock() - longest - attempts.GRACE
        async for holding in self._vault.objects.unfinished():
            parts = strays.parse(holding.key)
            recording = parts[1] if parts else None
            ours = _day(holding.key.split("/", 1)[0] + "/")
            if ours and await self._is_over(holding, recording, before):
                self._doom(Stray(holding, Why.UNFINISHED, recording))

    async def _is_over(self, holding: Holding, recording: UUID | None, before: datetime) -> bool:
        if holding.at is not None:
            return holding.at < before
        async with connection(self._vault.pool) as lent:
            return not await lent.fetchval(
                "SELECT EXISTS (SELECT FROM recording WHERE id = $1 AND state = 'receiving')",
                recording,
            )


def _day(folder: str) -> date | None:
    try:
        day = date.fromisoformat(folder.removesuffix("/"))
    except ValueError:
        return None
    return day if f"{day.isoformat()}/" == folder else None


async def _closed(vault: Vault) -> set[date]:
    """The days whose key is gone, by the ring's word, or by the database's and not in the ring."""
    async with connection(vault.pool) as lent:
        rows = await lent.fetch("SELECT expires_on FROM day WHERE closed_at IS NOT NULL")
    told = {row["expires_on"] for row in rows}
    return (told | vault.ring.destroyed().keys()) - set(vault.ring.days())


async def _stored_days(vault: Vault) -> list[date]:
    async with connection(vault.pool) as lent:
        rows = await lent.fetch("SELECT DISTINCT expires_on FROM recording WHERE state = 'stored'")
    return [row["expires_on"] for row in rows]


async def _is_whole(vault: Vault, row: Row) -> bool:
    """Look at one object: can its last byte be had, and is it of the right length?"""
    try:
        async with vault.objects.get(row.key, row.length - 1, row.length) as pieces:
            async for _ in pieces:
                pass
    except MissingObjectError:
        return False
    shown = [one async for one in vault.objects.walk(row.key) if one.key == row.key and one.latest]
    return all(one.size in (row.length, -1) for one in shown if one.kind != "marker")


async def _is_stored(vault: Vault, row: Row) -> bool:
    async with connection(vault.pool) as lent:
        return bool(
            await lent.fetchval(
                "SELECT EXISTS (SELECT FROM recording WHERE id = $1 AND state = 'stored'"
                " AND expires_at > archive_now() AND $2 IN (attempt::text, redacted::text))",
                row.id,
                row.key.rsplit("/", 1)[1],
            )
        )
