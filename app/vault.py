"""Opening what the verbs need: the database, the object store, the keys, the processes that decode.

For a command all of it is opened as the owner of the database's tables; for the service once for
each of its parts, as that part's role.
"""

import logging
import resource
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from app import pools
from app.config import Config, ConfigError
from app.embedded import Embedded
from app.pools import Pools
from archive import residency
from archive.retention import Policy
from storage import clocks, database, published, schema, tree
from storage.audio.pool import AudioPool
from storage.database import Pool, connection
from storage.keyring import KeyRingError, Ring
from storage.objects import ObjectStore
from storage.policy import standing
from storage.shelf import Shelf
from storage.signer import Signer
from storage.upkeep import mark
from storage.vault import Vault

log = logging.getLogger("archive")

PROBES = 2
PLAYERS = 8


@asynccontextmanager
async def opened(
    config: Config, *, join: bool = False, whole: bool = True, patience: float = database.PATIENCE
) -> AsyncIterator[Vault]:
    """The vault for a command, as the owner of the database's tables, with the embedded servers if
    the configuration asks for them.

    `join`: a command may use the servers of a service that runs on the same `data_dir`. `whole`:
    raise RewrittenError when the database is an old one that was put back, or was rewritten, or a
    standby took it over.
    `patience`: seconds that a statement may take.
    """
    async with AsyncExitStack() as stack:
        servers = await _servers(config, stack, join=join)
        pool = await pools.open_owner(config, servers, patience=patience)
        stack.push_async_callback(pool.close)
        async with connection(pool) as lent:
            await schema.migrate(lent)
        vault = await _vault(config, servers, stack, pool, pool, pool)
        if whole:
            await published.own(vault)
            await tree.agree_wholly(vault)
            async with connection(pool) as lent:
                await mark.recognize(vault, lent)
        yield vault


@asynccontextmanager
async def opened_parts(config: Config, parts: Sequence[str]) -> AsyncIterator[Mapping[str, Vault]]:
    """The vault of each part of the service, as its role.

    Where the owner's login is known the schema is brought up to date first; elsewhere it has to be.
    """
    async with AsyncExitStack() as stack:
        # Of several processes on one data_dir, the one with the jobs has the embedded servers.
        servers = await _servers(config, stack, join="jobs" not in parts, own="jobs" in parts)
        if servers.database_url or config.database.url:
            await prepare(config, servers)
        roles = Pools(config, servers, stack)
        own = {part: await roles.of(part) for part in parts}
        first = own[parts[0]]
        async with connection(first) as lent:
            await schema.check_schema(lent)
        # Who only takes in has nothing to do with places in the ledger, nor a login for that.
        sequencer = first if [*parts] == ["ingest"] else await roles.of("sequencer")
        lets_in = {"retrieval", "operations"} & {*parts}
        sign_in = await roles.of("sign_in") if lets_in else first
        vault = await _vault(config, servers, stack, first, sequencer, sign_in)
        await published.own(vault)
        await (tree.agree(vault) if sequencer is first else tree.agree_wholly(vault))
        async with connection(first) as lent:
            await mark.recognize(vault, lent)
        yield {part: replace(vault, pool=pool) for part, pool in own.items()}


async def prepare(config: Config, servers: Embedded) -> list[str]:
    """Do what only the owner may: schema and rights; and for a new archive its policy, its ring and
    its ledger's key.

    Returns the statements that make the roles which are not there.
    """
    pool = await pools.open_owner(config, servers, size=1)
    try:
        async with connection(pool) as lent:
            missing = await schema.migrate(lent)
            await standing(lent, config.retention)
        ring = await open_ring(config, pool, config.retention)
        await open_signer(config, pool, ring)
    finally:
        await pool.close()
    return missing


async def _servers(
    config: Config, stack: AsyncExitStack, *, join: bool, own: bool = True
) -> Embedded:
    # A core dump would put the keys that the memory holds on a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Each connection and each body needs a file, and shells allow 1024 unless they are asked.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return await stack.enter_async_context(
        Embedded(
            config.server.data_dir,
            want_postgres=config.database.embedded,
            want_s3=config.objects.embedded,
            join=join,
            own=own,
        )
    )


async def _vault(
    config: Config,
    servers: Embedded,
    stack: AsyncExitStack,
    pool: Pool,
    sequencer: Pool,
    sign_in: Pool,
) -> Vault:
    """What the verbs need, over a database that is open."""
    objects = await open_store(config, servers)
    stack.push_async_callback(objects.close)
    await check_residency(config, objects)
    policy = await _in_force(config, pool)
    ring = await open_ring(config, pool, policy)
    signer = await open_signer(config, pool, ring)
    spool = config.server.data_dir / "spool"
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    probes, players = AudioPool(PROBES), AudioPool(PLAYERS)
    stack.push_async_callback(probes.close)
    stack.push_async_callback(players.close)
    return Vault(
        pool,
        sequencer,
        sign_in,
        objects,
        ring,
        signer,
        probes,
        players,
        policy,
        config.intake,
        spool,
        Counter(),
        Shelf(config.server.data_dir / "uploads"),
        config.access,
    )


async def _in_force(config: Config, pool: Pool) -> Policy:
    """The periods that new recordings are kept for; others that are wanted wait for two people."""
    async with connection(pool) as lent:
        found = await standing(lent, config.retention)
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
    if known is None:
        async with connection(pool) as lent:
            await lent.execute("UPDATE archive SET ring = $1 WHERE ring IS NULL", ring.id)
            known = await lent.fetchval("SELECT ring FROM archive")
    if known != ring.id:
        raise KeyRingError("the key ring in [keys] store is not the one of this database")
    return ring


async def open_signer(config: Config, pool: Pool, ring: Ring, *, keep: bool = True) -> Signer:
    """The ledger's signing key, made with the first ledger. Raises SignerError without it.

    `keep` is false where one is only looked for: one that is made is then written nowhere.
    """
    async with connection(pool) as lent:
        new = await tree.size(lent) == 0
    return Signer.open(config.keys.store, f"call-archive/{ring.id}", create=new, keep=keep)
