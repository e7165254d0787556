"""kill -9 at each named step and at any moment: what was acknowledged is there, what is due is not.

The service is a process of its own on a database, a bucket and a key ring that outlive it, as those
of a real one do.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import md5
from pathlib import Path

import aiohttp
import pytest

from storage import export_erasing, export_making, recordings, removal, steps
from storage.keyring import NoDayKeyError
from storage.objects import ObjectStore
from tests.app.child_service import Child, House
from tests.jobs.test_expiry import TOMBSTONE, a_year_ago, when_over
from tests.roles import connection
from tests.services import Service, set_clock
from tests.sounds import tone
from tests.stores.servers import Server
from tests.web.test_exports import asked, fetch, fetched, stage
from tests.web.test_listen import upload
from tests.web.test_upload import problem, query


class Services:
    """Starts services on what the test has; all are killed at its end."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.started: list[Child] = []

    async def start(self, name: str = "a", *, crash_at: str = "", ahead: float = 0) -> Child:
        child = self._house.start(name, crash_at=crash_at, ahead=ahead)
        self.started.append(child)
        at_once = steps.ERASURE + steps.CLOSE + steps.EXPORT
        return child if crash_at in at_once else await child.ready()


@pytest.fixture
def services(
    database_url: str, rclone_server: Server, rclone_store: ObjectStore, tmp_path: Path
) -> Iterator[Services]:
    bucket = rclone_store._bucket._path.removeprefix("/")
    services = Services(House(database_url, rclone_server, bucket, tmp_path))
    yield services
    for child in services.started:
        child.kill()
    for child in services.started:
        assert "Traceback" not in child.said()
        assert " 500 " not in child.said()


def at(service: Service, child: Child) -> Service:
    """The same keys, at the doors of another process."""
    return replace(service, ingest=child.ingest, retrieval=child.retrieval)


async def heard(service: Service, identifier: str) -> bytes:
    answer = await service.get(f"/v1/recordings/{identifier}/audio")
    assert answer.status == 200, await answer.text()
    return await answer.read()


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 60
    while not await fact():
        assert time.monotonic() < deadline, "it did not come about in a minute"
        await asyncio.sleep(0.05)


async def swept(service: Service) -> None:
    """Sweep until nothing unfinished is left: a living service, whose first night it may be, sweeps
    as well, and has what it took for as long as that takes.
    """

    async def clean() -> bool:
        await service.sweep_everything()
        async with connection(service.vault.pool) as lent:
            return not await lent.fetchval(
                "SELECT count(*) FROM recording WHERE state NOT IN ('stored', 'erased')"
            )

    await until(clean)


