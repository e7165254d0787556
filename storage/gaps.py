"""Which answered calls have no recording: the records of calls, counted by source and hour."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from storage.database import Connection


@dataclass(frozen=True, slots=True)
class Hour:
    """The answered calls of a source that began in one hour. `missing` have no recording though it
    should be there by now; `awaited` may still get theirs.
    """

    source: str
    hour: datetime
    answered: int
    missing: int
    awaited: int


async def by_hour(
    lent: Connection, since: datetime, before: datetime, source: str | None, within: timedelta
) -> list[Hour]:
    """Every hour of a span in which a call was answered, oldest first.

    `within`: how soon after its end a call's recording ought to be there.
    """
    rows = await lent.fetch(
        "SELECT source, date_trunc('hour', started_at, 'UTC') AS hour, count(*) AS answered,"
        " count(*) FILTER (WHERE recording IS NULL AND ended_at + $4 <= now) AS missing,"
        " count(*) FILTER (WHERE recording IS NULL AND ended_at + $4 > now) AS awaited"
        " FROM cdr, (SELECT archive_now() AS now) AS clock"
        " WHERE started_at >= $1 AND started_at < $2 AND expires_at > now"
        " AND ($3::text IS NULL OR source = $3) GROUP BY 1, 2 ORDER BY 2, 1",
        since,
        before,
        source,
        within,
    )
    return [Hour(**dict(row)) for row in rows]


async def missing(lent: Connection, within: timedelta) -> dict[str, int]:
    """For each source that ever sent records: answered calls of a week without a recording."""
    rows = await lent.fetch(
        "SELECT source,"
        " count(*) FILTER (WHERE recording IS NULL AND ended_at + $1 <= now) AS missing"
        " FROM cdr, (SELECT archive_now() AS now) AS clock"
        " WHERE started_at >= now - interval '7 days' AND expires_at > now GROUP BY source",
        within,
    )
    return {row["source"]: row["missing"] for row in rows}
