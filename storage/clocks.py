"""The clock fuse: a wrong clock must not erase anything.

Bytes and keys are erased only while the clocks of the service, the database and the object store
agree, and while the database's clock has moved no further than it plausibly can since it was last
seen. A fuse that has blown stops erasing, never the barring of reads. A person lets it go on, for
the expiry days up to a date that they name: whoever can name today's date has looked at a calendar.
"""

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from storage import ledger
from storage.database import Connection, connection
from storage.vault import Vault

APART = timedelta(seconds=60)
"""How far the clocks of service, database and store may differ."""

LEAP = timedelta(hours=48)
"""How far the database's clock may have moved since it was last marked."""


class ReleaseRefusedError(ValueError):
    """The fuse cannot be released for that date; the message says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The database's clock, when it was last seen, and up to which expiry day a person released."""

    database: datetime
    mark: datetime | None
    released_through: date | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the fuse is whole; if not, why, and up to which expiry day erasing may go on."""

    whole: bool
    why: str
    released_through: date | None = None

    @property
    def stops(self) -> bool:
        """Whether nothing at all may be erased."""
        return not self.whole and self.released_through is None


async def read(lent: Connection) -> Reading:
    """Look at the database's clock and its mark."""
    row = await lent.fetchrow(
        "SELECT archive_now() AS database, clock_mark AS mark, released_through FROM archive"
    )
    if row is None:
        raise RuntimeError("the table `archive` has lost its row")
    return Reading(**dict(row))


async def fuse(vault: Vault) -> Verdict:
    """Compare the clocks. UnavailableError when the database or the store cannot be asked."""
    store = await vault.objects.clock()
    async with connection(vault.pool) as lent:
        reading = await read(lent)
    return judge(service_now(), store, reading)


def service_now() -> datetime:
    """The clock of the machine that this runs on."""
    return datetime.fromtimestamp(time.time(), UTC)


def judge(service: datetime, store: datetime, reading: Reading) -> Verdict:
    """Decide from the three clocks and the mark."""
    database = reading.database
    faults = [
        f"the clocks of the database and of {name} are {abs(other - database)} apart"
        for name, other in (("the service", service), ("the object store", store))
        if abs(other - database) > APART
    ]
    if reading.mark is not None and database - reading.mark > LEAP:
        faults.append(f"the database's clock is {database - reading.mark} past its last mark")
    if not faults:
        return Verdict(True, "the clocks agree")
    return Verdict(False, "; ".join(faults), reading.released_through)


async def mark(vault: Vault) -> None:
    """Remember how far the database's clock has come; called only while the fuse is whole.

    A release has done its work once the fuse is whole again: it does not outlive the fault.
    """
    async with connection(vault.pool) as lent:
        await lent.execute(
            "UPDATE archive SET released_through = NULL,"
            " clock_mark = greatest(clock_mark, archive_now())"
        )


async def release(vault: Vault, through: date) -> None:
    """Let erasing go on for expiry days up to `through`, on the word of the person who names it.

    Naming today also takes the database's clock for right, from now on. Raises ReleaseRefusedError
    for a day that the database's clock has not reached.
    """
    async with connection(vault.pool) as lent, lent.transaction():
        reading = await read(lent)
        today = vault.policy.day_of(reading.database)
        if through > today:
            raise ReleaseRefusedError(
                f"by the database's clock today is {today.isoformat()}: release no later day"
            )
        await lent.execute(
            "UPDATE archive SET released_through = $1,"
            " clock_mark = CASE WHEN $2 THEN archive_now() ELSE clock_mark END",
            through,
            through == today,
        )
        facts = {"through": through.isoformat()}
        await ledger.record(lent, ledger.SYSTEM, "fuse.released", facts=facts)
