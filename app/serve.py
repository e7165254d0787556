"""Starting and stopping: the embedded servers, the vaults, the three doors and the jobs, in this
order; all of it in one process, or in several that have a part each.

What was started is stopped in the opposite order, whatever happens in between. SIGTERM finishes
what is in flight.
"""

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

from aiohttp import web

from app import landings, listening
from app.config import Config
from app.listening import Listener
from app.vault import opened_parts
from archive.errors import UnavailableError
from jobs import nightly
from jobs.fetching import Fetching
from jobs.schedule import Schedule, watch
from storage import database
from storage.audio.pool import AudioPool
from storage.provider import Provider
from storage.signer import RewrittenError
from storage.vault import Vault
from web import doors, hooks, ingest, operations, retrieval, telephony, uploads
from web.doors import OpenRoute, Route
from web.sign_in_pages import SIGN_IN, SignIn

log = logging.getLogger("archive")

IN_FLIGHT = 30.0
"""Seconds that requests in flight are given to finish after SIGTERM."""

CUT = 2.0
"""Seconds that those are given to end which did not."""

DOORS = ("ingest", "retrieval", "operations")
PARTS = (*DOORS, "jobs")
"""What `archive serve` runs, all of it or some; each part has its own role in the database."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the three doors are, as URLs; "" for one that another process has."""

    ingest: str
    retrieval: str
    operations: str


@asynccontextmanager
async def running(
    config: Config, parts: Sequence[str] = PARTS
) -> AsyncIterator[tuple[Addresses, asyncio.Event]]:
    """The service, or parts of it, until the context is left: doors that answer, jobs that run.

    The event tells that the database is not the one any more that was served.
    """
    async with opened_parts(config, parts) as vaults, AsyncExitStack() as stack:
        if jobs := vaults.get("jobs"):
            await asyncio.to_thread(nightly.make_keys, jobs, await database.now(jobs.pool))
        if hears := vaults.get("ingest") or vaults.get("retrieval"):
            await _tell_of_the_sandbox(hears.probes)
        addresses, runners = await _open_doors(config, vaults, stack)
        if takes := vaults.get("ingest"):
            fetching = Fetching(takes, config.webhooks)
            fetching.start()
            stack.push_async_callback(fetching.stop)
            await landings.start(config, takes, stack)
        if jobs:
            schedule = Schedule(jobs, config.jobs.nightly)
            await schedule.start()
            stack.push_async_callback(_end, runners, schedule)
            yield addresses, schedule.rewritten
        else:
            rewritten = asyncio.Event()
            watching = asyncio.create_task(watch(next(iter(vaults.values())), rewritten))
            stack.callback(watching.cancel)
            stack.push_async_callback(doors.finish, runners, IN_FLIGHT)
            yield addresses, rewritten


async def _end(runners: Sequence[web.AppRunner], schedule: Schedule) -> None:
    """Close the doors and stop the jobs, at once: neither waits for the other."""
    await asyncio.gather(doors.finish(runners, IN_FLIGHT), schedule.stop())


async def _tell_of_the_sandbox(workers: AudioPool) -> None:
    try:
        sandbox = await workers.sandbox()
    except UnavailableError as error:
        log.warning("audio: %s Nothing can be taken in.", error.detail)
        return
    log.log(logging.WARNING if sandbox.missing else logging.INFO, "audio: %s", sandbox)


async def _open_doors(
    config: Config, vaults: Mapping[str, Vault], stack: AsyncExitStack
) -> tuple[Addresses, list[web.AppRunner]]:
    asked = config.doors
    shown = {name: listening.shown(name, asked.named[name]) for name in DOORS if name in vaults}
    told = [each for each in shown.values() if each]
    listeners: list[Listener] = []
    provider = Provider(config.sign_in.terms) if config.sign_in.terms else None
    ways = SignIn(config.sign_in.limits, config.sign_in.local, provider)
    if provider:
        stack.push_async_callback(provider.close)

    async def open_one(name: str, public: str, routes: list[Route | OpenRoute]) -> str:
        if name not in vaults:
            return ""
        app = doors.build(vaults[name], public, routes, told, asked.bears)
        app[SIGN_IN] = ways
        runner = doors.runner(app, CUT)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listeners.append(Listener(runner, asked.named[name], shown[name]))
        return await listeners[-1].start(stack)

    retrieval_url = await open_one("retrieval", asked.retrieval_url, retrieval.routes())
    public = asked.retrieval_url or retrieval_url or asked.retrieval.url
    ways_in = [*ingest.routes(), *telephony.routes(config.mappings), *uploads.routes()]
    ways_in += hooks.routes(config.webhooks)
    ingest_url = await open_one("ingest", public, ways_in)
    operations_url = await open_one("operations", public, operations.routes())
    stack.callback(asyncio.create_task(listening.renew(listeners)).cancel)
    runners = [listener.runner for listener in listeners]
    return Addresses(ingest_url, retrieval_url, operations_url), runners


def tell(addresses: Addresses, *, as_json: bool) -> None:
    """Say where the doors are, and so that they are open: as JSON that is one line, and all."""
    told = {name: url for name, url in asdict(addresses).items() if url}
    if as_json:
        print(json.dumps(told), flush=True)
        return
    print(*(f"{name:<11} {url}\n" for name, url in told.items()), sep="", end="")
    print("ready", flush=True)


async def serve(
    config: Config,
    parts: Sequence[str],
    then: Callable[[Addresses], Awaitable[None]],
    *,
    as_json: bool = False,
) -> None:
    """Run these parts until SIGTERM or SIGINT; `then` is done once the doors are open.

    Raises RewrittenError, after everything was stopped, when the database was put back meanwhile.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(config, parts) as (addresses, rewritten):
        tell(addresses, as_json=as_json)
        await then(addresses)
        await _first(stop, rewritten)
        log.info("stopping: finishing what is in flight")
    if rewritten.is_set():
        raise RewrittenError("stopped: the database is not the one any more that it served")


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
