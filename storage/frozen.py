"""Freezing what will be due on each coming day, and comparing with it (`archive.frozen`).

What is frozen is what the ledger has a place for, up to a position; so what came since is exactly
what it tells from there on. Rows and ledger are looked at in one snapshot. Tombstones count: they
keep their id and their day.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from archive import frozen
from archive.frozen import Line, Tally
from storage import clocks, ledger, tree
from storage.database import Connection, connection
from storage.vault import Vault

KNOWN = timedelta(days=1)
"""How long ago what is due must have been frozen for the cap not to count it."""

SPAN = 30
"""How many days before say what is usual."""

_EVER = date.max


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look: what was frozen, what is there, and what is wrong; `upto` is where it ends."""

    found: Mapping[date, Tally]
    upto: int
    why: str


async def freeze(vault: Vault) -> None:
    """Compare every day whose key is alive with what was frozen of it, and freeze it as it is now.

    A difference holds the erasing; it is told once, since what is frozen now is what is there.
    """
    first = vault.ring.days()[-1]
    async with connection(vault.pool) as lent:
        seen = await _look(lent, first, _EVER)
        lines = {day: tally.now for day, tally in seen.found.items() if tally.now.count}
        async with lent.transaction():
            await _keep(lent, lines)
            facts = {
                "night": vault.policy.day_of((await clocks.read(lent)).database).isoformat(),
                "upto": seen.upto,
                "days": len(lines),
                "recordings": sum(line.count for line in lines.values()),
                "root": frozen.root_over(lines).hex(),
            }
            await ledger.record(lent, ledger.SYSTEM, "days.frozen", facts=facts)
            if seen.why:
                await clocks.hold(lent, seen.why)


async def compare(vault: Vault, days: Sequence[date]) -> bool:
    """Compare each day before its first erasure, once; and see that no more falls due on it than is
    usual. False: that holds the erasing from now on, whatever is frozen and known tomorrow.
    """
    well = True
    async with connection(vault.pool) as lent:
        for day in await _surging(lent, days):
            why = f"on {day.isoformat()} more falls due than was known a day before and is usual"
            async with lent.transaction():
                well &= not await clocks.hold(lent, why)
        rows = await lent.fetch(
            "SELECT expires_on FROM day WHERE expires_on = ANY($1) AND compared_at IS NOT NULL",
            list(days),
        )
        for day in sorted({*days} - {row["expires_on"] for row in rows}):
            seen = await _look(lent, day, day)
            async with lent.transaction():
                if seen.why:
                    well = False
                    await clocks.hold(lent, seen.why)
                await lent.execute(
                    "INSERT INTO day (expires_on, compared_at) VALUES ($1, archive_now())"
                    " ON CONFLICT (expires_on) DO UPDATE SET compared_at = archive_now()",
                    day,
                )
    return well


async def surge(lent: Connection, days: Iterable[date]) -> list[str]:
    """In words, on which of these days more falls due than was known a day ago and is usual."""
    return [
        f"{count} recordings that were not known a day ago fall due on {day.isoformat()},"
        f" more than {most}"
        for day, (count, most) in (await _surging(lent, days)).items()
    ]


async def _surging(lent: Connection, days: Iterable[date]) -> dict[date, tuple[int, int]]:
    """The days on which more falls due than is usual: how many, and how many may.

    What people let go on when they released a day is known to them.
    """
    since: int = (
        await lent.fetchval(
            "SELECT (facts->>'upto')::bigint FROM ledger WHERE act = 'days.frozen'"
            " AND at <= (SELECT archive_now()) - $1::interval ORDER BY position DESC LIMIT 1",
            KNOWN,
        )
        or 0
    )
    last = await lent.fetchrow(
        "SELECT facts->>'through' AS through, position FROM told WHERE act = 'fuse.released'"
        " AND facts ? 'through' ORDER BY position DESC, at DESC LIMIT 1"
    )
    found: dict[date, tuple[int, int]] = {}
    for day in sorted({*days}):
        released = last["position"] if last and day.isoformat() <= last["through"] else 0
        stored = await _stored(lent, max(since, released), [day])
        count = stored.get(day, 0)
        if count > frozen.FEW and count > (most := frozen.cap(await _before(lent, day))):
            found[day] = count, most
    return found