async def no_row_without_bytes_and_no_bytes_without_row(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT * FROM recording WHERE state <> 'erased'")
        owners = await lent.fetch("SELECT DISTINCT recording FROM term")
    assert {row["state"] for row in rows} <= {"stored"}
    named = [recordings.object_key(row["expires_on"], row["id"], row["attempt"]) for row in rows]
    assert sorted(named) == sorted(holding.key for holding in await service.holdings())
    assert {row["recording"] for row in owners} == {row["id"] for row in rows}
    acts = [recording for act, recording in await service.acts() if act == "stored"]
    assert {str(row["id"]) for row in rows} <= set(acts)
    assert len(acts) == len(set(acts))


async def insisted(service: Service, call_id: str, audio: bytes, params: dict[str, str]) -> str:
    """Upload as a sender who does not give up; returns the id."""
    for _ in range(3):
        answer = await service.put(call_id, audio, params)
        if answer.status != 503:
            break
        assert int(answer.headers["Retry-After"]) > 0
    assert answer.status in (200, 201), await answer.text()
    return str((await answer.json())["id"])


@pytest.mark.parametrize("step", steps.INTAKE)
async def test_a_kill_in_intake(service: Service, services: Services, step: str) -> None:
    before, audio, params = tone(pitch=300), tone(2), query(agent="Anna")
    kept = await upload(service, "kept", before)
    child = await services.start(crash_at=step)
    with pytest.raises(aiohttp.ClientError):
        await at(service, child).put("call", audio, params)
    await child.death()
    states = sorted(row["state"] for row in await service.rows())
    assert (
        states
        == {
            "received": ["stored"],
            "intended": ["receiving", "stored"],
            "put": ["receiving", "stored"],
            "committed": ["stored", "stored"],
        }[step]
    )
    assert len(await service.holdings()) == 1 + (step in ("put", "committed"))

    again = at(service, await services.start())
    assert await heard(again, kept) == before
    first = await again.put("call", audio, params)
    expected = {"received": 201, "intended": 503, "put": 503, "committed": 200}
    assert first.status == expected[step]
    await service.end_leases()
    identifier = await insisted(again, "call", audio, params)
    assert await heard(again, identifier) == audio
    await swept(service)
    await no_row_without_bytes_and_no_bytes_without_row(service)
    assert len(await service.rows()) == 2
    assert (await heard(again, kept), await heard(again, identifier)) == (before, audio)


@pytest.mark.parametrize("step", ["intended", "put"])
async def test_what_a_kill_in_intake_left_is_collected(
    service: Service, services: Services, step: str
) -> None:
    """The same when the sender never comes again."""
    child = await services.start(crash_at=step)
    with pytest.raises(aiohttp.ClientError):
        await at(service, child).put("call", tone(), query())
    await child.death()
    await swept(service)
    await no_row_without_bytes_and_no_bytes_without_row(service)
    assert not await service.rows()
    async with connection(service.vault.pool) as lent:
        assert not await lent.fetchval("SELECT count(*) FROM recording WHERE state = 'abandoned'")


@pytest.mark.parametrize("step", steps.ERASURE)
async def test_a_kill_in_erasure(service: Service, services: Services, step: str) -> None:
    audio = tone()
    kept = await upload(service, "kept", audio)
    moment = a_year_ago(seconds=50)
    gone = [await upload(service, f"gone-{index}", started_at=moment) for index in range(3)]
    await service.turn_clock(timedelta(seconds=55))
    child = await services.start(crash_at=step)
    await child.death()
    erased = step == "erased"
    assert [act for act, _ in await service.acts()].count("erased") == 3 * erased
    assert len(await service.holdings()) == (4 if step == "claimed" else 1)

    again = at(service, await services.start())
    for identifier in gone:
        for part in ("", "/audio", "/waveform"):
            await problem(await again.get(f"/v1/recordings/{identifier}{part}"), 410, "gone")
    await service.end_leases()

    async def done() -> bool:
        return {row["state"] for row in await service.rows() if str(row["id"]) != kept} == {
            "erased"
        }

    await until(done)
    told = [recording for act, recording in await service.acts() if act == "erased"]
    assert sorted(map(str, told)) == sorted(gone)
    for row in await service.rows():
        if str(row["id"]) != kept:
            assert {name for name, value in row.items() if value is not None} == TOMBSTONE
    await no_row_without_bytes_and_no_bytes_without_row(service)
    assert await heard(again, kept) == audio
    assert not await removal.claim(service.vault)


@pytest.mark.parametrize("step", steps.EXPORT)
async def test_a_kill_while_an_export_is_made_or_erased(
    service: Service, services: Services, step: str
) -> None:
    """It is made once more or erased once more; nobody gets a half one, and no object is left."""
    audio = tone()
    kept = await upload(service, "kept", audio)
    identifier = await asked(service, [kept])
    ended = step == "export emptied"
    if ended:
        assert await export_making.run(service.vault)
        url = f"{service.retrieval}/v1/exports/{identifier}"
        assert (await service.ask("DELETE", url, "supervisor")).status == 204
    child = await services.start(crash_at=step)
    await child.death()
    answer = await fetch(service, identifier)
    assert answer.status == {"export made": 200, "export emptied": 410}.get(step, 503)
    answer.close()

    await services.start()
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE export SET lease_until = archive_now() WHERE erased_at IS NULL"
                           " AND lease_until IS NOT NULL")  # fmt: skip

    async def done() -> bool:
        return await stage(service, identifier) == ("erased" if ended else "ready")

    if ended:
        await export_erasing.run(service.vault)
    await until(done)
    if not ended:
        assert (await fetched(service, identifier)).read(f"{kept}.wav") == audio
        async with connection(service.vault.pool) as lent:
            await lent.execute("UPDATE export SET ended = 'withdrawn'")
        await export_erasing.run(service.vault)
        await until(_erased(service, identifier))
    await no_row_without_bytes_and_no_bytes_without_row(service)
    assert [act for act, _ in await service.acts()].count("export.erased") == 1


def _erased(service: Service, identifier: str) -> Callable[[], Awaitable[bool]]:
    async def erased() -> bool:
        return await stage(service, identifier) == "erased"

    return erased


