"""Nothing survives its year: needles in everything that a store, a database and a service keep.

Real services take calls in whose metadata and audio hold needles, by every way in (`planted`), are
listened to and searched by every one of them, make redacted copies and exports, are killed in the
middle of all that, and erase. Then every file is read that is left anywhere: of the bucket, of the
database (its tables, its log of writes, its own log), of the key store, the spool, the temporary
folder, the services' logs, a dump; and the backups that were made before. Nothing is there in
clear. What the backups hold sealed is then tried with the key ring as it is afterwards, and nothing
of it opens.
"""

import asyncio
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg
from cryptography.exceptions import InvalidTag

from jobs import nightly
from jobs.schedule import tidy
from storage.database import connection
from storage.exports import _unseal as open_reason
from storage.keyring import KeyRingError, Ring
from storage.notices import _open as open_notice
from storage.objects import ObjectStore
from storage.sealing import HEADER, DamagedError, Seal
from storage.vault import Vault
from tests.app.child_service import Child, House
from tests.jobs.test_expiry import a_year_ago
from tests.needles import CALL_ID, NEEDLES, errors, files, found, no_http, talking, use
from tests.postgres import BIN, Postgres
from tests.services import Service, clock_at, open_service, open_vault, set_clock
from tests.stores.servers import running_rclone
from tests.web.test_upload import query
from torture.clocks import NONE, Offsets, service_ahead, turned
from torture.planted import Outside, at, kill_on_the_way, outside, plant, until
from torture.report import Limit, Row, Tally
from torture.room import Room

AHEAD = timedelta(hours=30)
SOON = 3600
"""In how many seconds those calls are due that are: an export is over a quarter of an hour before.
"""


@dataclass(slots=True)
class Place:
    """Servers of one round, whose every file can be read; and what was copied before the erasure.

    `gone` are the ids of recordings that were erased, with their day, and `exports` of exports.
    """

    folder: Path
    postgres: Postgres
    house: House
    service: Service
    outside: Outside
    gone: dict[str, date] = field(default_factory=dict)
    exports: dict[str, date] = field(default_factory=dict)

    @property
    def bucket(self) -> Path:
        """Where the objects lie."""
        return self.folder / "store" / "data" / self.house.bucket

    @property
    def days(self) -> set[date]:
        """The days of what was erased."""
        return {*self.gone.values(), *self.exports.values()}

    @property
    def backup(self) -> Path:
        """What was copied before."""
        return self.folder / "backup"

    def dump(self, file: Path) -> None:
        """Dump the database."""
        command = [str(BIN / "pg_dump"), "--file", str(file), self.house.database_url]
        subprocess.run(command, check=True, timeout=60)


async def measure(room: Room, limit: Limit, *, rounds: int = 3) -> list[Row]:
    """Plant, erase, search and try to open, so many times at the most."""
    clear, opened = Tally(), Tally()
    for done in range(rounds):
        if limit.allows(done):
            async with _place(room) as place:
                await _round(place, clear, opened)
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
        await _back_up(place)
        await set_clock(place.service.vault, AHEAD)
        children.append(await place.house.start(ahead=AHEAD.total_seconds()).ready())
        await _closed(place)
        children[1].kill()
        await _search(place, clear)
        with service_ahead(AHEAD):
            await _open(place, opened)
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
    await answer.read()
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


async def _back_up(place: Place) -> None:
    """Copy bucket, key store and a dump of the database, as backups do; and the cluster's files."""
    place.backup.mkdir()
    await asyncio.to_thread(place.dump, place.backup / "dump.sql")
    shutil.copytree(place.bucket, place.backup / "bucket")
    shutil.copytree(place.house.folder / "ring", place.backup / "ring")
    await _checkpoint(place)
    shutil.copytree(place.postgres.folder / "base", place.backup / "base")
    shutil.copytree(place.postgres.folder / "pg_wal", place.backup / "pg_wal")


async def _checkpoint(place: Place) -> None:
    lent = await asyncpg.connect(place.house.database_url)
    await lent.execute("CHECKPOINT")
    await lent.close()


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
    await _checkpoint(place)
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


