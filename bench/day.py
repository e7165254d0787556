"""Making a day of 1,000,000 recordings unreadable: from the decision until its key is gone.

The rows of that day are in the database, sealed as uploads seal them, and one of them is read
before and after. What is timed is `Ring.destroy` until it returns: with it the new root and the new
ring are on the disk, and the old root is overwritten. Beside it stands how long it would take to
remove as many objects, by the speed of `DeleteObjects` on 10,000: computed, not measured.
"""

import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import asyncpg

from app.vault import opened
from bench import fill
from bench.erasure import COUNT as DELETED
from bench.erasure import deleted, year_before
from bench.report import Figure
from bench.stack import Stack
from storage import recordings
from storage.database import connection
from storage.keyring import NoDayKeyError, Ring
from storage.vault import Vault

COUNT = 1_000_000
ROUNDS = 5
NAME = "day"


async def measure(stack: Stack) -> list[Figure]:
    """Seconds until nothing of the day can be opened any more."""
    config = stack.config(NAME, await stack.database(NAME))
    now = datetime.now(UTC)
    today = now.astimezone(config.retention.zone).date()
    if (today.month, today.day) == (2, 29):  # on which no call is due
        today += timedelta(days=1)
    begin = datetime(today.year, today.month, today.day, 12, tzinfo=UTC)
    began = time.perf_counter()
    await fill.fill(
        stack,
        NAME,
        config.database.url,
        COUNT,
        year_before(begin),
        year_before(begin + timedelta(hours=1)),
        terms=False,
    )
    print(f"  {COUNT} recordings filled in {time.perf_counter() - began:.0f} s", flush=True)
    async with opened(config) as vault:
        row = await _row(vault, today)
        recordings.from_row(vault.ring, row)
        # The holder's clock is two weeks on: to repeat it, further days have to be over.
        later = today + timedelta(days=14)
        ring = Ring.open(
            config.keys.store, config.keys.root_file, create=False, today=lambda: later
        )
        keys = len(ring.days())
        times = [_destroyed(ring, today + timedelta(days=number)) for number in range(ROUNDS)]
        row = await _row(vault, today)
        with suppress(NoDayKeyError):
            recordings.from_row(vault.ring, row)
            raise RuntimeError("a recording of the destroyed day can still be opened")
    print(f"  {keys} day keys; {', '.join(f'{1000 * each:.1f}' for each in times)} ms")
    speed = [await deleted(stack) for _ in range(3)]
    what = f"a day of {COUNT:,} unreadable / its objects removed (computed from {DELETED:,})"
    each = [COUNT / one for one in speed]
    return [Figure.beside_limit(what, "s", times, each, value_most=1)]


async def _row(vault: Vault, day: date) -> asyncpg.Record:
    async with connection(vault.pool) as lent:
        count = await lent.fetchval("SELECT count(*) FROM recording WHERE expires_on = $1", day)
        assert count == COUNT
        row = await lent.fetchrow(
            f"SELECT {recordings.COLUMNS} FROM recording r WHERE expires_on = $1 LIMIT 1", day
        )
    assert row
    return row


def _destroyed(ring: Ring, day: date) -> float:
    began = time.perf_counter()
    ring.destroy(day)
    return time.perf_counter() - began
