"""Erasing recordings, and collecting what unfinished uploads left behind.

The way of an expiry, and what holds after each step:

1. **claim**: what is due becomes `erasing`, for one worker and for a time. *No reader is let in;
   reads were barred already from the instant of expiry.*
2. **decide** again, in the subject's own words, on the full facts. *Nothing is erased early.*
3. **remove**: the exports that hold it, then every object, version, delete marker and unfinished
   upload under the recording's prefix. *Each refusal is seen.*
4. **read back**: list again. Three answers: gone, still there, could not ask. *At this moment the
   store shows no copy.*
5. **finish**: the details, the keys and the terms go, the tombstone and the ledger's entry come,
   in one transaction. *Exactly one entry tells of each erasure.*

The store's word is an observation and not a proof; what makes every other copy noise is the end of
the expiry day's key (`storage.days`).
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from uuid import UUID

import asyncpg

from archive import retention
from archive.errors import UnavailableError
from archive.retention import Expiry
from storage import export_erasing, holdings, ledger, steps
from storage.borne import BORNE_OUT
from storage.database import Connection, connection
from storage.objects import Holding
from storage.recordings import object_key, prefix
from storage.vault import Vault

LEASE = timedelta(minutes=10)
"""How long a claimed batch is left to the worker who claimed it."""

BATCH = 5000
"""Recordings that are claimed at once, at the most."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A recording that this worker may erase, until its lease ends; every write names the epoch."""

    id: UUID
    attempt: UUID
    expires_on: date
    expires_at: datetime
    rule: str
    epoch: int
    redacted: UUID | None = None

    @property
    def prefix(self) -> str:
        """What the names of all its objects begin with."""
        return prefix(self.expires_on, self.id)


