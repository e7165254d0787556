"""kill -9 of two services on one database, bucket and key ring, under load, at each named step of
their work and at any moment.

Some of the calls fall due while the load runs, so that erasing is killed as well. From time to time
everybody's lease is ended, as if its ten minutes were over: what a dead service held goes on, and a
living one is overtaken. The night's work is done before, or each service would begin with it:
`closes` and `once` are about nights. At the end everything is swept, rows and objects are held
against each other, and what was acknowledged has to be there to the byte, or erased exactly once.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from archive.errors import UnavailableError
from jobs import nightly
from storage import steps
from tests.app.child_service import Child, House
from tests.services import Service
from torture import truth
from torture.load import Load
from torture.nursery import Nursery
from torture.report import Limit, Row, Tally
from torture.room import Room

GOAL = 10_000
ACKNOWLEDGED = 400_000
_CALLS = 100
"""Calls that are acknowledged while a service lives, by it and the other, at the most."""

_LIFE = 8.0
"""Seconds that it lives at the most."""

_PASSES = dict.fromkeys(steps.INTAKE, 60) | dict.fromkeys(steps.ERASURE, 4) | {"sequenced": 2}
"""The steps at which it may die, and how often it may come by that one before, at the most."""

_PASSING = 0.05
"""The share of calls that fall due meanwhile: services that live for a second are to keep up."""

_SENDERS = 16


class Busy(Protocol):
    """What goes on while services are killed: of it is asked how far it has come."""

    service: Service
    over: bool

    @property
    def acknowledged(self) -> int:
        """How much was acknowledged."""

    def running(self, many: int, /) -> AbstractAsyncContextManager[None]:
        """Let so many go on until the context is left."""


@dataclass(slots=True)
class Kills:
    """The services of one round, and how they died."""

    house: House
    nursery: Nursery
    limit: Limit
    load: Busy
    up: dict[str, Child]
    passes: Mapping[str, int]
    deaths: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)

    @property
    def told(self) -> str:
        """How many died at which step."""
        return ", ".join(f"{step}: {count}" for step, count in sorted(self.deaths.items()))

    @property
    def row(self) -> Row:
        """At how many of the steps somebody died."""
        died = Tally(sum(self.deaths[step] > 0 for step in self.passes))
        return Row.of("", "steps at which they died", died, len(self.passes), "steps")

    async def under(self, many: int) -> float:
        """Kill two services while so many work with them; the seconds it took."""
        upkeep = asyncio.create_task(self._upkeep())
        began = time.monotonic()
        async with self.load.running(many):
            await asyncio.gather(*map(self.again_and_again, "ab"))
        await upkeep
        return time.monotonic() - began

    async def _upkeep(self) -> None:
        """End the leases of recordings now and then, as time would.

        Between two times there may be seconds: a batch that is overtaken each time ends never, and
        what is due piles up in the one folder that the store looks through for each batch.
        """
        while not self.load.over:
            await asyncio.sleep(random.uniform(0.05, random.choice((1, 10))))
            with suppress(UnavailableError):
                await self.load.service.end_leases()

    async def again_and_again(self, name: str) -> None:
        """Start a service and kill it, until it is enough."""
        while self.limit.allows(self.tally.tried):
            step = random.choice(("", *self.passes)) if random.random() < 0.7 else ""
            passes = random.randint(0, self.passes.get(step, 0))
            child = self.nursery.bear(self.house, name, crash_at=step, passes=passes)
            if random.random() < 0.05:  # also before it is ready
                await asyncio.sleep(random.uniform(0, 0.3))
            elif await self._is_up(name, child):
                await self._live(child, _CALLS if step else random.randint(0, _CALLS))
                self.up.pop(name, None)
            await self._bury(child, step)

    async def _is_up(self, name: str, child: Child) -> bool:
        """Wait for its doors; False when it died before, as one may that dies at a step."""
        try:
            self.up[name] = await child.ready()
        except AssertionError:
            if child.process.poll() != -signal.SIGKILL:
                self.tally.fail(f"a service did not start: {child.said()[-300:]}")
            return False
        return True

    async def _live(self, child: Child, calls: int) -> None:
        """Let it live until so many calls more are acknowledged, and a moment."""
        end, enough = time.monotonic() + _LIFE, self.load.acknowledged + calls
        while child.process.poll() is None and time.monotonic() < end:
            if self.load.acknowledged >= enough:
                await asyncio.sleep(random.uniform(0, 0.05))
                return
            await asyncio.sleep(0.01)

    async def _bury(self, child: Child, step: str) -> None:
        died, wrong = await bury(child)
        self.deaths[step if died else "any moment"] += 1
        self.tally.note(not wrong, wrong)
        for file in (child.log, child.log.with_suffix(".status")):
            with suppress(FileNotFoundError):
                os.unlink(file)


async def bury(child: Child) -> tuple[bool, str]:
    """Kill it; whether it had died at its step, and what it said if it failed by itself."""
    itself = child.process.poll()
    await asyncio.to_thread(child.kill)
    said = child.said()
    good = itself in (None, -signal.SIGKILL) and "Traceback" not in said and " 500 " not in said
    return itself == -signal.SIGKILL, "" if good else f"a service failed by itself: {said[-500:]}"


def doors(up: Mapping[str, Child]) -> Callable[[], list[tuple[str, str]]]:
    """Where the services that are up take in and hand out, whenever it is asked."""
    return lambda: [(each.ingest, each.retrieval) for each in up.values()]


async def measure(
    room: Room, limit: Limit, *, senders: int = _SENDERS, soon: float = 6
) -> list[Row]:
    """Kill, and compare. `soon`: in how many seconds, at the most, a call is due that falls due."""
    async with room.house() as (house, service):
        with Nursery() as nursery:
            up: dict[str, Child] = {}
            load = Load(service, doors(up), soon, _PASSING)
            kills = Kills(house, nursery, limit, load, up, _PASSES)
            await nightly.run(service.vault)
            took = await kills.under(senders)
            acknowledged = load.acknowledged
            for name in "ab":
                up[name] = await nursery.bear(house, name).ready()
            rows = await truth.told(load, house.folder, ACKNOWLEDGED)
            for child in up.values():
                child.kill()
    rates = f"{kills.tally.tried / took:.1f} kills and {acknowledged / took:.0f} calls a second"
    print(f"  {rates}; {kills.told}", flush=True)
    return [
        Row.of("acknowledged is never lost", "kill -9 of two services", kills.tally, GOAL, "kills"),
        kills.row,
        *rows,
    ]
