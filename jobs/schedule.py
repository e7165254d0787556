"""When things happen: erasing at once, tidying every minute, the night's work by its cron.

APScheduler decides only *when*. Its defaults would lose a night (a job that starts a second late is
skipped): here nothing is ever too late, what piled up runs once, and a night that was missed while
the service was down is made up at its start. What to do each job asks the database.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from archive.errors import UnavailableError
from jobs import expiry, nightly
from storage import (
    cdrs,
    database,
    early,
    export_erasing,
    export_making,
    nights,
    notices,
    sweep,
    tree,
    uploads,
)
from storage.database import connection
from storage.keyring import KeyRingError
from storage.signer import RewrittenError, SignerError
from storage.upkeep import verify
from storage.vault import Vault

log = logging.getLogger("archive.jobs")

PULSE = 0.5
"""Seconds between two looks at what is due: the most that an erasure starts late."""

REST = 10.0
"""Seconds that the pulse rests after it could not erase what was due."""

EXPORTS = 2.0
"""Seconds between two looks whether an export is wanted; one is made at a time."""

TIDY = 60.0
"""Seconds between two times that what is left over is tidied up."""

WATCH = 5.0
"""Seconds between two looks whether the database is still the same, where no jobs run."""

RETRY = timedelta(minutes=1)
"""How long until a night that failed is tried again."""


class Schedule:
    """The running service's clock: started once, stopped once.

    `rewritten` is set when the database is not the one any more that the service started on: an
    old one was put back under it, or somebody rewrote it. Then nothing more may be done here.
    """

    def __init__(self, vault: Vault, nightly_cron: str) -> None:
        self._vault = vault
        self.rewritten = asyncio.Event()
        self._nightly = CronTrigger.from_crontab(nightly_cron, timezone=vault.policy.zone)
        self._night = asyncio.Lock()
        self._running: set[asyncio.Future[bool]] = set()
        self._reading: asyncio.Future[bool] | None = None
        self._exporting: asyncio.Future[bool] | None = None
        self._rest_until = 0.0
        # A pulse that finds the last one still at work is not news.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = AsyncIOScheduler(
            timezone=vault.policy.zone,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    async def start(self) -> None:
        """Begin; a night that was missed is made up in the background."""
        pulse, second = IntervalTrigger(seconds=PULSE), IntervalTrigger(seconds=1)
        self._add("expiry", self._pulse, pulse)
        self._add("ledger", self._sequence, second, next_run_time=datetime.now(UTC))
        self._add("tidy", self._tidy, IntervalTrigger(seconds=TIDY))
        self._add("verify", self._verify, IntervalTrigger(minutes=1))
        self._add("exports", self._export, IntervalTrigger(seconds=EXPORTS))
        self._add("nightly", self._run_night, self._nightly)
        self._scheduler.start()
        if await self._missed():
            self._scheduler.add_job(self._run_night, name="missed night")

    async def stop(self) -> None:
        """Start nothing more, and wait for what is running; reading back is broken off, and so is
        an export, which the next service makes.
        """
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        for each in (self._reading, self._exporting):
            if each:
                each.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _add(
        self,
        name: str,
        act: Callable[[], Awaitable[None]],
        trigger: CronTrigger | IntervalTrigger,
        **more: datetime,
    ) -> None:
        self._scheduler.add_job(act, trigger, id=name, name=name, **more)

    async def _pulse(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._rest_until:
            return
        if not await self._guarded("expiry", expiry.run_if_due(self._vault)):
            self._rest_until = now + REST

    async def _sequence(self) -> None:
        await self._guarded("ledger", _sequence(self._vault))

    async def _tidy(self) -> None:
        await self._guarded("tidy", tidy(self._vault))

    async def _verify(self) -> None:
        self._reading = asyncio.ensure_future(_verify(self._vault))
        await self._guarded("verify", self._reading)

    async def _export(self) -> None:
        self._exporting = asyncio.ensure_future(export_making.run(self._vault))
        await self._guarded("exports", self._exporting)

    async def _run_night(self) -> None:
        async with self._night:
            done = await self._guarded("nightly", self._one_night())
        if not done:
            later = datetime.now(UTC) + RETRY
            # One try to come, however many nights have failed by now.
            again = "retried night"
            self._scheduler.add_job(
                self._run_night, "date", run_date=later, id=again, name=again, replace_existing=True
            )

    async def _one_night(self) -> bool:
        await nightly.run(self._vault)
        return True

    async def _guarded(self, name: str, work: Awaitable[bool]) -> bool:
        """Do a job's work. False when it failed: whatever it was, it is logged and tried again."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        try:
            # A scheduler that shuts down cancels its jobs; the work itself is let finish.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._scheduler.running:
                raise
            return False  # it goes on, and `stop` waits for it
        except Exception as error:  # the one boundary of the jobs
            tell(name, error)
            if isinstance(error, RewrittenError):
                self.rewritten.set()
            return False
        finally:
            task.add_done_callback(self._running.discard)

    async def _missed(self) -> bool:
        async with connection(self._vault.pool) as lent:
            last = await nights.last(lent)
        return missed(self._nightly, last, await database.now(self._vault.pool))


def tell(name: str, error: Exception) -> None:
    """Log what a job failed of, without the words of drivers, which hold values."""
    if isinstance(error, UnavailableError):
        log.warning("%s: %s", name, error.detail)
    elif isinstance(error, KeyRingError | SignerError):
        log.error("%s: %s", name, error)  # it says what to do
    else:
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s: %s\n%s", name, type(error).__name__, where)


def missed(nightly_trigger: CronTrigger, last: datetime | None, now: datetime) -> bool:
    """Whether a night was due since the last one that ran; one that never ran is due."""
    if last is None:
        return True
    due = nightly_trigger.get_next_fire_time(None, last + timedelta(seconds=1))
    return due is not None and due <= now


async def tidy(vault: Vault) -> bool:
    """Every minute: records of calls and notices forgotten that are over, unfinished uploads
    collected, exports erased that are over, what failed retried, the clock marked, records of calls
    matched with recordings, keys made ahead, days closed that a night left open, the ledger signed.
    A store that is away does not stop the first, and a key store that is full only the last three.
    """
    await tree.agree(vault)  # an old database knows uploads as given up that were stored since
    await cdrs.forget(vault)
    await notices.forget(vault)
    await sweep.run(vault)
    await uploads.collect(vault)
    await export_erasing.run(vault)
    await expiry.run(vault)
    await cdrs.match(vault)
    await early.run(vault)
    nightly.make_keys(vault, await database.now(vault.pool))
    await nightly.catch_up(vault)
    await tree.checkpoint(vault)
    return True


async def _sequence(vault: Vault) -> bool:
    """Every second: what was written down is given its place in the ledger, if it is still the one
    that was signed.
    """
    await tree.agree(vault)
    await tree.sequence(vault)
    return True


async def _verify(vault: Vault) -> bool:
    """Every minute, for a part of it: objects are read back whole, those whose turn it is."""
    await verify.run(vault)
    return True


async def watch(vault: Vault, rewritten: asyncio.Event) -> None:
    """See, in a process without jobs, that the database is still the one that was signed."""
    while True:
        await asyncio.sleep(WATCH)
        try:
            await tree.agree(vault)
        except RewrittenError:
            rewritten.set()
        except (UnavailableError, SignerError) as error:
            log.warning("ledger: %s", error)
