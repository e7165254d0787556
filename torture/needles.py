"""Nothing survives its year: needles in everything that a store, a database and a service keep.

Real services take calls in whose metadata and audio hold needles, by every way in (`planted`), are
listened to and searched by every one of them, make redacted copies and exports, are killed in the
middle of all that, and erase. Then every file is read that is left anywhere: of the bucket, of the
database (its tables, its log of writes, its own log), of the key store, the spool, the temporary
folder, the services' logs, a dump; and the backups that were made before. Nothing is there in
clear. What the backups hold sealed is then tried with the key ring as it is afterwards, and nothing
of it opens (`backups`).
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import aiohttp

from jobs import nightly
from jobs.schedule import tidy
from storage.database import connection
from tests.app.child_service import Child
from tests.jobs.test_expiry import a_year_ago
from tests.needles import CALL_ID, NEEDLES, errors, files, found, no_http, talking, use
from tests.postgres import Postgres
from tests.services import set_clock
from tests.stores.servers import running_rclone
from tests.web.test_upload import query
from torture import backups
from torture.backups import AHEAD, Place
from torture.clocks import Offsets, service_ahead, turned
from torture.planted import at, kill_on_the_way, outside, plant, until
from torture.report import Limit, Row, Tally
from torture.room import Room

SOON = 3600
"""In how many seconds those calls are due that are: an export is over a quarter of an hour before.
"""


async def measure(room: Room, limit: Limit, *, rounds: int = 3) -> list[Row]:
    """Plant, erase, search and try to open, so many times at the most."""
    clear, opened = Tally(), Tally()
    for done in range(rounds):
        if limit.allows(done):
            async with _place(room) as place:
                try:
                    await _round(place, clear, opened)
                except AssertionError as error:
                    clear.fail(f"a round was not gone through to its end: {error}")
    return [
        Row.of("nothing survives its year", "files searched for needles", clear, 500, "files"),
        Row.of("", "backups from before, tried with the keys of afterwards", opened, 1, "tries"),
    ]


@asynccontextmanager
async def _place(room: Room) -> AsyncIterator[Place]:
    folder = room.place()
    async with AsyncExitStack() as stack:
        postgres = await asyncio.to_thread(Postgres)
        stack.callback(postgres.stop)
        rclone = stack.enter_context(running_rclone(folder / "store"))
        own = replace(room, postgres=postgres, rclone=rclone, folder=folder)
        house, service = await stack.enter_async_context(own.house())
        temporary = folder / "tmp"
        temporary.mkdir()
        house = replace(house, more={"TMPDIR": str(temporary)})
        there = await stack.enter_async_context(outside(room.rclone))
        yield Place(folder, postgres, there.house(house, folder), service, there)


async def _round(place: Place, clear: Tally, opened: Tally) -> None:
    children: list[Child] = []
    try:
        children.append(await place.house.start().ready())
        due = a_year_ago(seconds=SOON)
        ids = await _plant(place, children[0], due)
        await _kill_on_the_way(place, children[0], ids[0])
        await kill_on_the_way(place.outside, place.house, place.service, ids, due)
        await _remember(place)
        await backups.make(place)
        await set_clock(place.service.vault, AHEAD)
        children.append(await place.house.start(ahead=AHEAD.total_seconds()).ready())
        await _closed(place)
        children[1].kill()
        await _search(place, clear)
        with service_ahead(AHEAD):
            await backups.open_them(place, opened)
    finally:
        for child in children:
            child.kill()


async def _plant(place: Place, child: Child, due: str) -> list[str]:
    """Calls with needles, of which those whose ids are returned are due: used, offered in every
    wrong way, and made copies of.
    """
    service = at(place.service, child)
    answer = await service.put(CALL_ID, talking(), query(started_at=due, **NEEDLES))
    assert answer.status == 201, await answer.text()
    first = str((await answer.json())["id"])
    await use(service, first)
    metadata = json.dumps({**query(started_at=due, **NEEDLES), "call_id": f"{CALL_ID}-2"})
    answer = await service.form([("audio", talking()), ("metadata", metadata)])
    assert answer.status == 201, await answer.text()
    second = str((await answer.json())["id"])
    answer = await service.put(f"{CALL_ID}-3", talking(), query(**NEEDLES))
    assert answer.status == 201, await answer.text()
    place.living = str((await answer.json())["id"])
    await errors(service, first)
    await no_http(service)
    await plant(place.outside, service, [first, second], due)
    return [first, second]


async def _remember(place: Place) -> None:
    """Remember what is due, and the exports, all of which have some of it."""
    async with connection(place.service.vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT id, expires_on FROM recording WHERE state = 'stored'"
            " AND expires_at < archive_now() + $1::interval",
            timedelta(seconds=SOON),
        )
        exports = await lent.fetch("SELECT id, expires_on FROM export")
    place.gone = {str(row["id"]): row["expires_on"] for row in rows}
    place.exports = {str(row["id"]): row["expires_on"] for row in exports}
    assert (len(place.gone), len(place.exports)) == (4, 2)


async def _kill_on_the_way(place: Place, child: Child, identifier: str) -> None:
    """kill -9 while an upload comes in, while a copy is made and while a recording is fetched."""
    service = at(place.service, child)
    halfway = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield talking() * 10
        halfway.set()
        await asyncio.sleep(30)

    sending = asyncio.ensure_future(service.put(f"{CALL_ID}-4", pieces(), query(**NEEDLES)))
    await halfway.wait()
    copy = await service.get(f"/v1/recordings/{identifier}/audio?format=mp3")
    child.kill()
    with suppress(aiohttp.ClientError):
        await copy.read()
    copy.close()
    await asyncio.gather(sending, return_exceptions=True)


async def _closed(place: Place) -> None:
    """Wait until all are erased and a night is done; their day may be left to the next."""

    async def done() -> bool:
        acts = Counter(act for act, _ in await place.service.acts())
        erased = acts["erased"] >= len(place.gone) and acts["export.erased"] >= len(place.exports)
        return erased and acts["night.done"] > 0

    await until(done)
    with turned(place.service.vault, Offsets.all(AHEAD)) as vault:
        await tidy(vault)
        await nightly.run(vault)
    assert place.days <= vault.ring.destroyed().keys()


async def _search(place: Place, tally: Tally) -> None:
    """Read every file there is."""
    await asyncio.to_thread(place.dump, place.folder / "after.sql")
    await backups.checkpoint(place)
    for folder in (place.folder, place.postgres.folder):
        for name, content in files(folder):
            shown = [*found(name), *found(content)]
            tally.note(not shown, f"{name} holds {shown}")
    temporary = place.folder / "tmp"
    tally.note(not list(temporary.iterdir()), "something is left in the temporary folder")
    for name, _ in files(place.bucket):
        erased = any(identifier in name for identifier in (*place.gone, *place.exports))
        tally.note(not erased, f"the bucket still has {name}")
    async with connection(place.service.vault.pool) as lent:
        left = await lent.fetchval("SELECT count(*) FROM notice")
    tally.note(not left, f"{left} notices are kept beyond their year")
