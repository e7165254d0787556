"""Starting and stopping: the embedded servers, the vault, the jobs and the three doors, in this
order.

What was started is stopped in the opposite order, whatever happens in between. SIGTERM finishes
what is in flight.
"""

import asyncio
import logging
import resource
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from app import listening
from app.config import Config, ConfigError
from app.embedded import Embedded
from app.listening import Listener
from archive import residency
from archive.errors import UnavailableError
from archive.retention import Policy
from jobs import nightly
from jobs.schedule import Schedule
from storage import clocks, database, published, tree
from storage.audio.pool import AudioPool
from storage.database import Pool, connection
from storage.keyring import KeyRingError, Ring
from storage.objects import ObjectStore
from storage.policy import standing
from storage.provider import Provider
from storage.shelf import Shelf
from storage.signer import RewrittenError, Signer
from storage.vault import Limits, Vault
from web import doors, ingest, operations, retrieval, telephony, uploads
from web.doors import OpenRoute, Route
from web.sign_in_pages import SIGN_IN, SignIn

log = logging.getLogger("archive")

IN_FLIGHT = 30.0
"""Seconds that requests in flight are given to finish after SIGTERM."""

CUT = 2.0
"""Seconds that those are given to end which did not."""

PROBES = 2
PLAYERS = 8


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the three doors are, as URLs."""

    ingest: str
    retrieval: str
    operations: str


@asynccontextmanager
async def opened(
    config: Config, *, join: bool = False, whole: bool = True, patience: float = database.PATIENCE
) -> AsyncIterator[Vault]:
    """The vault, with the embedded servers if the configuration asks for them.

    `join`: a command may use the servers of a service that runs on the same `data_dir`. `whole`:
    raise RewrittenError when the database is an old one that was put back, or was rewritten.
    `patience`: seconds that a statement may take.
    """
    # A core dump would put the keys that the memory holds on a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Each connection and each body needs a file, and shells allow 1024 unless they are asked.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(
            Embedded(
                config.server.data_dir,
                want_postgres=config.database.embedded,
                want_s3=config.objects.embedded,
                join=join,
            )
        )
        pool = await database.open_pool(
            servers.database_url or config.database.url, patience=patience
        )
        stack.push_async_callback(pool.close)
        async with connection(pool) as lent:
            await database.migrate(lent)
        objects = await open_store(config, servers)
        stack.push_async_callback(objects.close)
        await check_residency(config, objects)
        vault = await _vault(config, pool, objects)
        stack.push_async_callback(vault.probes.close)
        stack.push_async_callback(vault.players.close)
        if whole:
            await published.own(vault)
            await tree.agree_wholly(vault)
        yield vault


async def _vault(config: Config, pool: Pool, objects: ObjectStore) -> Vault:
    """What the verbs need, over a database and a store that are open."""
    policy = await _in_force(config, pool)
    ring = await open_ring(config, pool, policy)
    signer = await open_signer(config, pool, ring)
    spool = config.server.data_dir / "spool"
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    intake = config.intake
    return Vault(
        pool,
        objects,
        ring,
        signer,
        AudioPool(PROBES),
        AudioPool(PLAYERS),
        policy,
        Limits(
            intake.max_bytes,
            intake.max_duration,
            intake.allowed_formats,
            intake.max_concurrent,
            intake.expected_within,
        ),
        spool,
        Counter(),
        Shelf(config.server.data_dir / "uploads"),
        config.access.listening,
    )


async def _in_force(config: Config, pool: Pool) -> Policy:
    """The periods that new recordings are kept for; others that are wanted wait for two people."""
    async with connection(pool) as lent:
        found = await standing(lent, config.retention.policy)
    if found.waits:
        log.warning(
            "[retention] wants other periods than are in force: until two people have run"
            " `archive retention change`, recordings are taken in under the earlier ones"
        )
    return found.policy


async def open_store(config: Config, servers: Embedded) -> ObjectStore:
    """Connect to the embedded store or to the one that is configured."""
    objects = config.objects
    return await ObjectStore.connect(
        servers.endpoint or objects.endpoint,
        objects.bucket,
        servers.access_key or objects.access_key,
        servers.secret_key or objects.secret_key,
        region=objects.region,
        ca=objects.ca,
    )


async def check_residency(config: Config, objects: ObjectStore) -> str:
    """Hold what the store says of where it is against what is declared; tell what was found.

    Raises ConfigError where the two contradict.
    """
    declared = config.objects
    seen = await objects.seen()
    found = residency.contradictions(declared.country, declared.replicas, seen)
    if found:
        problem = f"{'; '.join(found)}: recordings are kept only where it is declared"
        raise ConfigError(str(config.path), "objects", "country and replicas", problem)
    return residency.told(declared.country, declared.replicas, seen)


async def open_ring(config: Config, pool: Pool, policy: Policy) -> Ring:
    """The key ring that belongs to this database. A new one is made for a new database only.

    Raises KeyRingError when the ring is not there or another's: without it nothing can be opened.
    """
    async with connection(pool) as lent:
        known = await lent.fetchval("SELECT ring FROM archive")
    ring = Ring.open(
        config.keys.store,
        config.keys.root_file,
        create=known is None,
        today=lambda: policy.day_of(clocks.service_now()),
    )
    async with connection(pool) as lent:
        await lent.execute("UPDATE archive SET ring = $1 WHERE ring IS NULL", ring.id)
        known = await lent.fetchval("SELECT ring FROM archive")
    if known != ring.id:
        raise KeyRingError("the key ring in [keys] store is not the one of this database")
    return ring


async def open_signer(config: Config, pool: Pool, ring: Ring) -> Signer:
    """The ledger's signing key, made with the first ledger. Raises SignerError without it."""
    async with connection(pool) as lent:
        new = await tree.size(lent) == 0
    return Signer.open(config.keys.store, f"call-archive/{ring.id}", create=new)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[tuple[Addresses, Schedule, Vault]]:
    """The whole service: doors that answer and jobs that run, until the context is left."""
    async with opened(config) as vault:
        await asyncio.to_thread(nightly.make_keys, vault, await database.now(vault.pool))
        await _tell_of_the_sandbox(vault.probes)
        async with AsyncExitStack() as stack:
            addresses = await _open_doors(config, vault, stack)
            schedule = Schedule(vault, config.jobs.nightly)
            await schedule.start()
            stack.push_async_callback(schedule.stop)
            yield addresses, schedule, vault


