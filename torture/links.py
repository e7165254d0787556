"""Faults on the ways to the store and to the database, while calls come in, are heard and erased.

A relay stands before each. It cuts, delays, answers 503, breaks off in the middle, hangs, and holds
a PUT until after it was given up, when it lands nevertheless; it loses a statement before the
database hears of it, or its reply after it was done, or lets it land late. In the end everything is
compared as after the kills: nothing acknowledged is lost, and nothing half is kept.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from itertools import cycle, product
from typing import Any

from archive.errors import UnavailableError
from jobs import expiry
from storage import sweep, tree
from tests.services import Faulty, open_service, open_vault
from tests.stores.relay import Answer, Cut, Delay, Fault, Hang, Hold, Relay
from tests.web import database_relay
from tests.web.database_relay import DatabaseRelay
from torture import truth
from torture.load import Load
from torture.report import Limit, Row, Tally
from torture.room import Room

GOAL = 2000
_PATIENCE = 1.0
_SENDERS = 6

_REFUSED = Answer(503, body=b"<Error><Code>SlowDown</Code></Error>")

STORE: dict[str, tuple[str, Fault]] = {
    "503 to a PUT": ("PUT", _REFUSED),
    "500 to a PUT": ("PUT", Answer(500)),
    "PUT cut at once": ("PUT", Cut(up=0)),
    "PUT cut in the middle": ("PUT", Cut(up=300)),
    "PUT done and its answer lost": ("PUT", Cut(down=0)),
    "PUT that hangs": ("PUT", Hang()),
    "PUT that lands late": ("PUT", Hold()),
    "PUT delayed": ("PUT", Delay(0.3)),
    "503 to a GET": ("GET", _REFUSED),
    "GET cut at once": ("GET", Cut(down=0)),
    "GET cut in the middle": ("GET", Cut(down=400)),
    "GET that hangs": ("GET", Hang()),
    "503 to a removal": ("POST", _REFUSED),
    "removal done and its answer lost": ("POST", Cut(down=0)),
    "removal cut before": ("POST", Cut(up=0)),
}

STATEMENTS = {
    "commit": "SET state = 'stored'",
    "intent": "INSERT INTO recording",
    "giving up": "SET state = 'abandoned'",
    "claim": "SET state = 'erasing'",
    "tombstone": "SET state = 'erased'",
    "sequence": "INSERT INTO ledger SELECT",
}
FATES: tuple[database_relay.Fault, ...] = ("before", "after", "late")
_ALL = "all connections cut"
_KINDS = len(STORE) + len(STATEMENTS) * len(FATES) + 1
"""So many faults there are, with `_ALL`."""


async def measure(room: Room, limit: Limit, *, soon: float = 6) -> list[Row]:
    """Let faults befall a load, one after the other."""
    tally, befallen = Tally(), Counter[str]()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        folder = room.place()
        database = await enter(DatabaseRelay(await room.database()))
        relay = await enter(Relay.before(room.rclone.endpoint))
        store = await room.rclone.connect(endpoint=relay.url, patience=_PATIENCE)
        stack.push_async_callback(store.close)

        async def put(key: str, body: Any, length: int, md5: bytes, timeout: float) -> None:
            await store.put(key, body, length, md5, min(timeout, _PATIENCE))

        opened = await enter(open_vault(database.url, store, folder))
        quick: Any = Faulty(store, put=put)
        vault = replace(opened, objects=quick)
        service = await enter(open_service(vault))
        load = Load(service, lambda: [(service.ingest, service.retrieval)], soon)
        eraser = asyncio.create_task(_erase(load))
        async with load.running(_SENDERS):
            await asyncio.gather(
                *(
                    _torment(work, limit, tally, befallen)
                    for work in (
                        *(partial(_on_store, relay, *each) for each in _by_method()),
                        partial(_on_database, database, cycle(product(STATEMENTS, FATES))),
                        partial(_on_all, relay, database),
                    )
                )
            )
        await eraser
        landed = await _land_late(relay, load)
        rows = await truth.told(load, folder, 1)
    print(f"  {', '.join(f'{name}: {count}' for name, count in sorted(befallen.items()))}")
    return [
        Row.of("acknowledged is never lost", "faults of the links", tally, GOAL, "faults"),
        Row.of("", "kinds of fault that befell", Tally(len(befallen)), _KINDS, "kinds"),
        Row.of("", "PUTs that landed late", Tally(landed), 1, "PUTs"),
        *rows,
    ]


async def _torment(
    work: Callable[[], Awaitable[str]], limit: Limit, tally: Tally, befallen: Counter[str]
) -> None:
    while limit.allows(tally.tried):
        if name := await work():
            befallen[name] += 1
            tally.tried += 1


def _by_method() -> list[tuple[str, Iterator[str]]]:
    """The store's faults in turn, for each method by itself."""
    methods = sorted({method for method, _ in STORE.values()})
    return [(each, cycle([name for name in STORE if STORE[name][0] == each])) for each in methods]


async def _on_store(relay: Relay, method: str, names: Iterator[str]) -> str:
    """Let one fault befall the next request of a method, and wait for it; its name if it did."""
    name = next(names)
    relay.next(STORE[name][1], method=method)
    met = await _until(lambda: not relay.waiting(method))
    relay.forget(method)
    return name if met else ""


async def _on_database(
    database: DatabaseRelay, cases: Iterator[tuple[str, database_relay.Fault]]
) -> str:
    """The same for the next statement of a kind."""
    what, fate = next(cases)
    before = database.befallen
    database.next(STATEMENTS[what], fate)
    met = await _until(lambda: database.befallen > before)
    database.forget()
    return f"{what} lost, {fate}" if met else ""


async def _on_all(relay: Relay, database: DatabaseRelay) -> str:
    """Now and then cut every connection, and be away for a while."""
    await asyncio.sleep(random.uniform(0.5, 2))
    await asyncio.gather(database.cut(), relay.cut())
    database.away = True
    await asyncio.sleep(random.uniform(0, 0.3))
    database.away = False
    return _ALL


async def _until(met: Callable[[], bool]) -> bool:
    until = time.monotonic() + 1
    while not met():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.005)
    return True


async def _erase(load: Load) -> None:
    """What the running service does several times a second."""
    while not load.over:
        for work in (expiry.run, tree.sequence):
            try:
                await work(load.service.vault)
            except UnavailableError:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)


async def _land_late(relay: Relay, load: Load) -> int:
    """The first look after what was given up, then what was held lands, then the second look; how
    many the store took.
    """
    await load.service.end_leases()
    await sweep.run(load.service.vault)
    return (await relay.release()).count(200)
