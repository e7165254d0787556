"""Exactly once: two services, a nightly job that runs doubled, a week that was missed, and the
nights in which the clock changes.

All clocks are turned alike, and walk through the night in small steps. At each both services look
for what is due at the same moment; each has its own cron, as the running service has, and now and
then one starts anew and makes up what it thinks was missed. In the end every recording that was due
is on the ledger as erased once, every day that is over as closed once, and the story holds.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
from apscheduler.triggers.cron import CronTrigger

from app import audit, values
from jobs import expiry, nightly
from jobs.schedule import missed
from storage import clocks, nights
from storage.database import connection
from storage.release import release
from storage.vault import Vault
from tests.rewriting import export
from tests.services import Service, clock_at, open_service, open_vault
from tests.web.test_listen import upload
from torture.clocks import Offsets, ahead_of, service_ahead, turn_database
from torture.load import audio
from torture.report import Limit, Row, Tally
from torture.room import Room

GOAL = 500
HELSINKI = ZoneInfo("Europe/Helsinki")
CRONS = [
    values.nightly(text, HELSINKI)
    for text in ("30 1 * * *", "0 2 * * *", "5 0 * * *", "30 5 * * *")
]


@dataclass(frozen=True, slots=True)
class Night:
    """Where a walk begins and where it ends, by the clocks of Helsinki; `away`: no service runs
    until the end.
    """

    name: str
    begin: datetime
    end: datetime
    away: bool = False


def _night(name: str, begin: str, days: int, *, away: bool = False) -> Night:
    first = datetime.fromisoformat(begin).replace(tzinfo=HELSINKI)
    return Night(name, first, first + timedelta(days=days), away)


NIGHTS = (
    _night("clock put back", "2026-10-24T20:00", 2),
    _night("clock put forward", "2027-03-27T20:00", 2),
    _night("an ordinary night", "2026-12-01T21:00", 2),
    _night("a missed week", "2026-12-01T21:00", 8, away=True),
)


@dataclass(slots=True)
class Walk:
    """Two services that walk through a night; `ran`: until when each one's cron was asked."""

    vaults: list[Vault]
    service: Service
    trigger: CronTrigger
    ran: list[datetime]
    due: list[str] = field(default_factory=list)

    async def turn(self, now: datetime, stack: AsyncExitStack) -> list[Vault]:
        """Let it be `now`, by every clock."""
        ahead = now - datetime.now(UTC)
        await turn_database(self.vaults[0], ahead)
        stack.enter_context(service_ahead(ahead))
        return [ahead_of(vault, Offsets.all(ahead)) for vault in self.vaults]


async def measure(room: Room, limit: Limit, *, steps: int = 30) -> list[Row]:
    """Walk through one night after the other, in so many steps each."""
    erasures, looks = Tally(), Tally()
    for night in cycle(NIGHTS):
        if not limit.allows(erasures.tried):
            break
        await _walk(room, night, steps, erasures, looks)
    return [
        Row.of("once", "two services, nights doubled, missed, DST", erasures, GOAL, "erasures"),
        Row.of("", "days closed once, nothing else gone, the ledger", looks, 1, "looks"),
    ]


async def _walk(room: Room, night: Night, steps: int, erasures: Tally, looks: Tally) -> None:
    async with _two(room, night) as walk:
        await _take_in(walk, night)
        seconds = (night.end - night.begin).total_seconds()
        for step in range(steps + 1):
            if not night.away or step == steps:
                now = night.begin.astimezone(UTC) + timedelta(seconds=seconds * step / steps)
                async with AsyncExitStack() as stack:
                    await _step(walk, await walk.turn(now, stack), now)
                    if night.away:
                        await _released(walk, stack, looks)
        await _erased(walk, night, erasures, looks)
        await _judge(walk, night, looks, room.place() / "ledger.txt")


