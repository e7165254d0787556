"""The archive is away for a while, and seven systems go on delivering.

It is killed, stopped, left without its database and without its store, each for a while; calls go
on before, meanwhile and afterwards, each system in its own way (`torture.systems`). In the end
every call that was offered is in the archive once, to the byte, and nothing of it is left with who
delivered it: not in the watched directory, the bucket, a spool, or at the host that had it. What
one system gave up, as it does by nature, is what the gap report tells of, and no more.

The first absence is the long one: an hour, if there is time. Where it is a short one, what a
service that died holds for ten minutes is ended as if they were over.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from storage import cdrs, recordings, tree, uploads
from storage.database import connection
from storage.shelf import Shelf
from tests.services import Service
from torture import senders, systems, truth
from torture.absence import LEASE, Away, opened
from torture.report import Limit, Row, Tally
from torture.room import Room
from torture.systems import System, Yard

GOAL = 2_000
"""Calls."""

HOUR = 3600.0
_SHARE = 0.75
"""Of the time there is, how much the archive is away at first."""

_LATER = 1 / 20
"""How long it is away the other times, in times of the first."""

_LEAST = 3.0
"""Seconds that it is away at the least."""

_CATCHING_UP = 1200.0
"""Seconds in which everything has to have arrived, once the archive is back."""

_AT_ONCE = 2
_DAY = timedelta(hours=25)

SYSTEMS = (
    *(systems.freepbx, systems.genesys, systems.asterisk),
    *(senders.twilio, senders.recorder, senders.tuspy, senders.rtpengine),
)

Way = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(slots=True)
class Drill:
    """What goes on, and what was seen of it."""

    service: Service
    archive: Away
    yard: Yard
    away: float
    systems: list[System] = field(default_factory=list)
    over: bool = False
    calls: Tally = field(default_factory=Tally)
    gone: Tally = field(default_factory=Tally)
    _number: int = 0

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        """Let every system have calls, until the context is left."""
        work = self.yard.work
        tasks = [work.create_task(self._deliver(system)) for system in self.systems]
        yield
        self.over = True
        await asyncio.gather(*tasks)

    async def _deliver(self, system: System) -> None:
        while not self.over:
            self._number += 1
            number = self._number
            system.offered[await system.offer(number)] = number
            pause = self.yard.pauses.calls * system.every * random.uniform(0.8, 1.2)
            await asyncio.sleep(pause)

    async def go_on(self, seconds: float, *, silent: bool = False) -> None:
        """So long at the least, and until each system had calls. `silent`: nothing is answered, so
        that one of them gives up.
        """
        end, before = time.monotonic() + seconds, self._counts()
        while time.monotonic() < end or not self._had_calls(before, silent=silent):
            await asyncio.sleep(0.1)

    def _counts(self) -> list[tuple[int, int]]:
        return [(len(each.offered), len(each.given_up)) for each in self.systems]

    def _had_calls(self, before: list[tuple[int, int]], *, silent: bool) -> bool:
        now = self._counts()
        calls = min(one - other for (one, _), (other, _) in zip(now, before, strict=True))
        gave_up = sum(one - other for (_, one), (_, other) in zip(now, before, strict=True))
        return calls >= _AT_ONCE and (gave_up > 0 or not silent)

    async def be_away(self, name: str, way: Way, seconds: float) -> None:
        """Be away once, come back, and wait for what was offered until then."""
        began = time.monotonic()
        async with way():
            await self.go_on(seconds, silent=name != "without_store")
        took = time.monotonic() - began
        self.gone.tried += int(took)
        await self.let_leases_end()
        caught_up = await self._arrive()
        print(
            f"  {name} for {took:.0f} s; everything was there {caught_up:.0f} s later", flush=True
        )

    async def let_leases_end(self) -> None:
        """As time would."""
        if self.away >= LEASE:
            return
        await self.service.end_leases()
        async with connection(self.service.vault.pool) as lent:
            await lent.execute("UPDATE notice SET due_at = archive_now()")
            await lent.execute("UPDATE landing_left SET again_at = archive_now()")

    async def _arrive(self) -> float:
        """Wait until all that was offered by now is stored; the seconds that it took."""
        vault, began = self.service.vault, time.monotonic()
        left = {
            recordings.call_hash(vault.ring, system.source, call_id)
            for system in self.systems
            for call_id in system.offered.keys() - system.given_up
        }
        while left and time.monotonic() < began + _CATCHING_UP:
            async with connection(vault.pool) as lent:
                rows = await lent.fetch(
                    "SELECT call_hash FROM recording WHERE state = 'stored'"
                    " AND call_hash = ANY ($1)",
                    list(left),
                )
            left -= {row["call_hash"] for row in rows}
            left -= {
                recordings.call_hash(vault.ring, system.source, call_id)
                for system in self.systems
                for call_id in system.given_up
            }
            await asyncio.sleep(0.3)
        if left:
            self.gone.fail(f"{len(left)} calls did not come though the archive is back")
        return time.monotonic() - began

    async def come_to_rest(self) -> list[str]:
        """Wait until nothing is left with those who delivered; what is, if it stays."""
        end = time.monotonic() + _CATCHING_UP
        while time.monotonic() < end:
            left = [name for system in self.systems for name in system.left()]
            left += await self.yard.site.there()
            if not left and not any(system.sending for system in self.systems):
                break
            if any(name.startswith("spool/") for name in left):
                await systems.flush(self.yard)
            await self.let_leases_end()
            await asyncio.sleep(0.5)
        for system in self.systems:
            left += [f"{system.source} is still sending" for _ in system.sending]
            for task in system.sending:
                task.cancel()
        return left


async def measure(room: Room, limit: Limit, *, away: float | None = None) -> list[Row]:
    """Be away, and compare. `away`: for how many seconds at first; else for most of the time."""
    if away is None:
        away = min(HOUR, _SHARE * max(0.0, limit.end - time.monotonic()))
    away = max(away, _LEAST)
    async with opened(room, away) as (service, archive, yard):
        drill = Drill(service, archive, yard, away)
        ways = (archive.killed, archive.stopped, archive.without_database, archive.without_store)
        async with AsyncExitStack() as stack:
            for system in SYSTEMS:
                drill.systems.append(await stack.enter_async_context(system(drill.yard)))
            async with drill.delivering():
                await drill.go_on(0)
                for place, way in enumerate(ways):
                    if limit.allows(place):
                        seconds = max(_LEAST, away * _LATER) if place else away
                        await drill.be_away(way.__name__, way, seconds)
            left = await drill.come_to_rest()
        await archive.stop()
        return await _told(drill, left)


async def _told(drill: Drill, left: list[str]) -> list[Row]:
    """Compare what is there with what was offered."""
    service, folder = drill.service, drill.yard.folder
    if ending := await truth.at_rest(service):
        drill.calls.fail(f"{ending} recordings came to no end")
    stored = await _compare(drill)
    gaps = await _gaps(drill, stored)
    orphans = await truth.reconciled(service)
    story = await truth.story(service, folder / "ledger.txt")
    left += await _behind_the_doors(drill)
    rest = Tally(sum(len(system.offered) for system in drill.systems))
    for name in left:
        rest.fail(f"left behind: {name}")
    what = f"archive away, {len(drill.systems)} kinds of client"
    return [
        Row.of("every call arrives once", what, drill.calls, GOAL, "calls"),
        Row.of("", "for how long it was away", drill.gone, int(HOUR), "seconds"),
        Row.of("", "what is left with those who delivered", rest, 1, "calls"),
        Row.of("", "given up by nature, in the gap report", gaps, 1, "sources"),
        Row.of("", "objects against rows, before and after a repair", orphans, 1, "objects"),
        Row.of("", "the ledger of it all, verified from its export", story, 1, "entries"),
    ]


async def _compare(drill: Drill) -> set[tuple[str, str]]:
    """Hear every recording: the calls that are there. One more, one twice, another sound and one
    that is missing are faults.
    """
    tally, known = drill.calls, {system.source: system for system in drill.systems}
    stored: Counter[tuple[str, str]] = Counter()
    path = "/v1/recordings?limit=200"
    eye, told = await drill.service.key("supervisor", "eye"), await _told_of(drill)
    while path:
        # One key may hear no more than some hundred recordings in an hour.
        ear = await drill.service.key("supervisor", f"ear-{len(stored)}")
        page = await (await drill.service.get(path, eye)).json()
        for item in page["items"]:
            source, call_id = item["source"], item["call_id"]
            stored[source, call_id] += 1
            number = known[source].offered.get(call_id)
            answer = await drill.service.get(f"/v1/recordings/{item['id']}/audio", ear)
            right = number is not None and await answer.read() == known[source].audio(number)
            once = stored[source, call_id] == told[item["id"]] == 1
            tally.note(right and once, f"{call_id} of {source} is there twice, or another")
        path = page["next"]
    for source, system in known.items():
        for call_id in system.offered.keys() - {name for of, name in stored if of == source}:
            tally.note(call_id in system.given_up, f"{call_id} of {source} is missing")
    return set(stored)


async def _told_of(drill: Drill) -> Counter[str]:
    """How often the ledger says of each recording that it was stored."""
    vault = drill.service.vault
    await tree.sequence(vault)
    async with connection(vault.pool) as lent:
        rows = await lent.fetch("SELECT recording::text FROM ledger WHERE act = 'stored'")
    return Counter(row["recording"] for row in rows)


async def _gaps(drill: Drill, stored: set[tuple[str, str]]) -> Tally:
    """Let every system tell of its calls: those that are missing are those that were given up."""
    service, tally = drill.service, Tally()
    for system in drill.systems:
        rows = [
            {"call_id": call_id, "started_at": drill.yard.start(number).isoformat(),
             "duration": "1", "answered": "yes"}
            for call_id, number in system.offered.items()
        ]  # fmt: skip
        login = {"Authorization": f"Bearer {drill.yard.tokens[system.source]}"}
        url = f"{service.ingest}/v1/cdr"
        for first in range(0, len(rows), 500):
            part = rows[first : first + 500]
            async with service.session.post(url, json=part, headers=login) as answer:
                if answer.status != 200:
                    tally.fail(f"call records of {system.source} were answered {answer.status}")
    await cdrs.match(service.vault, every=True)
    told = await (await service.operate("/v1/gaps")).json()
    missing: Counter[str] = Counter()
    for hour in told["hours"]:
        missing[hour["source"]] += hour["missing"]
    for system in drill.systems:
        there = {call_id for source, call_id in stored if source == system.source}
        lacking = len(system.offered.keys() - there)
        found = missing[system.source]
        tally.note(found == lacking, f"of {system.source} {lacking} are missing, {found} are told")
    gave_up = {system.source for system in drill.systems if system.given_up}
    print(f"  {sum(missing.values())} calls given up, by {', '.join(sorted(gave_up)) or 'nobody'}")
    return tally


async def _behind_the_doors(drill: Drill) -> list[str]:
    """What the service keeps on its own disk a day later, though it should not."""
    data = drill.archive.house.folder / "a"
    await drill.service.turn_clock(_DAY)
    vault = replace(drill.service.vault, shelf=Shelf(data / "uploads"))
    await uploads.collect(vault)
    return [*vault.shelf.lying(), *(path.name for path in (data / "spool").glob("*"))]