async def _look(lent: Connection, first: date, last: date) -> _Seen:
    async with lent.transaction(isolation="repeatable_read", readonly=True):
        row = await lent.fetchrow(
            "SELECT (facts->>'upto')::bigint AS upto, facts->>'root' AS root FROM told"
            " WHERE act = 'days.frozen' ORDER BY position DESC, at DESC LIMIT 1"
        )
        since, root = (row["upto"], row["root"]) if row else (0, frozen.root_over({}).hex())
        upto = await tree.size(lent)
        rows = await lent.fetch("SELECT expires_on, count, root FROM frozen")
        lines = {row["expires_on"]: Line(row["count"], row["root"]) for row in rows}
        days = None if last == _EVER else [first]
        stored = await _stored(lent, since, days)
        found = await _tallies(lent, first, last, since, upto)
    if frozen.root_over(lines).hex() != root:
        return _Seen(found, upto, "what was frozen in the database is not what the ledger tells")

    def within(day: date) -> bool:
        return first <= day <= last

    why = frozen.differences(
        {day: line for day, line in lines.items() if within(day)},
        found,
        {day: count for day, count in stored.items() if within(day)},
    )
    return _Seen(found, upto, why)


async def _stored(
    lent: Connection, since: int, days: Iterable[date] | None = None
) -> dict[date, int]:
    """How many recordings the ledger shows stored from a position on, by the day they are due."""
    rows = await lent.fetch(
        "SELECT facts->>'day' AS day, count(DISTINCT recording) AS count FROM told"
        " WHERE act IN ('stored', 'rebuilt') AND position >= $1"
        " AND ($2::text[] IS NULL OR facts->>'day' = ANY($2)) GROUP BY 1",
        since,
        None if days is None else [day.isoformat() for day in days],
    )
    # Who adds entries can name a day that is none: that is no recording of any day.
    named = {ledger.day(row["day"]): row["count"] for row in rows}
    return {day: count for day, count in named.items() if day}


async def _tallies(
    lent: Connection, first: date, last: date, since: int, upto: int
) -> dict[date, Tally]:
    """What will be due on each day of a span, or was and is erased, in the order of the ids."""
    found: dict[date, Tally] = {}
    async for row in lent.cursor(
        "SELECT r.expires_on, r.id::text AS id, s.position FROM recording r"
        " LEFT JOIN (SELECT recording, facts->>'day' AS day, max(position) AS position FROM told"
        " WHERE act IN ('stored', 'rebuilt') AND position >= $3 GROUP BY 1, 2) s"
        " ON s.recording = r.id AND s.day = to_char(r.expires_on, 'YYYY-MM-DD')"
        " WHERE r.state IN ('stored', 'erasing', 'erased') AND r.expires_on BETWEEN $1 AND $2"
        " ORDER BY r.expires_on, r.id",
        first,
        last,
        since,
        prefetch=5000,
    ):
        position = row["position"]
        found.setdefault(row["expires_on"], Tally()).add(
            row["id"], then=position is None, now=position is None or position < upto
        )
    return found


async def _before(lent: Connection, day: date) -> list[int]:
    """How many were due on each of the days before."""
    rows = await lent.fetch(
        "SELECT count(r.id) AS count FROM generate_series(1, $2) AS back LEFT JOIN recording r"
        " ON r.expires_on = $1::date - back AND r.state IN ('stored', 'erasing', 'erased')"
        " GROUP BY back",
        day,
        SPAN,
    )
    return [row["count"] for row in rows]


async def _keep(lent: Connection, lines: Mapping[date, Line]) -> None:
    # Another service may have its night at the same time.
    await lent.execute("LOCK TABLE frozen IN EXCLUSIVE MODE")
    await lent.execute("DELETE FROM frozen")
    await lent.executemany(
        "INSERT INTO frozen (expires_on, count, root) VALUES ($1, $2, $3)",
        [(day, line.count, line.root) for day, line in lines.items()],
    )