@asynccontextmanager
async def _two(room: Room, night: Night) -> AsyncIterator[Walk]:
    """Two services on one database, bucket and ring that were made when the night begins."""
    url, folder = await room.database(), room.place()
    ahead = night.begin.astimezone(UTC) - datetime.now(UTC)
    lent = await asyncpg.connect(url)
    await lent.execute(clock_at(ahead))
    await lent.close()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(room.store())
        with service_ahead(ahead):
            vaults = [
                await stack.enter_async_context(open_vault(url, store, folder)) for _ in range(2)
            ]
        service = await stack.enter_async_context(open_service(vaults[0]))
        trigger = CronTrigger.from_crontab(random.choice(CRONS), timezone=HELSINKI)
        yield Walk(vaults, service, trigger, [night.begin] * 2)


async def _take_in(walk: Walk, night: Night) -> None:
    """Take in calls that are due in the night, some at the very hours that a change touches."""
    morning = night.begin.date() + timedelta(days=1)
    touched = [
        datetime(morning.year, morning.month, morning.day, 3, minute, tzinfo=HELSINKI)
        for minute in (0, 30)
    ]
    others = [night.begin + timedelta(minutes=random.randrange(60, 24 * 60)) for _ in range(18)]
    for at in (*touched, *others):
        started = at.replace(year=at.year - 1)
        number = random.randrange(1 << 40)
        walk.due.append(
            await upload(walk.service, f"{number}", audio(number), started_at=started.isoformat())
        )


async def _step(walk: Walk, vaults: list[Vault], now: datetime) -> None:
    """What both services do when it is `now`."""
    await asyncio.gather(*map(expiry.run_if_due, vaults))
    at_once = []
    for number, vault in enumerate(vaults):
        async with connection(vault.pool) as lent:
            last = await nights.last(lent)
        fire = walk.trigger.get_next_fire_time(None, walk.ran[number])
        anew = random.random() < 0.1 and missed(walk.trigger, last, now)
        if anew or (fire is not None and fire <= now):
            at_once.append(nightly.run(vault))
        walk.ran[number] = now + timedelta(seconds=1)
    await asyncio.gather(*at_once)


async def _released(walk: Walk, stack: AsyncExitStack, tally: Tally) -> None:
    """After a week nobody erases before a person has looked at a calendar; then it runs doubled."""
    now = datetime.now(UTC)
    async with connection(walk.vaults[0].pool) as lent:
        reading = await clocks.read(lent)
    vaults = await walk.turn(reading.database, stack)
    await release(vaults[0], walk.vaults[0].policy.day_of(reading.database))
    await asyncio.gather(*(nightly.run(vault) for vault in vaults * 2))
    if datetime.now(UTC) - now > timedelta(minutes=5):
        tally.fail("the nights after a week took so long that their clocks say little")


async def _erased(walk: Walk, night: Night, erasures: Tally, looks: Tally) -> None:
    acts = await walk.service.acts()
    erased = Counter(recording for act, recording in acts if act == "erased")
    for each in walk.due:
        erasures.note(erased.pop(each, 0) == 1, f"{night.name}: {each} is not erased exactly once")
    looks.note(not erased, f"{night.name}: something else was erased")


async def _judge(walk: Walk, night: Night, tally: Tally, place: Path) -> None:
    async with connection(walk.vaults[0].pool) as lent:
        rows = await lent.fetch("SELECT facts->>'day' AS day FROM ledger WHERE act = 'day.closed'")
    closed = Counter(row["day"] for row in rows)
    day = night.begin.date()
    while day < night.end.date():
        tally.note(closed.pop(f"{day}", 0) == 1, f"{night.name}: {day} is not closed exactly once")
        day += timedelta(days=1)
    tally.note(not closed, f"{night.name}: another day was closed")
    ahead = night.end.astimezone(UTC) - datetime.now(UTC)
    await turn_database(walk.vaults[0], ahead)
    await export(walk.vaults[0], place)
    found = audit.verify_export(place, walk.vaults[0].signer.verifier, [], night.end)
    tally.note(bool(found["holds"]), f"{night.name}: the ledger does not hold: {found['faults']}")
