"""The night's work: freeze what is to come, catch whatever is left, close the days that are over,
hold rows against objects, read the ledger again, and write down what was done.

It may run twice, late, or on two services at once: each part asks the database what is left to do.
"""

import logging
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from archive.errors import UnavailableError
from jobs import expiry
from storage import cdrs, clocks, days, export_erasing, frozen, fuse, ledger, nights, sweep, tree
from storage.database import connection, now
from storage.days import Closing
from storage.signer import SignerError
from storage.upkeep import reconcile, reread, verify
from storage.vault import Vault

log = logging.getLogger("archive.nightly")

SPARE = timedelta(days=5)
"""How much further ahead day keys are made than a call of today needs, for nights that are missed.
"""


@dataclass(frozen=True, slots=True)
class Night:
    """The report of one run."""

    ran_at: datetime
    expiry: expiry.Report
    collected: int
    closings: list[Closing]
    reconciled: reconcile.Report
    verified: verify.Report
    reread: reread.Report

    def as_json(self) -> dict[str, object]:
        """The report as it is kept."""
        return {
            "ran_at": self.ran_at.isoformat(),
            "erased": self.expiry.erased,
            "still_there": self.expiry.still_there,
            "could_not_ask": self.expiry.unknown,
            "stopped": self.expiry.stopped or None,
            "unfinished_uploads_collected": self.collected,
            "verified": self.verified.facts,
            "days": [
                {
                    "day": closing.day.isoformat(),
                    "closed": closing.closed,
                    "strays": closing.strays,
                    "why": closing.why,
                }
                for closing in self.closings
            ],
            "reconciled": self.reconciled.as_kept(),
            "reread": self.reread.facts,
        }


async def run(vault: Vault) -> Night:
    """Do the night's work. Raises UnavailableError when the database or the store is away."""
    await vault.objects.clock()  # or everything would be frozen anew with each try
    ran_at = await now(vault.pool)
    today = vault.policy.day_of(ran_at)
    make_keys(vault, ran_at)
    collected = await sweep.run(vault)
    await tree.sequence(vault)
    await frozen.freeze(vault)
    await export_erasing.run(vault, by_time=await clocks.believed(vault))
    report = await expiry.run(vault)
    closings = await _close(vault, today)
    await _match(vault)
    reconciled = await _reconcile(vault)
    await tree.sequence(vault)
    read_back = await _reread(vault)
    async with connection(vault.pool) as lent, lent.transaction():
        verified = await verify.since(lent, await nights.last(lent))
        night = Night(ran_at, report, collected, closings, reconciled, verified, read_back)
        await nights.record(lent, ran_at, night.as_json())
        facts = (await nights.account(lent)).facts(today)
        facts |= {"verified": verified.facts, "reread": read_back.facts}
        await ledger.record(lent, ledger.SYSTEM, "night.done", facts=facts)
    await tree.checkpoint(vault)
    for closing in closings:
        log.info("day %s: %s", closing.day, closing.why)
    return night


async def catch_up(vault: Vault) -> bool:
    """Close the days that the last night had to leave open: something of them was still being
    erased then. Their keys would live a day longer. False if some are still open.
    """
    async with connection(vault.pool) as lent:
        last = await nights.last(lent)
    if last is None:
        return True
    today = vault.policy.day_of(last)
    if all(day >= today for day in vault.ring.days()) and not await days.untold(vault):
        return True
    return all(closing.closed for closing in await _close(vault, today))


async def _close(vault: Vault, today: date) -> list[Closing]:
    """Close the days before this one, as far as the fuse allows it."""
    verdict = await fuse.look(vault)
    # Keys go only while the clocks are trusted: as far as people released, or up to yesterday.
    through = today - timedelta(days=1) if verdict.whole else verdict.released_through
    return await days.close_through(vault, through, today) if through else []


async def _match(vault: Vault) -> None:
    """Match records of calls with recordings. A year of them may take longer than a statement may:
    that holds up nothing else.
    """
    try:
        await cdrs.match(vault, every=True)
    except UnavailableError as error:
        log.error("records of calls were not all matched: %s", error.detail)  # noqa: TRY400


async def _reconcile(vault: Vault) -> reconcile.Report:
    """Hold rows against objects. What stands in the way of it must not hold up the night's account:
    a name in the bucket that the store lists out of order is there the next night as well.
    """
    try:
        return await reconcile.run(vault, repair=True)
    except UnavailableError as error:
        why = error.detail
    except (OSError, SignerError) as error:
        why = f"what was seen of the database cannot be kept: {error}"
    log.error("rows and objects could not be compared: %s", why)
    return reconcile.Report(stopped=f"rows and objects could not be compared: {why}")


async def _reread(vault: Vault) -> reread.Report:
    """Read the ledger's rows again, from where the last night came to."""
    async with connection(vault.pool) as lent:
        since = await nights.reread_upto(lent)
    return await reread.run(vault, since)


def make_keys(vault: Vault, now: datetime) -> None:
    """Make the keys of all days that a call of these days may be filed under."""
    vault.ring.ensure(vault.policy.day_of(now), vault.policy.furthest(now) + SPARE)
