"""What the operator and the auditor look at: what is overdue, what was erased, what is coming."""

from dataclasses import dataclass
from datetime import date, datetime

from storage.database import Connection


@dataclass(frozen=True, slots=True)
class Overdue:
    """Recordings past their instant and not erased; `oldest` is None when there are none."""

    count: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Day:
    """One expiry day: still to be erased, erased, failing (claimed, past its time), and its
    closing.
    """

    day: date
    due: int
    erased: int
    failed: int
    closed_at: datetime | None


async def overdue(lent: Connection) -> Overdue:
    """What should be gone by the database's clock and is not."""
    row = await lent.fetchrow(
        "SELECT count(*) AS count, min(expires_at) AS oldest FROM recording"
        " WHERE state IN ('stored', 'erasing') AND expires_at <= (SELECT archive_now())"
    )
    return Overdue(row["count"], row["oldest"]) if row else Overdue(0, None)


async def states(lent: Connection) -> dict[str, int]:
    """How many recordings are in each state."""
    rows = await lent.fetch("SELECT state, count(*) AS count FROM recording GROUP BY state")
    return {row["state"]: row["count"] for row in rows}


async def days(lent: Connection, first: date, last: date) -> list[Day]:
    """The expiry days of a span that hold or held anything, oldest first."""
    rows = await lent.fetch(
        "WITH open AS (SELECT expires_on, count(*) FILTER (WHERE state IN ('stored', 'erasing')) AS"
        " due, count(*) FILTER (WHERE state = 'erasing' AND lease_until < archive_now()) AS failed"
        " FROM recording WHERE expires_on BETWEEN $1 AND $2 GROUP BY expires_on)"
        " SELECT coalesce(open.expires_on, day.expires_on) AS day, coalesce(due, 0) AS due,"
        " coalesce(erased, 0) AS erased, coalesce(failed, 0) AS failed, closed_at"
        " FROM open FULL JOIN day ON day.expires_on = open.expires_on"
        " WHERE coalesce(open.expires_on, day.expires_on) BETWEEN $1 AND $2 ORDER BY 1",
        first,
        last,
    )
    return [Day(**dict(row)) for row in rows if row["due"] or row["erased"] or row["failed"]]
