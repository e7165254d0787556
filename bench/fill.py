"""Rows of an archive that has been in use for a year, written straight into the database.

Headers, details and keyed hashes are real: made by the functions that an upload goes through, under
the day keys of the ring. Only their audio was never there. Run as a program this is one of the
processes that fill: `python -m bench.fill` with a part (JSON) as its argument.
"""

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from uuid import uuid4

import asyncpg

from app import config
from app.vault import open_ring, opened
from archive.recording import Audio, Call, CallType, Direction, Recording
from archive.retention import Policy
from bench.stack import ROOT, Stack
from jobs import nightly
from storage import frozen, intake, recordings, tree
from storage.database import now, open_pool
from storage.keyring import Ring
from storage.sealing import Identity, Seal

_BATCH = 5000
_PROCESSES = 2

COLUMNS = (
    *("id", "source", "call_type", "expires_on", "state", "attempt", "call_hash", "digest"),
    *("started_at", "expires_at", "rule", "received_at", "direction", "duration", "bytes"),
    *("channels", "sample_rate", "codec", "container", "flaws", "header", "details"),
    "verified_at",
)
TERMS = ("expires_on", "hash", "started_at", "recording")

TYPES = list(CallType)
_TYPE_WEIGHTS = (600, 150, 200, 40, 10)
_DIRECTION_WEIGHTS = (800, 199, 1)
SOURCES = ("pbx-1", "pbx-2", "pbx-3")
_SOURCE_WEIGHTS = (900, 99, 1)
QUEUES, AGENTS, LINES = 10, 200, 5
_QUEUE_WEIGHTS = [1 / (1 + number) for number in range(QUEUES)]
_AGENT_WEIGHTS = [1 / (10 + number) for number in range(AGENTS)]
CALLS_A_CUSTOMER = 5


@dataclass(frozen=True, slots=True)
class Part:
    """Calls number `first` to `last` (exclusive) of `count`, which start between two instants.

    Without `terms` they cannot be searched for.
    """

    first: int
    last: int
    count: int
    begin: str
    end: str
    seed: int
    terms: bool


def number_of(customer: int) -> str:
    """The telephone number of a customer."""
    return f"+35840{customer * 7919 % 10_000_000:07}"


def line_of(line: int) -> str:
    """One of the company's own numbers."""
    return f"+35891234{line:03}"


def call_id_of(number: int) -> str:
    """What the source calls its call of this number."""
    return f"{number:08}.bench"


def _recordings(part: Part, policy: Policy) -> Iterator[Recording]:
    """The calls of a part, oldest first, as an upload would describe and measure them."""
    dice = random.Random(f"{part.seed} {part.first}")
    begin, end = datetime.fromisoformat(part.begin), datetime.fromisoformat(part.end)
    step = (end - begin) / part.count
    customers = part.count // CALLS_A_CUSTOMER
    for number in range(part.first, part.last):
        started_at = begin + step * number
        customer = dice.randrange(customers)
        kind = dice.choices(TYPES, _TYPE_WEIGHTS)[0]
        duration = round(min(dice.lognormvariate(5, 1), 4 * 3600.0), 3)
        call = Call(
            call_id_of(number),
            kind,
            started_at,
            policy.expiry(kind, started_at),
            dice.choices(list(Direction), _DIRECTION_WEIGHTS)[0],
            caller=number_of(customer),
            callee=line_of(dice.randrange(LINES)),
            agent=f"agent-{dice.choices(range(AGENTS), _AGENT_WEIGHTS)[0]}",
            queue=f"queue-{dice.choices(range(QUEUES), _QUEUE_WEIGHTS)[0]}",
            customer=f"customer-{customer}",
            contract=f"contract-{customer}" if customer % 5 < 3 else None,
        )
        # Small, since rclone reads all of an object before it first shows it in a list.
        size, digest = 44 + int(duration), dice.randbytes(32).hex()
        audio = Audio(size, digest, duration, 1, 8000, "pcm_s16le", "wav")
        received_at = started_at + timedelta(seconds=duration + 1)
        source = dice.choices(SOURCES, _SOURCE_WEIGHTS)[0]
        yield Recording(intake.uuid7(received_at), source, received_at, call, audio)


def _row(ring: Ring, recording: Recording) -> tuple[tuple[object, ...], list[int]]:
    """The row of a recording and its terms, as `storage.attempts` makes them."""
    call, audio = recording.call, recording.audio
    seal = Seal.new(Identity(call.expiry.on, recording.id, uuid4()))
    details = seal.seal_details(recordings.to_details(recording))
    header = seal.header(ring.day_key(call.expiry.on), len(details))
    row: tuple[object, ...] = (
        recording.id,
        recording.source,
        str(call.call_type),
        call.expiry.on,
        "stored",
        seal.identity.attempt,
        recordings.call_hash(ring, recording.source, call.call_id),
        recordings.digest_hash(ring, bytes.fromhex(audio.sha256)),
        call.started_at,
        call.expiry.at,
        call.expiry.rule,
        recording.received_at,
        str(call.direction),
        audio.duration,
        audio.bytes,
        audio.channels,
        audio.sample_rate,
        audio.codec,
        audio.container,
        [],
        header,
        details,
        datetime.now(UTC),  # there is no audio that could be read back
    )
    return row, recordings.terms(ring, call)


