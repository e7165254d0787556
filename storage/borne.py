"""Whether the ledger bears a recording out: it may be erased only when it says so itself.

The ledger was told, when a recording was stored, when and by which rule it is due. A row that says
anything else now was moved, by a bug or by somebody, and a row that the ledger does not know was
never stored by the archive: neither is erased, and both stop the erasing. Whoever releases the fuse
lets those go that stand there at that moment, one by one, each with an entry of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from storage.database import Connection

SHOWN = 3
"""How many ids a message has."""

_DAY = "to_char(r.expires_on, 'YYYY-MM-DD')"
_INSTANT = """to_char(r.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

BORNE_OUT = (
    "(SELECT coalesce(bool_or(same) FILTER (WHERE act = 'fuse.let_go'), false)"  # noqa: S608
    " OR coalesce(bool_and(same) FILTER (WHERE act <> 'fuse.let_go'), false) FROM (SELECT act,"
    f" coalesce(facts->>'day' = {_DAY} AND facts->>'due' = {_INSTANT}"
    " AND facts->>'rule' = r.rule, false) AS same FROM told"
    " WHERE recording = r.id AND act IN ('stored', 'rebuilt', 'fuse.let_go')) entry)"
)
"""The condition in SQL, on a recording `r`: every entry that tells of its storing says the same of
its day, its instant and its rule as the row; or people let it go as it stands.
"""

_DUE = (
    "r.state IN ('stored', 'erasing') AND r.expires_at <= (SELECT archive_now())"
    " AND (r.state = 'stored' OR r.lease_until < (SELECT archive_now()))"
)

_STOPPED = (
    f"stopped AS MATERIALIZED (SELECT id, {_DAY} AS day, {_INSTANT} AS due, rule FROM recording r"  # noqa: S608
    f" WHERE {_DUE} AND ($1::date IS NULL OR r.expires_on <= $1) AND NOT {BORNE_OUT})"
)

_COUNTED = (
    "count(*) AS count, encode(sha256(convert_to(coalesce(string_agg("
    "concat_ws(' ', id, day, due, rule), ', ' ORDER BY id), ''), 'UTF8')), 'hex') AS digest"
)


@dataclass(frozen=True, slots=True)
class Next:
    """What is to be erased next: its expiry days, and what of it the ledger does not bear out."""

    days: Sequence[date] = ()
    unborne: int = 0
    some: Sequence[UUID] = field(default=())

    @property
    def fault(self) -> str:
        """What is wrong with it, or nothing."""
        if not self.unborne:
            return ""
        ids = ", ".join(str(each) for each in self.some)
        more = ", …" if self.unborne > len(self.some) else ""
        return (
            f"the ledger does not bear out {self.unborne} of the recordings that are due next"
            f" ({ids}{more}): their rows were moved, or never stored by the archive"
        )


async def look(lent: Connection, limit: int) -> Next:
    """Look at those that a claim of this size would take, and at those it would leave out."""
    rows = await lent.fetch(
        "WITH due AS MATERIALIZED (SELECT id, expires_on, expires_at, rule FROM recording r"  # noqa: S608
        f" WHERE {_DUE} ORDER BY expires_at LIMIT $1),"
        f" seen AS MATERIALIZED (SELECT expires_on, id, {BORNE_OUT} AS borne FROM due r)"
        " SELECT expires_on, count(*) FILTER (WHERE NOT borne) AS unborne,"
        " (array_agg(id ORDER BY id) FILTER (WHERE NOT borne))[:$2] AS some"
        " FROM seen GROUP BY expires_on ORDER BY expires_on",
        limit,
        SHOWN,
    )
    some = [each for row in rows for each in row["some"] or ()]
    unborne = sum(row["unborne"] for row in rows)
    return Next([row["expires_on"] for row in rows], unborne, some[:SHOWN])


async def stopped(lent: Connection, through: date | None) -> tuple[int, str]:
    """What a release through this day would let go (None: of any): how many, and their digest."""
    row = await lent.fetchrow(f"WITH {_STOPPED} SELECT {_COUNTED} FROM stopped", through)  # noqa: S608
    return (row["count"], row["digest"]) if row else (0, "")


async def let_go(lent: Connection, through: date | None, digest: str, actor: str) -> int:
    """Write down that each of those may be erased as its row stands now; nothing if the digest is
    another by now. Returns how many.
    """
    rows = await lent.fetch(
        f"WITH {_STOPPED} INSERT INTO ledger_waiting (actor, act, recording, facts)"  # noqa: S608
        " SELECT $3, 'fuse.let_go', id, jsonb_build_object('day', day, 'due', due, 'rule', rule)"
        f" FROM stopped WHERE (SELECT digest FROM (SELECT {_COUNTED} FROM stopped) s) = $2"
        " RETURNING number",
        through,
        digest,
        actor,
    )
    return len(rows)
