"""The reports of the nightly job, kept so that a missed night is seen and made up.

What was due since the night before, what of it is erased and what is not, goes into the ledger: the
counts, and a root over all of it, so that who has the ledger sees that nothing due was left out.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from archive.nights import NAMED, root_over
from storage import tree
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class Account:
    """What fell due: the entries of the ledger from `since` to before `upto` tell of the erased.

    `failed` are due and not erased. `root` is over both (`archive.nights`).
    """

    since: int
    upto: int
    erased: int
    failed: list[UUID]
    root: bytes

    def facts(self, night: date) -> dict[str, object]:
        """As the ledger tells it."""
        return {
            "night": night.isoformat(),
            "since": self.since,
            "upto": self.upto,
            "due": self.erased + len(self.failed),
            "erased": self.erased,
            "failed": len(self.failed),
            "failed_ids": [str(each) for each in self.failed[:NAMED]],
            "root": self.root.hex(),
        }


async def record(lent: Connection, ran_at: datetime, report: Mapping[str, object]) -> None:
    """Keep the report of one run."""
    await lent.execute(
        # Two services may read the same microsecond; both reports tell of the same night.
        "INSERT INTO night (ran_at, report) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        ran_at,
        dict(report),
    )


async def last(lent: Connection) -> datetime | None:
    """When the nightly job last ran to its end, by the database's clock.

    Not one that ran while that clock was ahead: until it is there again no night would be missed.
    """
    found: datetime | None = await lent.fetchval(
        "SELECT max(ran_at) FROM night WHERE ran_at <= archive_now()"
    )
    return found


async def reread_upto(lent: Connection) -> int:
    """From which entry on the ledger is to be read again (`storage.upkeep.reread`)."""
    found: int | None = await lent.fetchval(
        "SELECT (report->'reread'->>'then')::bigint FROM night WHERE ran_at <= archive_now()"
        " ORDER BY ran_at DESC LIMIT 1"
    )
    return found or 0


async def account(lent: Connection) -> Account:
    """What fell due since the last night's account. Everything that waits has its place before.

    One at a time, until the caller's transaction ends: two services have their nights at the same
    hour, and each account begins where the one before ended.
    """
    await lent.execute("SELECT FROM archive FOR UPDATE")
    since = await lent.fetchval(
        "SELECT max((facts->>'upto')::bigint) FROM told WHERE act = 'night.done'"
    )
    upto = await tree.size(lent)
    erased = await lent.fetch(
        "SELECT recording FROM ledger WHERE position >= $1 AND position < $2 AND act = 'erased'",
        since or 0,
        upto,
    )
    failed = await lent.fetch(
        "SELECT id FROM recording WHERE state IN ('stored', 'erasing')"
        " AND expires_at <= (SELECT archive_now()) ORDER BY id"
    )
    gone, left = [row["recording"] for row in erased], [row["id"] for row in failed]
    # A million ids take seconds, in which the doors are to answer.
    root = await asyncio.to_thread(root_over, gone, left)
    return Account(since or 0, upto, len(gone), left, root)


async def latest(lent: Connection, count: int) -> list[tuple[datetime, Mapping[str, Any]]]:
    """The last reports, newest first, each with when it began; none of a clock that was ahead."""
    rows = await lent.fetch(
        "SELECT ran_at, report FROM night WHERE ran_at <= (SELECT archive_now())"
        " ORDER BY ran_at DESC LIMIT $1",
        count,
    )
    return [(row["ran_at"], row["report"]) for row in rows]
