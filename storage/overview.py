"""What the operator and the auditor look at: what is overdue, what was erased, what is coming."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import asyncpg

from archive.lifecycle import State
from archive.retention import Policy
from storage.database import Connection
from storage.early import GRANTED


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


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the archive is behind each of its promises, by the database's clock.

    All but counts are seconds, and 0 when nothing is behind. `night`: since the last night's work
    that came to its end began; as long as there was none, since the ledger began. `unsigned`: how
    long the first entry of the ledger has waited that no signed checkpoint covers. `stopped`:
    listeners whose budget stopped them within the last hour. `glass`: readers who know of more than
    they may, or did within the last hour. `held`: whether people have to release the erasing.
    `lost` recordings and `unknown` objects are those of the last comparison, `wrong` and `missing`
    bundles of the ledger those of the last night. `unfetched`: recordings that were told of over an
    hour ago, or refused, and are not done. `landing`: since the landing bucket was looked at whole
    that was so longest ago, `landed`: since the oldest object lies in one, `unlanded`: those that
    were refused there. `granted`: recordings that two people let go over an hour ago, that are not
    due and not erased. `clock_behind`: how far the database's clock is behind where it was seen.
    """

    overdue: int
    overdue_for: float
    day_open: float
    night: float
    unverified: float
    verified: float
    damaged: int
    unsigned: float
    entries: int
    stopped: int = 0
    glass: int = 0
    held: int = 0
    lost: int = 0
    unknown: int = 0
    wrong: int = 0
    missing: int = 0
    unfetched: int = 0
    landing: float = 0
    landed: float = 0
    unlanded: int = 0
    granted: int = 0
    clock_behind: float = 0


async def standing(lent: Connection, day_end: datetime | None, signed: int | None) -> Standing:
    """Look at every promise at once; each look finds its row by an index.

    `day_end` is when the oldest day ends whose key is alive, `signed` how many entries of the
    ledger the last checkpoint covers, None if that is not known.
    """
    row = await lent.fetchrow(
        "SELECT archive_now() AS now,"  # noqa: S608 - our own words
        " (SELECT count(*) FROM recording WHERE state IN ('stored', 'erasing')"
        " AND expires_at <= (SELECT archive_now())) AS overdue,"
        " (SELECT min(expires_at) FROM recording WHERE state IN ('stored', 'erasing')) AS due,"
        # A night that a clock ran which was ahead says nothing of the nights that follow.
        " coalesce((SELECT max(ran_at) FROM night WHERE ran_at <= (SELECT archive_now())),"
        " (SELECT at FROM ledger WHERE position = 0))"
        " AS night,"
        " (SELECT min(received_at) FROM recording WHERE state = 'stored' AND verified_at IS NULL"
        " AND damaged_at IS NULL) AS unverified,"
        " (SELECT min(verified_at) FROM recording WHERE state = 'stored' AND damaged_at IS NULL)"
        " AS verified,"
        " (SELECT count(*) FROM recording WHERE state = 'stored' AND damaged_at IS NOT NULL)"
        " AS damaged,"
        " coalesce((SELECT at FROM ledger WHERE position = $1),"
        " (SELECT at FROM ledger_waiting ORDER BY number LIMIT 1)) AS unsigned,"
        " (SELECT count(*) FROM listener WHERE stopped_at > archive_now() - interval '1 hour')"
        " AS stopped,"
        " (SELECT count(*) FROM glass WHERE until > archive_now() - interval '1 hour') AS glass,"
        " (SELECT count(*) FROM notice WHERE state <> 'done' AND expires_at > archive_now()"
        " AND (state = 'refused' OR asked_at <= archive_now() - interval '1 hour')) AS unfetched,"
        " size AS entries, (SELECT (hold IS NOT NULL)::int FROM archive) AS held,"
        " (SELECT clock_mark FROM archive) AS mark,"
        " (SELECT min(looked_at) FROM landing) AS looked,"
        " (SELECT min(oldest) FROM landing) AS landed,"
        " (SELECT coalesce(sum(refused), 0)::bigint FROM landing) AS unlanded,"
        " (SELECT count(*) FROM recording WHERE state IN ('stored', 'erasing')"
        f" AND expires_at > archive_now() AND id = ANY (ARRAY({GRANTED}"
        " AND at <= archive_now() - interval '1 hour'))) AS granted,"
        " reconciled.facts AS reconciled, last.reread FROM ledger_head"
        " LEFT JOIN LATERAL (SELECT facts FROM ledger WHERE act = 'reconciled'"
        " AND facts->>'day' IS NULL AND facts->>'night' IS NULL"
        " ORDER BY position DESC LIMIT 1) reconciled ON true"
        " LEFT JOIN LATERAL (SELECT report->'reread' AS reread FROM night"
        " WHERE ran_at <= (SELECT archive_now()) ORDER BY ran_at DESC LIMIT 1) last ON true",
        signed,
    )
    if row is None:
        raise RuntimeError("the table `ledger_head` has lost its row")
    return _standing(row, day_end)


def _standing(row: asyncpg.Record, day_end: datetime | None) -> Standing:
    def age(moment: datetime | None) -> float:
        return max((row["now"] - moment).total_seconds(), 0.0) if moment else 0.0

    return Standing(
        row["overdue"],
        age(row["due"]),
        age(day_end),
        age(row["night"]),
        age(row["unverified"]),
        age(row["verified"]),
        row["damaged"],
        age(row["unsigned"]),
        row["entries"],
        row["stopped"],
        row["glass"],
        row["held"],
        (row["reconciled"] or {}).get("lost", 0),
        (row["reconciled"] or {}).get("unknown", 0),
        (row["reread"] or {}).get("wrong", 0),
        (row["reread"] or {}).get("missing", 0),
        row["unfetched"],
        age(row["looked"]),
        age(row["landed"]),
        row["unlanded"],
        row["granted"],
        max((row["mark"] - row["now"]).total_seconds(), 0.0) if row["mark"] else 0.0,
    )


def end_of(day: date, policy: Policy) -> datetime:
    """The instant at which a day is over, in the archive's time zone."""
    return datetime.combine(day + timedelta(days=1), time.min, policy.zone)


async def overdue(lent: Connection) -> Overdue:
    """What should be gone by the database's clock and is not."""
    row = await lent.fetchrow(
        "SELECT count(*) AS count, min(expires_at) AS oldest FROM recording"
        " WHERE state IN ('stored', 'erasing') AND expires_at <= (SELECT archive_now())"
    )
    return Overdue(row["count"], row["oldest"]) if row else Overdue(0, None)


async def states(lent: Connection) -> dict[State, int]:
    """How many recordings are in each state."""
    rows = await lent.fetch("SELECT state, count(*) AS count FROM recording GROUP BY state")
    return dict.fromkeys(State, 0) | {State(row["state"]): row["count"] for row in rows}


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


async def coming(lent: Connection, first: date, last: date) -> dict[date, dict[str, int]]:
    """How many recordings fall due on each day of a span, by call type."""
    rows = await lent.fetch(
        "SELECT expires_on, call_type, count(*) AS count FROM recording"
        " WHERE state IN ('stored', 'erasing') AND expires_on BETWEEN $1 AND $2"
        " GROUP BY expires_on, call_type ORDER BY expires_on, call_type",
        first,
        last,
    )
    found: dict[date, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["expires_on"], {})[row["call_type"]] = row["count"]
    return found
