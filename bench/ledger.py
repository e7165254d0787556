"""Entries of the ledger from 16 writers at once, beside the same inserts into a plain table.

Each writer commits one entry after the other, as an act that is told of does, by the login of the
door that hands recordings out. Meanwhile one sequencer gives them their places by its own, once a
second like the running service, and the time ends when the last entry has its own. Beside it stands
what the database does when it is only written to. Run as a program this is one of the processes
that write: `python -m bench.ledger` with a job (JSON).
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from itertools import islice
from uuid import UUID, uuid4

import uvloop

from app.vault import opened, opened_parts
from bench.report import Figure
from bench.stack import ROOT, Stack
from bench.uploads import alternate
from storage import ledger, tree
from storage.database import Connection, connection, open_pool
from storage.vault import Vault

COUNT = 384_000
"""So many that the second in which the last of them wait for their places counts for little."""

WRITERS = 16
PROCESSES = 2
ROUNDS = 3
PAUSE = 1.0
"""Seconds between two looks of the sequencer, as in `jobs.schedule`."""

NAME = "entries"
FACTS = {"format": "original", "range": "bytes=0-"}


@dataclass(frozen=True, slots=True)
class Job:
    """So many entries by so many writers; `plain` into the table beside."""

    url: str
    count: int
    writers: int
    plain: bool


async def measure(stack: Stack) -> list[Figure]:
    """Entries a second that are committed and have their place."""
    database = await stack.database(NAME)
    meter = stack.client.meter
    config = stack.config(NAME, database)
    login = stack.login("retrieval", database)
    async with opened(config) as vault, connection(vault.pool) as lent:
        # The same columns and defaults, with no index and no check.
        columns = "LIKE ledger_waiting INCLUDING DEFAULTS INCLUDING IDENTITY"
        await lent.execute(f"CREATE TABLE plain ({columns})")
        await lent.execute("GRANT INSERT ON plain TO PUBLIC")
    async with opened_parts(config, ["jobs"]) as parts:

        async def here() -> float:
            with meter.during("archive", COUNT):
                return await _written(login, plain=False, then=lambda: _sequenced(parts["jobs"]))

        async def beside() -> float:
            with meter.during("plain table", COUNT):
                return await _written(login, plain=True, then=_nothing)

        ours, plain = await alternate(ROUNDS, here, beside)
    what = f"ledger entries by {WRITERS} writers, all with their place / plain inserts"
    return [Figure.beside_limit(what, "entries/s", ours, plain, value_least=10_000)]


async def _written(login: str, *, plain: bool, then: Callable[[], Awaitable[None]]) -> float:
    """Entries a second: all are written, while `then` runs to its end."""
    job = Job(login, COUNT // PROCESSES, WRITERS // PROCESSES, plain)
    processes = [await _ready(job) for _ in range(PROCESSES)]
    began = time.perf_counter()
    for process in processes:
        assert process.stdin
        process.stdin.write(b"go\n")
    statuses = asyncio.gather(*[process.wait() for process in processes])
    await asyncio.gather(statuses, then())
    if any(statuses.result()):
        raise RuntimeError("the entries could not be written")
    return COUNT / (time.perf_counter() - began)


async def _ready(job: Job) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.ledger", json.dumps(asdict(job))),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    if await process.stdout.readline() != b"ready\n":
        raise RuntimeError("a process that writes did not start")
    return process


async def _sequenced(vault: Vault) -> None:
    """What the service does each second, until every entry has its place."""
    async with connection(vault.pool) as lent:
        wanted = await tree.size(lent) + COUNT
    given = wanted - COUNT
    while given < wanted:
        woke = time.perf_counter()
        await tree.agree(vault)
        given += await tree.sequence(vault)
        await asyncio.sleep(max(0.0, woke + PAUSE - time.perf_counter()) if given < wanted else 0)


async def _nothing() -> None:
    """Nobody gives places in a plain table."""


async def _write(job: Job) -> None:
    pool = await open_pool(job.url, job.writers)
    lent = [await pool.acquire() for _ in range(job.writers)]
    add = _plain if job.plain else _entry
    # Before the start: an act tells of a recording that is there.
    recordings = iter([uuid4() for _ in range(job.count)])
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    async def writer(connected: Connection) -> None:
        for recording in islice(recordings, job.count // job.writers):
            await add(connected, recording)

    await asyncio.gather(*map(writer, lent))


async def _entry(lent: Connection, recording: UUID) -> None:
    await ledger.record(lent, "k-0123456789ab", "listened", recording=recording, facts=FACTS)


async def _plain(lent: Connection, recording: UUID) -> None:
    await lent.execute(
        "INSERT INTO plain (actor, act, recording, facts, ends_on, details)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        *("k-0123456789ab", "listened", recording, FACTS, None, None),
    )


if __name__ == "__main__":
    uvloop.run(_write(Job(**json.loads(sys.argv[1]))))
