"""Wrong clocks: nothing is erased before its instant, and no key destroyed before its day is over;
nor does anything go that no fuse looks at: records of calls, notices, unfinished uploads, exports.

Each of the four clocks (of the database, the service, the object store, the key holder) is put
wrong by each amount, alone and in pairs; the others are right and tell the truth. Then everything
that erases is run. A clock that is wrong by less than the fuse lets the clocks be apart is right
enough: by contract the instant is the database's, and what is due within that time is left out.
"""

import itertools
import random
from contextlib import suppress
from datetime import datetime, timedelta

from jobs import expiry, nightly
from jobs.schedule import tidy
from storage import clocks
from storage.keyring import KeyRingError
from tests import timed, years
from tests.jobs.test_expiry import a_year_ago
from tests.services import Service
from tests.web.test_listen import upload
from torture.clocks import NONE, Offsets, turn_database, turned
from torture.load import audio
from torture.report import Limit, Row, Tally
from torture.room import Room

AMOUNTS = [
    sign * amount
    for amount in (
        timedelta(seconds=1),
        timedelta(hours=1),
        timedelta(days=1),
        timedelta(days=365),
    )
    for sign in (1, -1)
]
NAMES = ("database", "service", "store", "holder")
_AHEAD = (
    timedelta(minutes=10),
    timedelta(minutes=50),
    timedelta(hours=23),
    timedelta(days=20),
    timedelta(days=360),
)
"""How long until the recordings are due that no wrong clock may take for due."""

_TIMED = timedelta(minutes=50)
"""The same of the others: an export is over a quarter of an hour before what is in it."""

_NEAR = timedelta(minutes=4)


def cases() -> list[Offsets]:
    """Every clock by every amount, alone and in pairs."""
    alone = [Offsets(**{name: amount}) for name in NAMES for amount in AMOUNTS]
    pairs = [
        Offsets(**{first: one, second: other})
        for first, second in itertools.combinations(NAMES, 2)
        for one, other in itertools.product(AMOUNTS, AMOUNTS)
    ]
    return alone + pairs


GOAL = len(cases())


async def measure(room: Room, limit: Limit) -> list[Row]:
    """Try every case, or so many of them by chance."""
    every = cases()
    chosen = every if limit.tries >= GOAL else random.sample(every, limit.tries)
    early, fuse, right = Tally(), Tally(), Tally()
    async with room.service() as service:
        due = [years.now()]
        for offsets in chosen:
            if not limit.allows(early.tried):
                break
            while min(due) < years.now() + _NEAR:
                due = [await _keep(service, each) for each in _AHEAD]
                soon = a_year_ago(seconds=_TIMED.total_seconds())
                await timed.plant(service, soon, f"{random.randrange(1 << 40)}")
            await _try(service, offsets, early, fuse, right)
        await _in_time(service, right)
    return [
        Row.of("never early", "each clock wrong, alone and in pairs", early, GOAL, "cases"),
        Row.of("", "the fuse holds what it can see", fuse, GOAL // 2, "cases"),
        Row.of("", "by right clocks nothing is held up", right, GOAL, "looks"),
    ]


async def _keep(service: Service, ahead: timedelta) -> datetime:
    """Keep one recording that is due in so long."""
    number = random.randrange(1 << 40)
    seconds = ahead.total_seconds()
    await upload(service, f"{number}", audio(number), started_at=a_year_ago(seconds=seconds))
    return years.now() + ahead


async def _in_time(service: Service, right: Tally) -> None:
    """What is due is erased once the clocks have come that far, all of them together."""
    await _keep(service, _AHEAD[0])
    ahead = _AHEAD[0] + timedelta(minutes=1)
    await turn_database(service.vault, ahead)
    with turned(service.vault, Offsets.all(ahead)) as vault:
        report = await expiry.run(vault)
    await turn_database(service.vault, NONE)
    right.note(report.erased > 0 and not report.stopped, f"what was due stayed: {report}")


async def _try(service: Service, offsets: Offsets, early: Tally, fuse: Tally, right: Tally) -> None:
    vault = service.vault
    before = {row["id"]: row for row in await service.rows() if row["state"] == "stored"}
    days, waiting = set(vault.ring.days()), await timed.there(service)
    await turn_database(vault, offsets.database)
    with turned(vault, offsets) as wrong:
        report = await expiry.run(wrong)
        for work in (tidy, nightly.run):
            with suppress(KeyRingError):  # which says that a clock is wrong
                await work(wrong)
    await turn_database(vault, NONE)
    stopped = (await expiry.run(vault)).stopped  # what erases nothing at all is never early
    right.note(not stopped, f"{offsets}: set right again, erasing is stopped: {stopped}")
    now, today = years.now(), vault.policy.day_of(years.now())
    for row in await service.rows():
        known = before.get(row["id"])
        if known and row["state"] != "stored" and known["expires_at"] > now:
            early.fail(f"{offsets}: erased {known['expires_at'] - now} early")
    left = await timed.there(service)
    for named, ends in waiting.items():
        if ends > now + clocks.APART and named not in left:
            early.fail(f"{offsets}: the {named[0]} went {ends - now} early")
    gone = {day for day in days - set(vault.ring.days()) if day >= today}
    early.note(not gone, f"{offsets}: the keys of {sorted(map(str, gone))} are destroyed")
    seen = (offsets.database, offsets.service, offsets.store)
    apart = max(seen) - min(seen) > clocks.APART + timedelta(seconds=2)
    if apart and max(abs(offsets.database - each) for each in seen) > clocks.APART:
        fuse.note(bool(report.stopped), f"{offsets}: the fuse let it pass")