async def _write(url: str, ring: Ring, policy: Policy, part: Part) -> None:
    lent = await asyncpg.connect(url)
    rows: list[tuple[object, ...]] = []
    terms: list[tuple[object, ...]] = []
    filed: set[tuple[date, date]] = set()
    for recording in _recordings(part, policy):
        row, hashes = _row(ring, recording)
        rows.append(row)
        call = recording.call
        if part.terms:
            terms += [(call.expiry.on, term, call.started_at, recording.id) for term in hashes]
        filed.add((call.started_at.astimezone(UTC).date(), call.expiry.on))
        if len(rows) == _BATCH:
            await _copy(lent, rows, terms)
            rows, terms = [], []
    await _copy(lent, rows, terms)
    await lent.executemany(
        "INSERT INTO filed VALUES ($1, $2) ON CONFLICT DO NOTHING", sorted(filed)
    )
    await lent.close()


async def _copy(
    lent: "asyncpg.Connection[asyncpg.Record]",
    rows: Sequence[tuple[object, ...]],
    terms: Sequence[tuple[object, ...]],
) -> None:
    await lent.copy_records_to_table("recording", records=rows, columns=COLUMNS)
    await lent.copy_records_to_table("term", records=terms, columns=TERMS)


async def year(stack: Stack, count: int, *, terms: bool = True) -> tuple[str, str]:
    """An archive of `count` calls of the last year, filled when it is first asked for. Without
    `terms` it may be one that cannot be searched, which takes a third of the time.

    Returns its name and its database.
    """
    name = f"archive_{count}"
    if not terms and name not in stack.filled:
        name = f"rows_{count}"
    if name not in stack.filled:
        began, now = time.perf_counter(), datetime.now(UTC)
        database = await stack.database(name)
        first, last = now - timedelta(days=364), now - timedelta(hours=1)
        await fill(stack, name, database, count, first, last, terms=terms)
        stack.filled[name] = database
        print(f"  {count} recordings filled in {time.perf_counter() - began:.0f} s", flush=True)
    return name, stack.filled[name]


async def fill(
    stack: Stack,
    name: str,
    database: str,
    count: int,
    begin: datetime,
    end: datetime,
    *,
    terms: bool = True,
) -> None:
    """Fill the archive of the service `name` with `count` calls that start between two instants.

    Its ring is made if it is not there, so the service need not run, but may. A night is written
    down as done: a service that starts would make it up, and find all these objects lost.
    """
    async with opened(stack.config(name, database)) as vault:
        await asyncio.to_thread(nightly.make_keys, vault, await now(vault.pool))
    edges = [count * number // _PROCESSES for number in range(_PROCESSES + 1)]
    span = begin.isoformat(), end.isoformat()
    parts = [
        Part(first, last, count, *span, random.randrange(2**32), terms)
        for first, last in itertools.pairwise(edges)
    ]
    environment = {**os.environ, **stack.environment(name, database)}
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.fill", json.dumps(asdict(part))),
            cwd=ROOT,
            env=environment,
        )
        for part in parts
    ]
    statuses = [await process.wait() for process in processes]
    if any(statuses):
        raise RuntimeError("the database could not be filled")
    lent = await asyncpg.connect(database)
    await lent.execute("INSERT INTO night (ran_at, report) VALUES (archive_now(), '{}')")
    await lent.execute("VACUUM (ANALYZE)")
    await lent.execute("CHECKPOINT")
    await lent.close()


async def tell(stack: Stack, name: str, database: str) -> None:
    """Let the ledger know of what was filled in, and the archive of when it is due, as if it had
    been stored in the course of the year: without that the fuse lets nothing be erased.
    """
    lent = await asyncpg.connect(database)
    await lent.execute(
        "INSERT INTO ledger_waiting (at, actor, act, recording, facts)"
        " SELECT received_at, 'bench', 'stored', id, jsonb_build_object('rule', rule,"
        " 'day', to_char(expires_on, 'YYYY-MM-DD'), 'due',"
        """ to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))"""
        " FROM recording r WHERE state = 'stored'"
        " AND NOT EXISTS (SELECT FROM told WHERE told.recording = r.id AND act = 'stored')"
    )
    async with opened(stack.config(name, database)) as vault:
        await tree.sequence(vault)
        await _turn(lent, "clock_timestamp() - interval '2 days'")
        await frozen.freeze(vault)
        await _turn(lent, "clock_timestamp()")
        await tree.sequence(vault)
    await lent.close()


async def _turn(lent: "asyncpg.Connection[asyncpg.Record]", now: str) -> None:
    await lent.execute(
        "CREATE OR REPLACE FUNCTION archive_now() RETURNS timestamptz LANGUAGE sql VOLATILE"
        f" AS $$SELECT {now}$$"
    )


async def _main(part: Part) -> None:
    loaded = config.load(ROOT / "config.toml", os.environ)
    policy = loaded.retention
    pool = await open_pool(loaded.database.url, size=1)
    ring = await open_ring(loaded, pool, policy)
    await pool.close()
    # The same keys and hashes come back again and again; the ring looks at its file each time.
    for name in ("day_key", "index_key", "lookup_key"):
        setattr(ring, name, lru_cache(maxsize=None)(getattr(ring, name)))
    setattr(recordings, "term", lru_cache(maxsize=1 << 17)(recordings.term))  # noqa: B010
    await _write(loaded.database.url, ring, policy, part)


if __name__ == "__main__":
    asyncio.run(_main(Part(**json.loads(sys.argv[1]))))