async def _tell_of_the_sandbox(workers: AudioPool) -> None:
    try:
        sandbox = await workers.sandbox()
    except UnavailableError as error:
        log.warning("audio: %s Nothing can be taken in.", error.detail)
        return
    log.log(logging.WARNING if sandbox.missing else logging.INFO, "audio: %s", sandbox)


async def _open_doors(config: Config, vault: Vault, stack: AsyncExitStack) -> Addresses:
    asked = config.doors
    shown = {name: listening.shown(name, door) for name, door in asked.named.items()}
    told = [each for each in shown.values() if each]
    listeners: list[Listener] = []
    provider = Provider(config.sign_in.terms) if config.sign_in.terms else None
    ways = SignIn(config.sign_in.limits, config.sign_in.local, provider)
    if provider:
        stack.push_async_callback(provider.close)

    async def open_one(name: str, public: str, routes: list[Route | OpenRoute]) -> str:
        app = doors.build(vault, public, routes, told, asked.bears)
        app[SIGN_IN] = ways
        runner = doors.runner(app, CUT)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listeners.append(Listener(runner, asked.named[name], shown[name]))
        return await listeners[-1].start(stack)

    retrieval_url = await open_one("retrieval", asked.retrieval_url, retrieval.routes())
    public = asked.retrieval_url or retrieval_url
    ways_in = [*ingest.routes(), *telephony.routes(config.mappings), *uploads.routes()]
    ingest_url = await open_one("ingest", public, ways_in)
    operations_url = await open_one("operations", public, operations.routes())
    runners = [listener.runner for listener in listeners]
    stack.push_async_callback(doors.finish, runners, IN_FLIGHT)
    stack.callback(asyncio.create_task(listening.renew(listeners)).cancel)
    return Addresses(ingest_url, retrieval_url, operations_url)


async def serve(config: Config, then: Callable[[Addresses, Vault], Awaitable[None]]) -> None:
    """Run until SIGTERM or SIGINT; `then` is done once the doors are open.

    Raises RewrittenError, after everything was stopped, when the database was put back meanwhile.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(config) as (addresses, schedule, vault):
        print(f"ingest      {addresses.ingest}")
        print(f"retrieval   {addresses.retrieval}")
        print(f"operations  {addresses.operations}")
        print("ready", flush=True)
        await then(addresses, vault)
        await _first(stop, schedule.rewritten)
        log.info("stopping: finishing what is in flight")
    if schedule.rewritten.is_set():
        raise RewrittenError("stopped: the database is not the one any more that it served")


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
