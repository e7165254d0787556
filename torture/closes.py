"""kill -9 in the closing of days: two services at once, at each of its steps, day after day.

The clocks go on by a day each round. Both services find that a night was missed and make it up at
the same time, and die in it; two more come after them. In the end each day is on the ledger as
closed once, each recording as erased once, no key of a day is left that is over, and none is gone
of a day that is not.
"""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from app import audit
from jobs import nightly
from storage import database, steps
from storage.database import connection
from tests import years
from tests.app.child_service import Child, House
from tests.rewriting import export
from tests.services import Service, set_clock
from tests.web.test_listen import upload
from torture.clocks import Offsets, turned
from torture.kills import bury
from torture.load import audio
from torture.nursery import Nursery
from torture.report import Limit, Row, Tally
from torture.room import Room

GOAL = 300
_CALLS = 3
_ZONE = ZoneInfo("Europe/Helsinki")
_LIFE = 6.0
"""Seconds that a service may take to come by the step at which it is to die: the other may have
done it, or nothing is left to do.
"""

_DAYS = 60
"""Days of one archive; then another is begun."""

STEPS = (*steps.ERASURE, *steps.CLOSE, *steps.LEDGER)


@dataclass(frozen=True, slots=True)
class _Night:
    """The nights of one archive: who kills in them, and what is counted of it."""

    house: House
    service: Service
    nursery: Nursery
    kills: Tally
    deaths: Counter[str]


async def measure(room: Room, limit: Limit) -> list[Row]:
    """Close days, one after the other."""
    kills, once, deaths = Tally(), Tally(), Counter[str]()
    while limit.allows(kills.tried):
        async with room.house() as (house, service):
            with Nursery() as nursery:
                night = _Night(house, service, nursery, kills, deaths)
                await _days(night, limit, once)
    print(
        f"  {', '.join(f'{step}: {count}' for step, count in sorted(deaths.items()))}", flush=True
    )
    died = Tally(sum(deaths[step] > 0 for step in STEPS))
    return [
        Row.of("once", "kill -9 of two services that close a day", kills, GOAL, "kills"),
        Row.of("", "steps at which they died", died, len(STEPS), "steps"),
        Row.of("", "erasures and closings, afterwards", once, GOAL, "of them"),
    ]


async def _days(night: _Night, limit: Limit, once: Tally) -> None:
    service, kills = night.service, night.kills
    first = service.vault.policy.day_of(datetime.now(_ZONE))
    wanted = min(_DAYS, 1 + (limit.tries - kills.tried) // 2)
    due = {first + timedelta(days=count): await _keep(service, count) for count in range(wanted)}
    closed: list[date] = []
    for day in due:
        if not limit.allows(kills.tried):
            break
        ahead = timedelta(days=len(closed) + 1)
        await set_clock(service.vault, ahead)
        await _one_day(night, ahead)
        closed.append(day)
    # A day whose recordings a dead service still held in its night is closed in the next.
    await service.end_leases()
    with turned(service.vault, Offsets.all(timedelta(days=len(closed)))) as vault:
        await nightly.run(vault)
    await _judge(service, due, closed, night.house, once)


async def _keep(service: Service, days: int) -> list[str]:
    """Keep calls that are due at the last minute of a day; on 29 February none is."""
    due = datetime.now(_ZONE) + timedelta(days=days)
    due = due.replace(hour=23, minute=59, second=0, microsecond=0)
    start = years.started(due)
    if start is None:
        return []
    ids = []
    for _ in range(_CALLS):
        number = random.randrange(1 << 40)
        started = start.isoformat()
        ids.append(await upload(service, f"{number}", audio(number), started_at=started))
    return ids


async def _one_day(night: _Night, ahead: timedelta) -> None:
    """Two services that die in the night, and two that come after them."""
    for _ in range(2):
        steps = random.choices(STEPS, k=2)
        pair = [
            night.nursery.bear(night.house, name, crash_at=step, ahead=ahead.total_seconds())
            for name, step in zip("ab", steps, strict=True)
        ]
        await _dead(pair, _LIFE if random.random() < 0.8 else random.uniform(0.3, 1))
        for child, step in zip(pair, steps, strict=True):
            died, wrong = await bury(child)
            night.deaths[step if died else "any moment"] += 1
            night.kills.note(not wrong, wrong)
    await night.service.end_leases()
    pair = [night.nursery.bear(night.house, name, ahead=ahead.total_seconds()) for name in "ab"]
    await _night(night, pair)


async def _dead(pair: list[Child], most: float) -> None:
    """Wait until both have died at their step, or for so many seconds."""
    until = time.monotonic() + most
    while time.monotonic() < until and any(child.process.poll() is None for child in pair):
        await asyncio.sleep(0.02)


async def _night(night: _Night, pair: list[Child]) -> None:
    """Wait until a night of this day was done, by services that live."""
    service = night.service
    for child in pair:
        await child.ready()
    async with asyncio.timeout(60), connection(service.vault.pool) as lent:
        # What was due is erased, and its day is closed.
        while await lent.fetchval(
            "SELECT count(*) FROM recording WHERE state IN ('stored', 'erasing')"
            " AND expires_at <= archive_now()"
        ) or not await lent.fetchval(
            "SELECT count(*) FROM night WHERE ran_at > archive_now() - interval '1 minute'"
        ):
            await asyncio.sleep(0.05)
    for child in pair:
        _, wrong = await bury(child)
        if wrong:
            night.kills.fail(wrong)


async def _judge(
    service: Service, due: dict[date, list[str]], closed: list[date], house: House, tally: Tally
) -> None:
    acts = await service.acts()
    erased = Counter(recording for act, recording in acts if act == "erased")
    for day, ids in due.items():
        for each in ids:
            count = int(day in closed)
            tally.note(erased[each] == count, f"{each} is erased {erased[each]} times")
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT facts->>'day' AS day FROM ledger WHERE act = 'day.closed'")
    told = Counter(date.fromisoformat(row["day"]) for row in rows)
    for day in due:
        over, gone = day in closed, day in service.vault.ring.destroyed()
        tally.note(
            told[day] == over == gone, f"{day} is closed {told[day]} times, key gone: {gone}"
        )
    exported = await export(service.vault, house.folder / "ledger.txt")
    by = await database.now(service.vault.pool)  # an auditor who lives in the same time
    found = audit.verify_export(exported, service.vault.signer.verifier, [], by)
    tally.note(bool(found["holds"]), f"the ledger does not hold: {found['faults']}")
