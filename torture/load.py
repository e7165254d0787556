"""Senders and listeners who keep on at whichever service answers, and remember what it said.

A call is known by its number alone: its audio is made from that, so that hundreds of thousands of
them can be asked for again.
"""

import asyncio
import hashlib
import io
import itertools
import random
import time
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import aiohttp

from archive.errors import UnavailableError
from tests.jobs.test_expiry import a_year_ago
from tests.services import Service
from torture.report import Tally

_PATIENCE = 30.0
_PAUSE = 0.05
_FRAMES = 200
_SPREAD = 300 * 86400
_WELCOME = (200, 201)
_EARSHOT = 400
"""Listens of one key: one may hear no more than 500 recordings in an hour."""


def audio(number: int, frames: int = _FRAMES) -> bytes:
    """The audio of a call: a short WAV that no other call has."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(hashlib.shake_128(str(number).encode()).digest(2 * frames))
    return held.getvalue()


@dataclass(slots=True)
class Load:
    """What was sent, and what was acknowledged.

    `doors` are the services that are up; `soon`: in how many seconds, at the most, those calls are
    due that fall due while the load runs, `passing_share` of all. `started` has the start of each
    call, `kept` and `passing` the ids of those that were acknowledged: with months to live, or
    seconds. `open` were offered and not acknowledged. `sent` and `heard` count the answers, and
    those that were wrong.
    """

    service: Service
    doors: Callable[[], list[tuple[str, str]]]
    soon: float = 6
    passing_share: float = 0.15
    started: dict[int, str] = field(default_factory=dict)
    kept: dict[int, str] = field(default_factory=dict)
    passing: dict[int, str] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    heard: Tally = field(default_factory=Tally)
    sent: Tally = field(default_factory=Tally)
    over: bool = False
    listens: int = 0
    _ear: str = "supervisor"
    _ears: "itertools.count[int]" = field(default_factory=itertools.count)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def acknowledged(self) -> int:
        """How many calls were acknowledged."""
        return len(self.kept) + len(self.passing)

    @asynccontextmanager
    async def running(self, senders: int) -> AsyncIterator[None]:
        """Let the load run until the context is left, and what is under way come to its end."""
        tasks = [asyncio.create_task(self._go_on()) for _ in range(senders)]
        try:
            yield
        finally:
            self.over = True
            await asyncio.gather(*tasks)

    async def _go_on(self) -> None:
        while not self.over:
            dice = random.random()
            if not self.doors():
                await asyncio.sleep(0.01)
            elif self.kept and dice < 0.05:
                await self.offer(random.randrange(len(self.started)))
            elif self.kept and dice < 0.15:
                await self.listen(random.randrange(len(self.started)))
            elif not await self.offer(self._new()):
                await asyncio.sleep(_PAUSE)

    def _new(self) -> int:
        number = next(self._numbers)
        if random.random() < self.passing_share:
            self.started[number] = a_year_ago(seconds=random.uniform(1, self.soon))
            self.due[number] = 0.0
        else:
            ago = timedelta(seconds=random.uniform(60, _SPREAD))
            self.started[number] = (datetime.now(UTC) - ago).isoformat()
        return number

    async def offer(self, number: int) -> bool:
        """Send a call once; whether it was acknowledged, or can be no more."""
        known = self.kept.get(number) or self.passing.get(number)
        self.open.add(number)
        params = {"call_type": "other", "started_at": self.started[number]}
        try:
            async with asyncio.timeout(_PATIENCE):
                door = replace(self.service, ingest=random.choice(self.doors())[0])
                async with await door.put(f"{number}", audio(number), params) as answer:
                    said = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, IndexError):
            return False
        if answer.status == 503:
            return False
        self.open.discard(number)
        held = self._acknowledge(number, said, known) if answer.status in _WELCOME else (
            answer.status in (410, 422) and number in self.due
        )  # fmt: skip
        self.sent.note(held, f"call {number} was answered {answer.status}")
        return True

    def _acknowledge(self, number: int, receipt: dict[str, str], known: str | None) -> bool:
        """Remember a receipt; whether it is the same as before."""
        if number in self.due:
            self.passing[number] = receipt["id"]
            self.due[number] = datetime.fromisoformat(receipt["expires_at"]).timestamp()
        else:
            self.kept[number] = receipt["id"]
        same = receipt["sha256"] == hashlib.sha256(audio(number)).hexdigest()
        return same and known in (None, receipt["id"])

    async def listen(self, number: int) -> None:
        """Listen to a call, if it was acknowledged: it is there to the byte, until it is due."""
        identifier = self.kept.get(number) or self.passing.get(number)
        if identifier is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                door = replace(self.service, retrieval=random.choice(self.doors())[1])
                began = time.time()
                ear = await self.listener()
                async with await door.get(f"/v1/recordings/{identifier}/audio", ear) as answer:
                    heard = await answer.read()
        except (aiohttp.ClientError, TimeoutError, IndexError, UnavailableError):
            return
        if answer.status == 503:
            return
        due = self.due.get(number, began + _SPREAD)
        if answer.status == 410:
            # What is cut off at its instant may end as much earlier as the look at the clock took.
            early, took = due - time.time(), time.time() - began
            self.heard.note(early <= took, f"call {number} is gone {early:.3f} s before it is due")
        else:
            right = answer.status == 200 and heard == audio(number) and began < due
            self.heard.note(right, f"call {number} was heard wrong: {answer.status}")

    async def listener(self) -> str:
        """A key whose budget is not used up."""
        if self.listens >= _EARSHOT:
            # While the database is away there is none, and nobody listens.
            self._ear = await self.service.key("supervisor", f"ear-{next(self._ears)}")
            self.listens = 0
        self.listens += 1
        return self._ear
