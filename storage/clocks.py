"""The clocks, and what the archive remembers of them: a wrong clock must not erase anything.

The clocks of the service, the database, the object store and the key holder are compared, and the
database's with how far it was last seen to go. What was found goes to the fuse (`storage.fuse`).

Nor may it refuse anything for good: by a clock that was put back every new call begins ahead of it.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from archive.errors import InvalidError, UnavailableError
from archive.recording import IS_AHEAD, Call
from archive.retention import Policy
from storage import ledger
from storage.database import Connection, connection
from storage.vault import Vault

APART = timedelta(seconds=60)
"""How far the clocks of service, database, store and key holder may differ."""

LEAP = timedelta(hours=48)
"""How far the database's clock may have moved since it was last marked."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The database's clock, when it was last seen, up to which expiry day people released, and why
    erasing is held.
    """

    database: datetime
    mark: datetime | None = None
    released_through: date | None = None
    hold: str | None = None


@dataclass(frozen=True, slots=True)
class Others:
    """The other clocks, as they were read: of the key holder only its date is known, and nothing of
    a store that is away.
    """

    service: datetime
    store: datetime | None
    holder: date


async def read(lent: Connection) -> Reading:
    """Look at the database's clock and what it remembers."""
    row = await lent.fetchrow(
        "SELECT archive_now() AS database, clock_mark AS mark, released_through, hold FROM archive"
    )
    if row is None:
        raise RuntimeError("the table `archive` has lost its row")
    return Reading(**dict(row))


def service_now() -> datetime:
    """The clock of the machine that this runs on."""
    return datetime.fromtimestamp(time.time(), UTC)


def judge(reading: Reading, others: Others, policy: Policy) -> list[str]:
    """What is wrong with the clocks; empty when they agree."""
    database = reading.database
    faults = [
        f"the clocks of the database and of {name} are {abs(other - database)} apart"
        for name, other in (("the service", others.service), ("the object store", others.store))
        if other is not None and abs(other - database) > APART
    ]
    days = {policy.day_of(moment) for moment in (database - APART, database, database + APART)}
    if others.holder not in days:
        faults.append(
            f"by the key holder's clock it is {others.holder.isoformat()}, and by the database's"
            f" {policy.day_of(database).isoformat()}"
        )
    if reading.mark is not None and database - reading.mark > LEAP:
        faults.append(f"the database's clock is {database - reading.mark} past its last mark")
    if reading.mark is not None and reading.mark - database > APART:
        # What falls due by it fell due long ago: nobody would be told of how late everything is.
        faults.append(f"the database's clock is {reading.mark - database} behind its last mark")
    return faults


async def believed(vault: Vault) -> bool:
    """Whether what is over by the database's clock may go that the fuse does not look at: calls'
    records, notices, unfinished uploads, and exports at their own end.

    No clock that can be asked speaks against it, or people released the fuse through its today.
    What else the fuse waits for says nothing of these, and a store that is away of no clock.
    """
    try:
        store = await vault.objects.clock()
    except UnavailableError:
        store = None
    holder = await asyncio.to_thread(vault.ring.today)
    async with connection(vault.pool) as lent:
        reading = await read(lent)
    today, through = vault.policy.day_of(reading.database), reading.released_through
    faults = judge(reading, Others(service_now(), store, holder), vault.policy)
    return not faults or (through is not None and through >= today)


async def behind(vault: Vault) -> bool:
    """Whether the database's clock is behind where it was seen before, or behind the service's own:
    its mark says so only until it has come that far again.
    """
    async with connection(vault.pool) as lent:
        reading = await read(lent)
    latest = max(service_now(), reading.mark or reading.database)
    return latest - reading.database > APART


async def call_of(
    vault: Vault, fields: Mapping[str, object], now: datetime, *, known: bool = False
) -> Call:
    """`Call.from_fields` for a sender who is to come again once the database's clock is right:
    UnavailableError for a call that is ahead of one which is behind, and wrong in nothing else.

    `known`: it was no call ahead when it was first told of, so that the clock went back since.
    """
    try:
        return Call.from_fields(fields, vault.policy, now)
    except InvalidError as error:
        if error.errors != {"started_at": IS_AHEAD} or not (known or await behind(vault)):
            raise
    raise ahead()


def ahead() -> UnavailableError:
    """What is told of calls that pass for calls ahead by a clock which is behind."""
    return UnavailableError("The call starts ahead of the archive's clock.")


async def mark(vault: Vault, *, whole: bool) -> None:
    """Remember how far the database's clock has come; called only while the clocks agree.

    A release has done its work once the fuse is `whole` again: it does not outlive the fault.
    """
    async with connection(vault.pool) as lent:
        await lent.execute(
            "UPDATE archive SET clock_mark = greatest(clock_mark, archive_now()),"
            " released_through = CASE WHEN $1 THEN NULL ELSE released_through END",
            whole,
        )


async def hold(lent: Connection, why: str) -> bool:
    """Stop erasing until people release it through the present day, whatever they released before.

    `why` is for them to read, and goes into the ledger: nothing personal. Saying it again changes
    nothing, and returns False. In a transaction of the caller's.
    """
    held = await lent.fetchval(
        "UPDATE archive SET hold = concat_ws('; ', hold, $1::text), released_through = NULL"
        " WHERE hold IS NULL OR strpos(hold, $1) = 0 RETURNING true",
        why,
    )
    if held:
        await ledger.record(lent, ledger.SYSTEM, "fuse.held", facts={"why": why})
    return bool(held)
