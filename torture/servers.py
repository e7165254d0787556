"""kill -9 of the embedded database and the embedded store under load, with the settings of the
embedded default.

PostgreSQL syncs what it commits, as it does there; what is killed is its main process, or one that
serves a client, or rclone in the middle of a write. Whoever watches over them starts them again on
the same addresses, and the service, which lives on, goes on with them.
"""

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg

from app.child import leftovers, mark_of
from storage import schema
from storage.objects import ObjectStore
from tests.app import embedding
from tests.services import open_service, open_vault
from torture import truth
from torture.load import Load
from torture.report import Limit, Row, Tally
from torture.room import Room

GOAL = 50
_SENDERS = 6
_WAYS = (("store",), ("postgres",), ("backend",), ("postgres", "store"))


async def measure(room: Room, limit: Limit) -> list[Row]:
    """Kill the servers under a load, and compare."""
    tally, folder = Tally(), room.place()
    data = folder / "data"
    async with AsyncExitStack() as stack:
        running = await asyncio.to_thread(embedding.start, data)
        stack.callback(running.stop)
        lent = await asyncpg.connect(running.facts["database_url"])
        await schema.migrate(lent)
        await lent.close()
        facts = running.facts
        store = await ObjectStore.connect(
            facts["endpoint"], "torture", facts["access_key"], facts["secret_key"], patience=3
        )
        stack.push_async_callback(store.close)
        vault = await stack.enter_async_context(
            open_vault(facts["database_url"], store, folder / "archive")
        )
        service = await stack.enter_async_context(open_service(vault))
        load = Load(service, lambda: [(service.ingest, service.retrieval)])
        async with load.running(_SENDERS):
            while limit.allows(tally.tried):
                await _kill(running, random.choice(_WAYS), load, tally)
        rows = await truth.told(load, folder, 1)
    kills = Row.of(
        "acknowledged is never lost", "kill -9 of PostgreSQL, rclone", tally, GOAL, "kills"
    )
    return [kills, *rows]


async def _kill(
    running: embedding.Running, names: tuple[str, ...], load: Load, tally: Tally
) -> None:
    """Kill, once there is something to kill, and wait until calls are acknowledged again: more than
    may have had their answer under way.
    """
    await asyncio.sleep(random.uniform(0, 0.5))
    try:
        async with asyncio.timeout(60):
            for name in names:
                while not _struck(_living(running.data_dir, name)):
                    await asyncio.sleep(0.02)
            before = load.acknowledged
            while load.acknowledged <= before + _SENDERS:
                await asyncio.sleep(0.02)
        tally.note(True, "")
    except TimeoutError:
        tally.note(False, f"after the end of {names} nothing was acknowledged for a minute")


def _struck(pids: list[int]) -> int:
    """Kill them; how many were there."""
    struck = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            struck += 1
    return struck


def _living(data: Path, name: str) -> list[int]:
    """The processes of a server as they are now: each start has new ones."""
    if name == "backend":
        return embedding.backends(data)[:1]
    if name == "store":
        return leftovers(mark_of(data / "objects"))
    found = []
    for pid in leftovers(mark_of(data / "postgres")):
        with suppress(OSError):
            if b"cluster_name=" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
