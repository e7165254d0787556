"""People who have parts of calls made silent and taken back, who ask for exports and fetch them,
and who have calls erased, at whichever service answers; and what they know of it.

What is done with one call is done one after the other, so that it is known whether it is silent: by
what was acknowledged, or, after an answer that was lost, not at all until the next.
"""

import asyncio
import hashlib
import io
import random
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import aiohttp

from storage.database import connection
from tests.jobs.test_expiry import a_year_ago
from tests.services import Service
from tests.web.test_exports import ask, fetch
from tests.web.test_redaction import redact, withdraw
from torture.load import audio
from torture.report import Tally

_PATIENCE = 30.0
_RECENT = 12
_LIVING = 40
"""How many of the last exports may still live, or be made: some seconds of them."""

_SPAN = {"start": 5, "stop": 15}
_SILENT = slice(44 + 5 * 16, 44 + 15 * 16)
"""The part in milliseconds, and in bytes of a WAV at 8 kHz of 16 bits."""

_ALONE = 5
"""Exports of one key: one may have no more than so many recordings in a day without another person,
nor hear more than so many in an hour.
"""


def hurry() -> None:
    """In a service: let copies and exports live, wait and be given up within seconds, so that all
    of it meets.
    """
    from archive import export
    from jobs import schedule
    from storage import attempts, export_erasing, export_making, redactions

    export.LIFE, export.AHEAD = timedelta(seconds=6), timedelta(seconds=0.5)
    schedule.EXPORTS, schedule.TIDY = 0.3, 2.0
    export_erasing.LEASE = timedelta(seconds=3)
    attempts.patience = export_making.patience = lambda _: 3.0
    for each in (attempts, export_making, redactions):
        each.GRACE = timedelta(seconds=2)  # type: ignore[attr-defined]


def silent(number: int) -> bytes:
    """The audio of a call whose part is silent."""
    heard = bytearray(audio(number))
    heard[_SILENT] = bytes(len(heard[_SILENT]))
    return bytes(heard)


@dataclass(slots=True)
class Call:
    """A call that was acknowledged. `due`: when it ends by itself; `granted`: that it may end now.

    `hushed`: whether its part is silent; None when nobody knows.
    """

    number: int
    id: str
    due: float
    granted: bool = False
    hushed: bool | None = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def ends(self) -> bool:
        """Whether it is to be erased by the end of it all."""
        return self.granted or self.due < time.time() + 3600

    @property
    def over(self) -> bool:
        """Whether it may be gone by now, or too near its end for an export."""
        return self.granted or self.due < time.time() + 1


