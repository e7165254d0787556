"""Erasing one recording before its year is over, because a person asked for it.

Somebody of level privacy or admin asks, another one grants (`storage.four_eyes`); from then on it
is the ledger that says so, and whatever finds the entry goes on with it: the command at once, the
service each minute, a database that was put back as well. The erasing itself is that of
`storage.removal`, and nothing of the fuse is in its way. The tombstone keeps the keyed hash of the
call until its day is closed, so that the call is not taken in again.

The copies that a backup of the bucket may hold stay sealed under the key of the day, and open until
that goes: so keep none that is older than you would say.
"""

from dataclasses import dataclass
from uuid import UUID

from archive.access import Level
from archive.lifecycle import State
from storage import four_eyes, ledger, removal
from storage.database import connection
from storage.four_eyes import Matter, RefusedError
from storage.removal import BATCH, LEASE, Claim, Outcome
from storage.vault import Vault

LEVELS = frozenset({Level.PRIVACY, Level.ADMIN})
"""Who may ask, and grant."""

GRANTED = (
    "SELECT recording FROM told WHERE act = 'erasure.granted'"
    " AND facts->'keys'->>0 <> facts->'keys'->>1"
)
"""What two people let go, in SQL. It is asked for as an array, and so first and once: without
statistics, as after a restore, a planner would look in the ledger for each recording there is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it: only asked for, or granted; and then what became of the erasing."""

    granted: bool
    outcome: Outcome


async def ask(vault: Vault, identifier: UUID, reason: str, token: str) -> Asked:
    """Ask for the erasure of a recording, or grant what another person asked for.

    Raises RefusedError for a token that is not privacy's or an admin's, and for a recording that is
    not there.
    """
    matter = Matter("erasure.asked", "erasure.granted", LEVELS, {}, identifier)
    async with connection(vault.pool) as lent, lent.transaction():
        await four_eyes.alone(lent)
        caller = await four_eyes.person(lent, vault.ring, token, LEVELS)
        row = await lent.fetchrow(
            "SELECT r.state, r.call_type, archive_now() AS now FROM recording r WHERE id = $1",
            identifier,
        )
        if row is None or row["state"] != State.STORED:
            raise RefusedError("there is no recording of this id, or it is erased already")
        if not caller.scope.covers_erased(row["call_type"]):
            raise RefusedError("your key is limited: ask somebody whose key is not")
        day = vault.policy.furthest(row["now"])
        sealed = ledger.seal(vault.ring, day, {"reason": reason})
        granted = await four_eyes.agree(lent, caller.id, matter, sealed) is not None
    return Asked(granted, await run(vault) if granted else Outcome())


async def run(vault: Vault) -> Outcome:
    """Erase what was granted and is still there. UnavailableError when the database is away."""
    return await removal.erase(vault, await _claim(vault))


async def _claim(vault: Vault) -> list[Claim]:
    async with connection(vault.pool) as lent:
        rows = await lent.fetch(
            f"WITH granted AS (SELECT r.id FROM recording r WHERE r.id = ANY (ARRAY({GRANTED}))"  # noqa: S608
            " AND (r.state = 'stored' OR r.state = 'erasing' AND r.lease_until < archive_now())"
            " AND (r.redacting_until IS NULL OR r.redacting_until <= archive_now())"
            " LIMIT $1 FOR UPDATE SKIP LOCKED)"
            " UPDATE recording r SET state = 'erasing', epoch = epoch + 1,"
            " lease_until = archive_now() + $2 FROM granted WHERE r.id = granted.id"
            " RETURNING r.id, r.attempt, r.expires_on, r.expires_at, r.rule, r.epoch, r.redacted",
            BATCH,
            LEASE,
        )
    return sorted((Claim(**dict(row)) for row in rows), key=lambda claim: claim.prefix)
