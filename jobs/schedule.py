"""When things happen: erasing at once, tidying every minute, the night's work by its cron.

The nights come by APScheduler, whose defaults would lose one (a job that starts a second late is
skipped): here nothing is ever too late, and each minute it is asked whether a night was missed,
while the service was down, by one that failed, or by a clock that was put. What comes again and
again goes by the clock that nobody puts: a machine's that is put back an hour holds nothing up.
What to do each job asks the database.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from archive.errors import UnavailableError
from jobs import expiry, nightly
from storage import (
    cdrs,
    clocks,
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
from storage.upkeep import mark, verify
from storage.vault import Vault

log = logging.getLogger("archive.jobs")

PULSE = 0.5
"""Seconds between two looks at what is due: the most that an erasure starts late."""

REST = 10.0
"""Seconds that the pulse rests after it could not erase what was due."""

SEQUENCE = 1.0
"""Seconds between two times that what was written down is given its place in the ledger."""

EXPORTS = 2.0
"""Seconds between two looks whether an export is wanted; one is made at a time."""

TIDY = 60.0
"""Seconds between two times that what is left over is tidied up."""

VERIFY = 60.0
"""Seconds between two times that objects are read back."""

WATCH = 5.0
"""Seconds between two looks whether the database is still the same, where no jobs run."""

RETRY = 60.0
"""Seconds between two looks whether a night was missed; until one that failed is tried again."""

END = 20.0
"""Seconds that a job is given at the end. Each may be broken off anywhere, as a kill does it."""


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
        self._loops: list[asyncio.Task[None]] = []
        self._stopped = False
        self._reading: asyncio.Future[bool] | None = None
        self._exporting: asyncio.Future[bool] | None = None
        self._rest_until = 0.0
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler = AsyncIOScheduler(
            timezone=vault.policy.zone,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    async def start(self) -> None:
        """Begin; a night that was missed is made up in the background."""
        self._stopped = False
        for act, seconds, at_once in (
            (self._pulse, PULSE, False),
            (self._sequence, SEQUENCE, True),
            (self._tidy, TIDY, False),
            (self._verify, VERIFY, False),
            (self._export, EXPORTS, False),
            (self._run_night, RETRY, True),
        ):
            again = self._again(act, seconds, at_once=at_once)
            self._loops.append(asyncio.create_task(again))
        self._scheduler.add_job(self._run_night, self._nightly, id="nightly")
        self._scheduler.start()

    async def stop(self) -> None:
        """Start nothing more, and wait for what is running; reading back is broken off, and so is
        an export, which the next service makes, and whatever takes too long.
        """
        self._stopped = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        for each in (self._reading, self._exporting, *self._loops):
            if each:
                each.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=END)
            for each in late:
                each.cancel()
        await asyncio.gather(*self._running, *self._loops, return_exceptions=True)
        self._loops.clear()

    async def _again(
        self, act: Callable[[], Awaitable[None]], seconds: float, *, at_once: bool
    ) -> None:
        if at_once:
            await act()
        while not self._stopped:
            await asyncio.sleep(seconds)
            await act()

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
            await self._guarded("nightly", self._one_night())

    async def _one_night(self) -> bool:
        if await self._missed():
            await nightly.run(self._vault)
        return True

    async def _guarded(self, name: str, work: Awaitable[bool]) -> bool:
        """Do a job's work. False when it failed: whatever it was, it is logged and tried again."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        try:
            # What is stopped is cancelled; the work itself is let finish.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not self._stopped:
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
    collected, exports erased that are over, and recordings that two people let go before their
    time, what failed retried, the clock marked, records of calls matched with recordings, keys made
    ahead, days closed that a night left open, the ledger signed, the database marked. A store that
    is away does not stop the first, and a key store that is full only the last four. Nothing goes
    by a clock that is in doubt: all of it is barred by its instant anyway.
    """
    await tree.agree(vault)  # an old database knows uploads as given up that were stored since
    by_time = await clocks.believed(vault)
    if by_time:
        await cdrs.forget(vault)
        await notices.forget(vault)
    await sweep.run(vault)
    await uploads.collect(vault, by_time=by_time)
    await export_erasing.run(vault, by_time=by_time)
    await expiry.run(vault)
    await cdrs.match(vault)
    came = await early.run(vault)
    if came.failed:
        log.error(
            "tidy: of what two people let go, still there %d, could not ask %d",
            len(came.still_there),
            len(came.unknown),
        )
    nightly.make_keys(vault, await database.now(vault.pool))
    await nightly.catch_up(vault)
    await tree.checkpoint(vault)
    await mark.keep(vault)
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
            async with connection(vault.pool) as lent:
                await mark.recognize(vault, lent)
        except RewrittenError:
            rewritten.set()
        except Exception as error:  # whatever it was, the next look may be one
            tell("ledger", error)
