"""Backups of bucket, key store and database, and what they give after the erasure: nothing of what
is gone, by any door and under any key that is left; and all of what still has its time, or nothing
would be given at all.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg
from cryptography.exceptions import InvalidTag

from storage.database import connection
from storage.exports import _unseal as open_reason
from storage.keyring import KeyRingError, Ring
from storage.notices import _open as open_notice
from storage.objects import ObjectStore
from storage.sealing import HEADER, DamagedError, Seal
from storage.vault import Vault
from tests.app.child_service import House
from tests.needles import found, talking
from tests.postgres import BIN, Postgres
from tests.services import Service, clock_at, open_service, open_vault, set_clock
from torture.clocks import NONE
from torture.planted import Outside
from torture.report import Tally

AHEAD = timedelta(hours=30)
"""How far every clock is turned for the erasure."""


@dataclass(slots=True)
class Place:
    """Servers of one round, whose every file can be read; and what was copied before the erasure.

    `gone` are the ids of recordings that were erased, with their day, and `exports` of exports;
    `living` is the id of one that is not due.
    """

    folder: Path
    postgres: Postgres
    house: House
    service: Service
    outside: Outside
    gone: dict[str, date] = field(default_factory=dict)
    exports: dict[str, date] = field(default_factory=dict)
    living: str = ""

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


async def make(place: Place) -> None:
    """Copy bucket, key store and a dump of the database, as backups do; and the cluster's files."""
    place.backup.mkdir()
    await asyncio.to_thread(place.dump, place.backup / "dump.sql")
    shutil.copytree(place.bucket, place.backup / "bucket")
    shutil.copytree(place.house.folder / "ring", place.backup / "ring")
    await checkpoint(place)
    shutil.copytree(place.postgres.folder / "base", place.backup / "base")
    shutil.copytree(place.postgres.folder / "pg_wal", place.backup / "pg_wal")


async def checkpoint(place: Place) -> None:
    """Have the database write down what it has in memory."""
    lent = await asyncpg.connect(place.house.database_url)
    await lent.execute("CHECKPOINT")
    await lent.close()


async def open_them(place: Place, tally: Tally) -> None:
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
            held = _is_gone(path, token, answer.status, said) and not found(said)
            tally.note(held, f"a restored archive gives {path}: {answer.status}")
    await _ask_for_what_lives(place, service, tally)


def _is_gone(path: str, token: str, status: int, said: bytes) -> bool:
    """Whether this is what is said of what is gone, and not any failure."""
    if "version=original" in path and token != "privacy":
        return status == 403  # not theirs to ask, whatever there is
    if path.startswith("/v1/exports") and status == 200 and not path.endswith("/file"):
        shown = json.loads(said)  # who asked is told that there was one
        return (shown["stage"], shown["reason"]) == ("over", "")
    return status in (404, 410)


async def _ask_for_what_lives(place: Place, service: Service, tally: Tally) -> None:
    """What is not due is heard, and is what a list has."""
    answer = await service.get(f"/v1/recordings/{place.living}/audio")
    heard = await answer.read()
    right = answer.status == 200 and heard == talking()
    tally.note(right, f"a restored archive does not give what lives: {answer.status}")
    answer = await service.get("/v1/recordings?limit=200")
    said = await answer.json(content_type=None)
    shown = {each["id"] for each in said["items"]} if answer.status == 200 else set()
    right = place.living in shown and not shown & place.gone.keys()
    tally.note(right, f"a restored archive lists what is gone, or nothing: {answer.status}")


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
