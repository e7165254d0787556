"""Holding 1,000,000 objects against 1,000,000 rows, beside 100,000, and beside a bare walk.

The rows are those that searching is measured over; the objects are files without content, of the
length that each row says, laid into the store's folder before it starts. Each run is a process of
its own, which tells the peak of its memory. The walk lists the same objects in the same order, and
does nothing with them. Run as a program this is such a process: `python -m bench.reconcile run` or
`walk`, configured like a service.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import asyncpg
import uvloop

from app import config
from app.embedded import Embedded
from app.vault import opened
from bench import fill
from bench.report import Figure
from bench.stack import BUCKET, ROOT, Stack, peak
from storage.recordings import object_key
from storage.sealing import sealed_length
from storage.upkeep import reconcile
from storage.vault import Vault

LARGE = 1_000_000
"""Objects; the smaller archive has a tenth of them. `--objects` says another number."""

_PROCESSES = 2

Row = tuple[str, int]
"""An object's name and its length in bytes."""


async def measure(stack: Stack) -> list[Figure]:
    """Peak memory in MB, and objects a second."""
    small = LARGE // 10
    found: dict[int, dict[str, dict[str, float]]] = {}
    for count in (small, LARGE):
        name, database = await fill.year(stack, count, terms=False)
        async with _holding(stack, name, database) as servers:
            environment = {**os.environ, **stack.environment(name, database, servers)}
            # The first walk lets the store read its folders, which it then remembers for a while.
            runs = [await _process(environment, what) for what in ("walk", "walk", "run")]
        found[count] = {"walk": runs[1], "run": runs[2]}
        assert all(run["objects"] == count for run in runs), runs
        for what, run in zip(("first walk", "walk", "run"), runs, strict=True):
            print(f"  {what} of {count}: {run['took']:.0f} s, {run['peak']:.0f} MB", flush=True)
    ours, walked = found[LARGE]["run"], found[LARGE]["walk"]
    return [
        Figure.ratio_of(
            f"peak memory of reconciling {LARGE:,} / {small:,} objects",
            "MB",
            [ours["peak"]],
            [found[small]["run"]["peak"]],
            most=1.2,
            value_most=200,
        ),
        Figure.beside_limit(
            f"reconciling {LARGE:,} objects / listing them alone",
            "objects/s",
            [LARGE / ours["took"]],
            [LARGE / walked["took"]],
        ),
    ]


async def _process(environment: dict[str, str], what: str) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.reconcile", what),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("reconciling failed")
    found: dict[str, float] = json.loads(said)
    return found


@asynccontextmanager
async def _holding(stack: Stack, name: str, database: str) -> AsyncIterator[Embedded]:
    """A store of its own with the objects of all rows."""
    folder = stack.folder / f"store-{name}"
    began = time.perf_counter()
    await _lay_all(folder / "objects" / BUCKET, database)
    print(f"  objects of {name} laid in {time.perf_counter() - began:.0f} s", flush=True)
    async with Embedded(folder, want_postgres=False, want_s3=True) as servers:
        yield servers
    process = await asyncio.create_subprocess_exec("rm", "-rf", str(folder))
    await process.wait()


async def _lay_all(folder: Path, database: str) -> None:
    lent = await asyncpg.connect(database)
    rows = await lent.fetch(
        "SELECT expires_on, id, attempt, bytes, length(header) + length(details) AS head"
        " FROM recording WHERE state = 'stored' ORDER BY expires_on, id"
    )
    await lent.close()
    laid = [(object_key(*row[:3]), row["head"] + sealed_length(row["bytes"])) for row in rows]
    edges = [len(laid) * number // _PROCESSES for number in range(_PROCESSES + 1)]
    context = get_context("spawn")
    parts = [
        context.Process(target=_lay, args=(folder, laid[first:last]))
        for first, last in pairwise(edges)
    ]
    for part in parts:
        part.start()
    for part in parts:
        await asyncio.to_thread(part.join)
        if part.exitcode:
            raise RuntimeError("the objects could not be laid")


def _lay(folder: Path, laid: list[Row]) -> None:
    """Files with nothing in them, as long as they should be."""
    day = ""
    for name, length in laid:
        path = f"{folder}/{name}"
        parent = path.rpartition("/")[0]
        if parent.rpartition("/")[0] != day:
            day = parent.rpartition("/")[0]
            os.makedirs(day, mode=0o700, exist_ok=True)
        os.mkdir(parent, 0o700)
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(opened, length)
        os.close(opened)


async def _main(what: str) -> None:
    loaded = config.load(ROOT / "config.toml", os.environ)
    async with opened(loaded) as vault:
        began = time.perf_counter()
        count = await (_walk(vault) if what == "walk" else _run(vault))
        took = time.perf_counter() - began
    print(json.dumps({"objects": count, "took": took, "peak": peak(os.getpid())}))


async def _run(vault: Vault) -> int:
    report = await reconcile.run(vault, repair=False)
    assert not report.failed and report.objects == report.recordings, report.counts
    return report.objects


async def _walk(vault: Vault) -> int:
    count = 0
    for folder in await vault.objects.folders():
        async for _ in vault.objects.walk(folder):
            count += 1
    return count


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
