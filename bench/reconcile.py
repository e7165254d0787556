"""Holding 1,000,000 objects against 1,000,000 rows, beside 100,000, and beside a bare walk.

The rows are those that searching is measured over; the objects are files without content, of the
length that each row says, laid into the store's folder before it starts. Each run is a process of
its own, which tells the peak of its memory. The walk lists the same objects in the same order, and
does nothing with them. Run as a program this is such a process: `python -m bench.reconcile run` or
`walk`, configured like a service.

The first walk lets the store read its folders, each of which it remembers for five minutes. Where
the three take longer in all, the second walk or the run may have read some of them anew: then that
is printed, since their speeds say less. The peaks of memory say as much.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from pathlib import Path

import asyncpg
import uvloop

from app import config
from app.embedded import Embedded
from app.vault import opened
from bench import fill
from bench.report import Figure
from bench.stack import ROOT, Stack, bucket, peak
from storage.recordings import object_key
from storage.sealing import sealed_length
from storage.upkeep import reconcile
from storage.upkeep.comparison import OURS
from storage.vault import Vault

LARGE = 1_000_000
"""Objects; the smaller archive has a tenth of them. `--objects` says another number."""

_PROCESSES = 2
_REMEMBERED = 300.0
"""Seconds for which the store remembers what it read of a folder."""


async def measure(stack: Stack) -> list[Figure]:
    """Peak memory in MB, and objects a second."""
    small = LARGE // 10
    found: dict[int, dict[str, dict[str, float]]] = {}
    for count in (small, LARGE):
        name, database = await fill.year(stack, count, terms=False)
        async with _holding(stack, name, database) as (servers, laid):
            environment = {**os.environ, **stack.environment(name, database, servers)}
            began = time.perf_counter()
            runs = [await _process(environment, what) for what in ("walk", "walk", "run")]
            took = time.perf_counter() - began
        found[count] = {"walk": runs[1], "run": runs[2]}
        assert laid >= count and all(run["objects"] == laid for run in runs), (laid, runs)
        for what, run in zip(("first walk", "walk", "run"), runs, strict=True):
            print(f"  {what} of {laid}: {run['took']:.0f} s, {run['peak']:.0f} MB", flush=True)
        if took > _REMEMBERED:
            print("  the store may have read some of its folders more than once", flush=True)
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
            [ours["objects"] / ours["took"]],
            [walked["objects"] / walked["took"]],
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
async def _holding(stack: Stack, name: str, database: str) -> AsyncIterator[tuple[Embedded, int]]:
    """A store of its own with the objects of all rows, and how many these are: in a run of all
    figures `pages` has uploaded some more.
    """
    folder = stack.folder / f"store-{name}"
    began = time.perf_counter()
    laid = await _lay_all(folder / "objects" / bucket(name), database)
    print(f"  objects of {name} laid in {time.perf_counter() - began:.0f} s", flush=True)
    async with Embedded(folder, want_postgres=False, want_s3=True) as servers:
        yield servers, laid
    process = await asyncio.create_subprocess_exec("rm", "-rf", str(folder))
    await process.wait()


async def _lay_all(folder: Path, database: str) -> int:
    """Lay the objects of all rows; how many they are."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(_PROCESSES, get_context("spawn")) as pool:
        parts = [
            loop.run_in_executor(pool, _lay, folder, database, part) for part in range(_PROCESSES)
        ]
        return sum(await asyncio.gather(*parts))


def _lay(folder: Path, database: str, part: int) -> int:
    return asyncio.run(_lay_part(folder, database, part))


async def _lay_part(folder: Path, database: str, part: int) -> int:
    """Files with nothing in them, as long as they should be: those of one day in `_PROCESSES`."""
    count, lent = 0, await asyncpg.connect(database)
    async with lent.transaction():
        async for row in lent.cursor(
            "SELECT expires_on, id, attempt, bytes, length(header) + length(details) AS head"
            " FROM recording WHERE state = 'stored' AND (expires_on - date '2000-01-01') % $1 = $2"
            " ORDER BY expires_on, id",
            _PROCESSES,
            part,
            prefetch=1000,
        ):
            path = f"{folder}/{object_key(row['expires_on'], row['id'], row['attempt'])}"
            os.makedirs(os.path.dirname(path), mode=0o700)
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(opened, row["head"] + sealed_length(row["bytes"]))
            os.close(opened)
            count += 1
    await lent.close()
    return count


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
        if folder not in OURS:
            async for _ in vault.objects.walk(folder):
                count += 1
    return count


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