@dataclass(slots=True)
class Outcome:
    """What became of a batch: erased, still there, and could not be asked after."""

    erased: list[Claim] = field(default_factory=list)
    still_there: list[Claim] = field(default_factory=list)
    unknown: list[Claim] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many are not erased and will be claimed again."""
        return len(self.still_there) + len(self.unknown)


@dataclass(frozen=True, slots=True)
class Due:
    """A recording that is due, or will be, and the reason in words."""

    id: UUID
    call_type: str
    expires_at: datetime
    why: str


async def any_due(vault: Vault) -> bool:
    """Whether there is anything that may be claimed now."""
    async with connection(vault.pool) as lent:
        return bool(
            await lent.fetchval(
                # The first in the order of the index, and one comparison: a look at nothing else.
                "SELECT expires_at <= (SELECT archive_now()) FROM recording"
                " WHERE state IN ('stored', 'erasing')"
                " AND (state = 'stored' OR lease_until < (SELECT archive_now()))"
                " ORDER BY expires_at LIMIT 1"
            )
        )


async def due(vault: Vault, at: datetime) -> list[Due]:
    """What is or will be due at an instant, oldest first: a look ahead that changes nothing."""
    async with connection(vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT id, call_type, expires_at, rule FROM recording"
            " WHERE state IN ('stored', 'erasing') AND expires_at <= $1 ORDER BY expires_at",
            at,
        )
    found = []
    for row in rows:
        expires_at = vault.policy.local(row["expires_at"])
        why = retention.decide(expires_at, row["rule"], at).why
        found.append(Due(row["id"], row["call_type"], expires_at, why))
    return found


async def claim(vault: Vault, through: date | None = None, limit: int = BATCH) -> list[Claim]:
    """Claim what is due by the database's clock and borne out by the ledger.

    `through`: no later expiry day than this. It is looked through a page at a time: a million rows
    in front that the ledger does not bear out would take longer than a statement may.
    """
    claims: list[Claim] = []
    async with connection(vault.pool) as lent:
        after = _FIRST
        while len(claims) < limit:
            page = await _page(lent, through, after)
            ids = [row["id"] for row in page]
            claims += await _claimed(lent, ids, limit - len(claims)) if ids else []
            if len(page) < BATCH:
                break
            after = page[-1]["expires_at"], page[-1]["id"]
    if claims:
        steps.reached("claimed")
    return sorted(claims, key=lambda claim: claim.prefix)


_FIRST = datetime(1, 1, 2, tzinfo=UTC), UUID(int=0)

_DUE = (
    "expires_at <= (SELECT archive_now()) AND state IN ('stored', 'erasing')"
    " AND (state = 'stored' OR lease_until < (SELECT archive_now()))"
    " AND (redacting_until IS NULL OR redacting_until <= (SELECT archive_now()))"
)


async def _page(
    lent: Connection, through: date | None, after: tuple[datetime, UUID]
) -> list[asyncpg.Record]:
    """What is due next, oldest first, behind one that was looked at."""
    # The clock is read once, ahead of the rows, so that they are found by their index.
    return await lent.fetch(
        f"SELECT id, expires_at FROM recording WHERE {_DUE}"  # noqa: S608 - our own words
        " AND ($1::date IS NULL OR expires_on <= $1)"
        " AND (expires_at, id) > ($2, $3) ORDER BY expires_at, id LIMIT $4",
        through,
        *after,
        BATCH,
    )


async def _claimed(lent: Connection, ids: Sequence[UUID], limit: int) -> list[Claim]:
    rows = await lent.fetch(
        f"WITH due AS (SELECT id FROM recording r WHERE id = ANY($1) AND {_DUE}"  # noqa: S608
        f" AND {BORNE_OUT} ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
        " UPDATE recording r SET state = 'erasing', epoch = epoch + 1,"
        " lease_until = archive_now() + $3, call_hash = NULL FROM due WHERE r.id = due.id"
        " RETURNING r.id, r.attempt, r.expires_on, r.expires_at, r.rule, r.epoch, r.redacted,"
        " archive_now() AS now",
        ids,
        limit,
        LEASE,
    )
    claims = []
    for row in rows:
        decision = retention.decide(row["expires_at"], row["rule"], row["now"])
        if not decision.due:
            raise AssertionError(f"claimed a recording that is not due: {decision.why}")
        facts = {name: row[name] for name in Claim.__dataclass_fields__}
        claims.append(Claim(**facts))
    return claims


async def erase(vault: Vault, claims: Sequence[Claim], turn: asyncio.Lock | None = None) -> Outcome:
    """Erase what was claimed: steps 3 to 5. What the store keeps stays claimed for a while.

    `turn` is shared by batches that are erased at once: an export goes by one of them, and may hold
    what is in another.
    """
    outcome = Outcome()
    for _, group in groupby(claims, key=lambda claim: claim.expires_on):
        day = list(group)
        try:
            await _erase_day(vault, day, outcome, turn or asyncio.Lock())
        except UnavailableError:
            outcome.unknown += day
            await _let_go(vault, day)
    return outcome


async def _erase_day(
    vault: Vault, claims: list[Claim], outcome: Outcome, turn: asyncio.Lock
) -> None:
    keys = [
        object_key(claim.expires_on, claim.id, attempt)
        for claim in claims
        for attempt in (claim.attempt, claim.redacted)
        if attempt
    ]
    async with turn:
        exported = await export_erasing.without(vault, [claim.id for claim in claims])
    left = await emptied(vault, [claim.prefix for claim in claims], keys)
    steps.reached("absent")
    kept = [claim for claim in claims if claim.prefix in left or claim.id in exported]
    gone = [claim for claim in claims if claim.prefix not in left and claim.id not in exported]
    async with connection(vault.pool) as lent, lent.transaction():
        erased = await _finish(lent, gone, versions=vault.objects.versions)
    steps.reached("erased")
    outcome.erased += erased
    outcome.still_there += kept
    await _let_go(vault, [claim for claim in kept if claim.id in exported])


async def _let_go(vault: Vault, claims: Sequence[Claim]) -> None:
    """End the lease of what store or database could not be asked about, or an export holds that is
    still being made: it is to be tried again soon.
    """
    with suppress(UnavailableError):
        async with connection(vault.pool) as lent:
            await lent.execute(
                "UPDATE recording r SET lease_until = archive_now()"
                " FROM unnest($1::uuid[], $2::integer[]) AS c(id, epoch)"
                " WHERE r.id = c.id AND r.epoch = c.epoch AND r.state = 'erasing'",
                [claim.id for claim in claims],
                [claim.epoch for claim in claims],
            )


async def emptied(vault: Vault, prefixes: Sequence[str], keys: Sequence[str] = ()) -> set[str]:
    """Remove all that the store holds under these prefixes, which are sorted and of one day.

    Returns those under which it shows something all the same. `keys` are the objects that are known
    of. Raises UnavailableError when the store cannot be asked.
    """
    if keys and not vault.objects.versions:
        # What the rows name goes without a look; the look afterwards is the read-back, and finds
        # whatever else is there.
        await vault.objects.remove([Holding(key, "object") for key in keys])
        steps.reached("removed")
    left = await _under(vault, prefixes)
    if left:
        await vault.objects.remove(left)
        steps.reached("removed")
        left = await _under(vault, prefixes)
    return {_owner(holding) for holding in left}


async def _under(vault: Vault, prefixes: Sequence[str]) -> list[Holding]:
    wanted = set(prefixes)
    found = await vault.objects.holdings(*_span(prefixes))
    return [holding for holding in found if _owner(holding) in wanted]


def _span(prefixes: Sequence[str]) -> tuple[str, str, str]:
    """The day's prefix, and the range of keys that these prefixes of one day lie in."""
    day = prefixes[0].split("/", 1)[0] + "/"
    return day, prefixes[0], prefixes[-1]


