"""Erasing 10,000 due recordings, beside removing as many objects of the same names alone.

What is timed for the archive is what the running service does: claim, remove, read back, finish
(tombstones, terms, ledger) and report, until each entry has its place on the ledger. Beside it
stand the bare DeleteObjects requests, sent by the archive's own client in batches of 1000, four at
a time; and `rclone delete` through its S3 backend.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg

from app.embedded import Embedded
from app.embedded_rclone import find_program
from app.vault import opened_parts
from bench import fill
from bench.report import Figure
from bench.stack import BUCKET, Stack, bucket, connect, keys
from bench.uploads import alternate
from jobs import expiry
from storage import tree
from storage.holdings import Holding
from storage.objects import ObjectStore
from storage.recordings import object_key

COUNT = 10_000
ROUNDS = 3
SIZE = 4096
NAME = "erasure"


async def measure(stack: Stack) -> list[Figure]:
    """Recordings erased a second."""
    database = await stack.database(NAME)
    meter = stack.client.meter
    meter.watch("bench", os.getpid())

    async def here() -> float:
        named = await _make_due(stack, database)
        async with (
            _holding(stack, named, bucket(NAME)) as (servers, _),
            opened_parts(stack.config(NAME, database, servers), ["jobs"]) as parts,
        ):
            vault = parts["jobs"]
            began = time.perf_counter()
            with meter.during("archive", COUNT):
                report = await expiry.run(vault)
                await tree.sequence(vault)
            took = time.perf_counter() - began
        assert (report.erased, report.failed, report.stopped) == (COUNT, 0, "")
        return COUNT / took

    async def bare() -> float:
        return await deleted(stack)

    async def by_rclone() -> float:
        async with _holding(stack, keys(COUNT, "2000-01-02")) as (servers, store):
            began = time.perf_counter()
            with meter.during("rclone delete", COUNT):
                await _rclone_delete(servers)
            took = time.perf_counter() - began
            assert not await store.holdings("")
        return COUNT / took

    ours, alone, others = await alternate(ROUNDS, here, bare, by_rclone)
    meter.forget("bench")
    what = "erasing 10,000 due recordings"
    return [
        Figure.ratio_of(f"{what} / DeleteObjects alone", "recordings/s", ours, alone, least=0.4),
        Figure.ratio_of(f"{what} / rclone delete", "recordings/s", ours, others, least=4),
    ]


async def deleted(stack: Stack) -> float:
    """Objects a second that bare DeleteObjects requests remove."""
    named = keys(COUNT, "2000-01-01")
    async with _holding(stack, named) as (_, store):
        began = time.perf_counter()
        with stack.client.meter.during("DeleteObjects", COUNT):
            refused = await store.remove([Holding(key, "object") for key in named])
        took = time.perf_counter() - began
    assert not refused
    return COUNT / took


@asynccontextmanager
async def _holding(
    stack: Stack, named: list[str], where: str = BUCKET
) -> AsyncIterator[tuple[Embedded, ObjectStore]]:
    """A store of its own that holds these objects in this bucket, which it has listed once.

    They are laid into its folder before it starts, which is quicker than to put them.
    """
    folder = stack.folder / f"store-{uuid4()}"
    await asyncio.to_thread(_lay, folder / "objects" / where, named)
    async with Embedded(folder, want_postgres=False, want_s3=True) as servers:
        stack.client.meter.watch("store", servers.store.pid if servers.store else None)
        store = await connect(servers, where)
        assert len(await store.holdings("")) == len(named)
        try:
            yield servers, store
        finally:
            await store.close()
    await asyncio.to_thread(shutil.rmtree, folder)


def _lay(folder: Path, named: list[str]) -> None:
    body = os.urandom(SIZE)
    for name in named:
        file = folder / name
        file.parent.mkdir(mode=0o700, parents=True)
        file.write_bytes(body)


async def _make_due(stack: Stack, database: str) -> list[str]:
    """Recordings whose year ended today; the names of their objects."""
    now = datetime.now(UTC)
    zone = stack.config(NAME, database).retention.zone
    midnight = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    await fill.fill(stack, NAME, database, COUNT, year_before(midnight), year_before(now))
    await fill.tell(stack, NAME, database)
    lent = await asyncpg.connect(database)
    rows = await lent.fetch("SELECT expires_on, id, attempt FROM recording WHERE state = 'stored'")
    await lent.close()
    assert len(rows) == COUNT
    return [object_key(*row) for row in rows]


def year_before(moment: datetime) -> datetime:
    """So that a call that starts then is due at that moment, or on 28 February a day before."""
    try:
        return moment.replace(year=moment.year - 1)
    except ValueError:
        return (moment - timedelta(days=1)).replace(year=moment.year - 1)


async def _rclone_delete(servers: Embedded) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Rclone",
        "RCLONE_CONFIG_BENCH_ENDPOINT": servers.endpoint or "",
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": servers.access_key or "",
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": servers.secret_key or "",
    }
    process = await asyncio.create_subprocess_exec(
        *(str(find_program()), "delete", "--quiet", f"bench:{BUCKET}"), env=environment
    )
    if await process.wait():
        raise RuntimeError("rclone delete failed")