@dataclass(slots=True)
class Hands:
    """All of them, and what they were told. `exports` has what is in each that was acknowledged."""

    service: Service
    doors: Callable[[], list[tuple[str, str]]]
    soon: float
    calls: list[Call] = field(default_factory=list)
    exports: dict[str, list[Call]] = field(default_factory=dict)
    heard: Tally = field(default_factory=Tally)
    acknowledged: int = 0
    over: bool = False
    _number: int = 0
    _asked: int = 0
    _key: str = "supervisor"
    _keys: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def running(self, many: int) -> AsyncIterator[None]:
        """Let them work until the context is left, and what is under way come to its end."""
        tasks = [asyncio.create_task(self._go_on()) for _ in range(many)]
        try:
            yield
        finally:
            self.over = True
            await asyncio.gather(*tasks)

    async def _go_on(self) -> None:
        acts = (self._send, self._redact, self._withdraw, self._ask, self._fetch, self._end)
        acts += (self._grant, self.listen)  # type: ignore[assignment]
        while not self.over:
            if not self.doors() or not self.calls:
                await asyncio.sleep(0.01)
                act = self._send
            else:
                [act] = random.choices(acts, (30, 25, 8, 20, 12, 3, 2, 10))
            with suppress(aiohttp.ClientError, TimeoutError, IndexError):
                async with asyncio.timeout(_PATIENCE):
                    await act()

    def _door(self) -> Service:
        ingest, retrieval = random.choice(self.doors())
        return replace(self.service, ingest=ingest, retrieval=retrieval)

    def _recent(self) -> Call:
        return random.choice(self.calls[-_RECENT:])

    async def _send(self) -> None:
        door, number = self._door(), self._number
        self._number += 1
        if random.random() < 0.6:
            started = a_year_ago(seconds=random.uniform(4, self.soon))
        else:
            started = (datetime.now(UTC) - timedelta(days=random.uniform(1, 300))).isoformat()
        params = {"call_type": "other", "started_at": started}
        async with await door.put(f"{number}", audio(number), params) as answer:
            if answer.status == 201:
                told = await answer.json()
                due = datetime.fromisoformat(told["expires_at"]).timestamp()
                self.calls.append(Call(number, told["id"], due))
                self.acknowledged += 1

    async def _redact(self) -> None:
        await self._change(self._recent(), to=True)

    async def _withdraw(self) -> None:
        await self._change(self._recent(), to=False)

    async def _change(self, call: Call, *, to: bool) -> None:
        door = self._door()
        async with call.lock:
            before, call.hushed = call.hushed, None
            async with await (
                redact(door, call.id, [_SPAN]) if to else withdraw(door, call.id)
            ) as answer:
                await answer.read()
            if answer.status in (201, 204):
                call.hushed = to
                self.acknowledged += 1
            elif answer.status < 500:
                call.hushed = before
            known = answer.status in (201, 204, 503, 409)
            known |= answer.status == 410 and call.over
            # Nothing is silent of it that could be taken back.
            known |= answer.status == 404 and not to and not before
            self.heard.note(known, f"a redaction of {call.id} was answered {answer.status}")

    async def _ask(self) -> None:
        async with self._keys:
            number, self._asked = self._asked, self._asked + 1
            if number % _ALONE == 0:
                self._key = await self.service.key("supervisor", f"asker-{number}")
            door, key = self._door(), self._key
        chosen = {call.id: call for call in (self._recent() for _ in range(random.randint(1, 4)))}
        async with await ask(door, [*chosen], key) as answer:
            if answer.status == 201:
                self.exports[f"{(await answer.json())['id']} {key}"] = [*chosen.values()]
                self.acknowledged += 1
            known = answer.status in (201, 503)
            known |= answer.status == 410 and any(call.over for call in chosen.values())
            self.heard.note(known, f"an export was answered {answer.status}")

    async def _fetch(self) -> None:
        named = random.choice([*self.exports][-_LIVING:])
        identifier, key = named.split()
        async with AsyncExitStack() as stack:
            for call in sorted(self.exports[named], key=lambda each: each.number):
                await stack.enter_async_context(call.lock)
            async with await fetch(self._door(), identifier, key) as answer:
                body = await answer.read()
            if answer.status != 200:
                known = answer.status in (410, 503)
                self.heard.note(known, f"an export was answered {answer.status}")
                return
            found = zipfile.ZipFile(io.BytesIO(body))
            for call in self.exports[named]:
                self._judge(call, found.read(f"{call.id}.wav"), "exported")

    async def _end(self) -> None:
        identifier, key = random.choice([*self.exports][-_LIVING:]).split()
        door = self._door()
        url = f"{door.retrieval}/v1/exports/{identifier}"
        async with await door.ask("DELETE", url, key) as answer:
            self.heard.note(
                answer.status in (204, 404, 503), f"its end was answered {answer.status}"
            )

    async def _grant(self) -> None:
        """What two people do whose command this is."""
        call = self._recent()
        call.granted = True
        async with connection(self.service.vault.pool) as lent:
            await lent.execute(
                "INSERT INTO ledger_waiting (actor, act, recording, facts)"
                " SELECT 'a', 'erasure.granted', id, '{\"keys\": [\"a\", \"b\"]}' FROM recording"
                " WHERE id = $1 AND state = 'stored'",
                UUID(call.id),
            )

    async def listen(self, call: Call | None = None, *, last: bool = False) -> None:
        """Hear a call: silent where that was acknowledged, and else to the byte. `last`: nothing is
        killed any more, and it is there.
        """
        call, door = call or self._recent(), self._door()
        async with call.lock:
            async with await door.get(f"/v1/recordings/{call.id}/audio", self._key) as answer:
                body = await answer.read()
            if answer.status == 410:
                self.heard.note(call.over and not last, f"{call.id} is gone before it is due")
            elif answer.status == 200:
                self._judge(call, body, "heard")
            else:
                known = answer.status == 503 and not last
                self.heard.note(known, f"{call.id} was answered {answer.status}")

    def _judge(self, call: Call, body: bytes, how: str) -> None:
        loud, hushed = audio(call.number), silent(call.number)
        wanted = (loud, hushed) if call.hushed is None else (hushed if call.hushed else loud,)
        what = hashlib.sha256(body).hexdigest()[:8]
        self.heard.note(body in wanted, f"{call.id} ({call.hushed}) was {how} wrong: {what}")