def _owner(holding: Holding) -> str:
    """The prefix of the recording that a key belongs to."""
    return holding.key.rsplit("/", 1)[0] + "/"


async def _finish(lent: Connection, claims: Sequence[Claim], *, versions: bool) -> list[Claim]:
    """Make tombstones of what the store was seen to hold no more; a stolen claim is left alone."""
    if not claims:
        return []
    day = claims[0].expires_on
    rows = await lent.fetch(
        "WITH gone AS (UPDATE recording r SET state = 'erased'"
        " FROM unnest($1::uuid[], $2::integer[]) AS c(id, epoch)"
        " WHERE r.id = c.id AND r.epoch = c.epoch AND r.state = 'erasing' RETURNING r.id)"
        " SELECT id FROM gone",
        [claim.id for claim in claims],
        [claim.epoch for claim in claims],
    )
    finished = {row["id"] for row in rows}
    erased = [claim for claim in claims if claim.id in finished]
    ids = [claim.id for claim in erased]
    await lent.execute(
        "DELETE FROM term t USING unnest($2::uuid[]) AS c(id)"
        " WHERE t.expires_on = $1 AND t.recording = c.id",
        day,
        ids,
    )
    await lent.execute("DELETE FROM cdr WHERE recording = ANY($1)", ids)
    await lent.execute("DELETE FROM upload WHERE recording = ANY($1)", ids)
    await lent.execute(
        "INSERT INTO ledger_waiting (actor, act, recording, facts) SELECT $1, 'erased', c.id,"
        " c.facts FROM unnest($2::uuid[], $3::jsonb[]) AS c(id, facts)",
        ledger.SYSTEM,
        ids,
        [_evidence(claim, versions=versions) for claim in erased],
    )
    await lent.execute(
        "INSERT INTO day (expires_on, erased) VALUES ($1, $2)"
        " ON CONFLICT (expires_on) DO UPDATE SET erased = day.erased + EXCLUDED.erased",
        day,
        len(erased),
    )
    return erased


def _evidence(claim: Claim, *, versions: bool) -> dict[str, object]:
    """What the ledger tells of an erasure: when it was due, which key went, how it was looked.

    `attempt` is the id of the recording's own key, of which the row had the only copy outside the
    object, and `redacted` that of its redacted copy's, if it had one.
    `absent` is what the store was asked for under its prefix, and did not have.
    """
    expiry = Expiry(claim.expires_at, claim.expires_on, claim.rule)
    keys = {"attempt": str(claim.attempt)}
    if claim.redacted:
        keys["redacted"] = str(claim.redacted)
    return {**ledger.due(expiry), **keys, "absent": holdings.absent(versions=versions)}