@pytest.mark.parametrize("step", steps.CLOSE)
async def test_a_kill_in_the_closing_of_a_day(
    service: Service, services: Services, step: str
) -> None:
    vault, audio = service.vault, tone()
    kept = await upload(service, "kept", audio)
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=50))
    day = next(row["expires_on"] for row in await service.rows() if str(row["id"]) == gone)
    await vault.objects.put(f"{day}/stray/1", [b"x"], 1, md5(b"x").digest(), 10)
    ahead = when_over(day)
    await set_clock(vault, ahead)
    child = await services.start(crash_at=step, ahead=ahead.total_seconds())
    await child.death()
    assert vault.ring.destroyed().keys() == (set() if step == "swept" else {day})
    noted = [act for act, _ in await service.acts()].count("day.closed")
    assert noted == (1 if step == "closed" else 0)

    again = at(service, await services.start(ahead=ahead.total_seconds()))

    async def done() -> bool:
        return "night.done" in [act for act, _ in await service.acts()]

    await until(done)
    acts = [act for act, recording in await service.acts() if recording in (gone, None)]
    assert (acts.count("erased"), acts.count("day.closed")) == (1, 1)
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow("SELECT * FROM day WHERE expires_on = $1", day)
        assert not await lent.fetchval("SELECT count(*) FROM filed WHERE expires_on = $1", day)
    assert row is not None
    assert row["erased"] == 1
    assert row["closed_at"]
    assert vault.ring.destroyed().keys() == {day}
    with pytest.raises(NoDayKeyError):
        vault.ring.day_key(day)
    await problem(await again.get(f"/v1/recordings/{gone}"), 410, "gone")
    assert await heard(again, kept) == audio
    await no_row_without_bytes_and_no_bytes_without_row(service)


KILLS = 10
SENDERS = 4
PAUSE = 0.2


@dataclass(slots=True)
class Load:
    """Senders who keep on uploading new calls to whichever service answers."""

    service: Service
    doors: dict[str, str]
    sent: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    over: bool = False

    @contextmanager
    def running(self) -> Iterator[list["asyncio.Task[None]"]]:
        tasks = [asyncio.create_task(self._send(number)) for number in range(SENDERS)]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()

    async def _send(self, sender: int) -> None:
        number = 0
        while not self.over:
            number += 1
            audio = tone(0.3 + number % 7, pitch=300 + 100 * sender + number)
            self.sent[f"{sender}-{number}"] = audio, query(agent=f"{sender}")
            for _ in range(4):
                done = await self.offer(f"{sender}-{number}")
                await asyncio.sleep(PAUSE)
                if done:
                    break

    async def offer(self, call_id: str) -> bool:
        """Send a call once; whether it was acknowledged."""
        audio, params = self.sent[call_id]
        to = random.choice(list(self.doors.values()))
        try:
            async with asyncio.timeout(30):
                answer = await replace(self.service, ingest=to).put(call_id, audio, params)
                if answer.status == 503:
                    return False
                assert answer.status in (200, 201), await answer.text()
                receipt = await answer.json()
        except aiohttp.ClientError:
            return False
        assert receipt["sha256"] == hashlib.sha256(audio).hexdigest()
        assert self.acknowledged.setdefault(call_id, receipt["id"]) == receipt["id"]
        return True


@pytest.fixture
async def pair(services: Services) -> AsyncIterator[dict[str, Child]]:
    first = await services.start("a")
    yield {"a": first, "b": await services.start("b")}


async def test_kills_at_any_moment_of_two_services_under_load(
    service: Service, services: Services, pair: dict[str, Child]
) -> None:
    load = Load(service, {name: child.ingest for name, child in pair.items()})
    with load.running() as senders:
        for turn in range(KILLS):
            name = "ab"[turn % 2]
            await asyncio.sleep(random.uniform(0, 0.6))
            pair[name].kill()
            pair[name] = await services.start(name)
            load.doors[name] = pair[name].ingest
        load.over = True
        await asyncio.gather(*senders)
    assert len(load.acknowledged) > KILLS
    await service.end_leases()
    for call_id in load.sent.keys() - load.acknowledged.keys():
        for _ in range(3):
            if await load.offer(call_id):
                break
    assert load.acknowledged.keys() == load.sent.keys()
    await swept(service)
    await no_row_without_bytes_and_no_bytes_without_row(service)
    assert {str(row["id"]) for row in await service.rows()} == set(load.acknowledged.values())
    survivor = at(service, pair["a"])
    gate = asyncio.Semaphore(8)

    async def check(call_id: str, identifier: str) -> None:
        async with gate:
            assert await heard(survivor, identifier) == load.sent[call_id][0]

    await asyncio.gather(*(check(*each) for each in load.acknowledged.items()))