async def _open(place: Place, tally: Tally) -> None:
    """Put the backup beside what is there, and try to read it with the keys that are left."""
    shutil.copytree(place.backup / "bucket", place.bucket.with_name("restored"))
    lent = await asyncpg.connect(place.house.database_url)
    await lent.execute("CREATE DATABASE restored")
    await lent.close()
    url = place.postgres.url("restored")
    command = [str(BIN / "psql"), "--quiet", "--output=/dev/null", "--file"]
    command += [str(place.backup / "dump.sql"), url]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
    lent = await asyncpg.connect(url)
    await lent.execute(clock_at(AHEAD))
    await lent.close()
    async with AsyncExitStack() as stack:
        store = await place.house.server.connect("restored")
        stack.push_async_callback(store.close)
        vault = await stack.enter_async_context(open_vault(url, store, place.house.folder))
        service = await stack.enter_async_context(_doors(vault))
        for back in (AHEAD, NONE):  # as it is, and with the database's clock put back
            await set_clock(vault, back)
            await _ask(place, service, tally)
        await _try_keys(place, vault.ring, store, tally)
    _try_old_ring(place, tally)


@asynccontextmanager
async def _doors(vault: Vault) -> AsyncIterator[Service]:
    """The doors over a restored archive, with new keys: those of before came back with it."""
    async with connection(vault.pool) as lent:
        await lent.execute("UPDATE access_key SET name = name || '-before'")
    async with open_service(vault) as opened:
        yield opened


async def _ask(place: Place, service: Service, tally: Tally) -> None:
    """Ask the doors for what was erased, with a new key, and with that which asked for exports."""
    parts = (
        "",
        "/audio",
        "/audio?format=wav",
        "/audio?version=original",
        "/waveform",
        "/redaction",
    )
    paths = [f"/v1/recordings/{each}{part}" for each in place.gone for part in parts]
    paths += [f"/v1/exports/{each}{part}" for each in place.exports for part in ("", "/file")]
    for path in paths:
        for token in ("supervisor", "privacy", place.service.tokens["supervisor"]):
            answer = await service.get(path, token)
            said = b""
            with suppress(aiohttp.ClientError):
                said = await answer.read()
            held = answer.status >= 400 and not found(said)
            tally.note(held, f"a restored archive gives {path}: {answer.status}")


async def _try_keys(place: Place, ring: Ring, store: ObjectStore, tally: Tally) -> None:
    """Try every key that is left on every object and every row of the backup."""
    assert not place.days & set(ring.days())
    ids = [*place.gone, *place.exports]
    headers = []
    for holding in await store.holdings(""):
        if any(identifier in holding.key for identifier in ids):
            async with store.get(holding.key, 0, HEADER) as pieces:
                headers.append(b"".join([piece async for piece in pieces]))
    assert len(headers) == len(place.gone) + 3, "a copy that stands, one that was killed, an export"
    lent = await asyncpg.connect(place.postgres.url("restored"))
    for column in ("recording.header", "recording.redacted_header", "export.header"):
        rows = await lent.fetch(
            f"SELECT {column} AS header FROM {column.partition('.')[0]}"
            f" WHERE id = ANY($1) AND {column} IS NOT NULL",
            [UUID(each) for each in ids],
        )
        assert rows
        headers += [row["header"] for row in rows]
    notices = await lent.fetch("SELECT mark, details FROM notice")
    exports = await lent.fetch("SELECT id, reason FROM export")
    await lent.close()
    assert len(notices) == 2
    for day in ring.days():
        key = ring.day_key(day)
        tries: list[Callable[[], object]] = [partial(Seal.unwrap, each, key) for each in headers]
        tries += [partial(open_notice, ring, day, row["mark"], row["details"]) for row in notices]
        tries += [partial(open_reason, ring, day, row["id"], row["reason"]) for row in exports]
        for opens in tries:
            try:
                opens()
                tally.note(False, f"the key of {day} opens what was erased")
            except (DamagedError, InvalidTag):
                tally.note(True, "")


def _try_old_ring(place: Place, tally: Tally) -> None:
    """The copy of the key store from before, with the root as it is now, opens nothing."""
    root = place.house.folder / "root.key"
    try:
        Ring.open(place.backup / "ring", root, create=False, today=lambda: date.max)
        tally.note(False, "a copy of the key store from before opens")
    except KeyRingError:
        tally.note(True, "")
