"""`archive check`: is all that the archive stands on in order? One line each: ok, or what to do."""

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5

from app import listening, pools
from app.config import Config, ConfigError
from app.embedded import AlreadyRunningError, Embedded, EmbeddedError
from app.landing_settings import Place
from app.landings import opened_at
from app.vault import check_residency, open_ring, open_signer, open_store
from archive.errors import ArchiveError
from storage import (
    clocks,
    credentials,
    fuse,
    landing,
    leftovers,
    published,
    release,
    schema,
    tree,
)
from storage.audio.pool import AudioPool
from storage.clocks import Others
from storage.database import Pool, connection
from storage.keyring import KeyRingError, Ring
from storage.objects import ObjectStore
from storage.schema import SchemaError
from storage.signer import Signer, SignerError
from storage.upkeep import mark
from web.tls import SOON, Shown, TlsError

FAULTS = (
    ArchiveError,
    AlreadyRunningError,
    EmbeddedError,
    KeyRingError,
    SignerError,
    SchemaError,
    TlsError,
    OSError,
)
"""What an operator can mend: every command tells it in one line, not in a traceback."""


def _until(found: Sequence[Shown]) -> str:
    return ", ".join(f"{each.files.door} until {each.ends:%Y-%m-%d %H:%M}Z" for each in found)


@dataclass(frozen=True, slots=True)
class _Ledger:
    """What the ledger is looked at with."""

    pool: Pool
    objects: ObjectStore
    ring: Ring
    signer: Signer


@dataclass(slots=True)
class _Findings:
    """What was found so far: part, whether it is in order, and what to do or to know."""

    lines: list[tuple[str, bool, str]] = field(default_factory=list)

    async def look(self, part: str, look: Callable[[], Awaitable[str]], keys: str = "") -> bool:
        """Note what a look found; `keys` is where in the configuration a fault may lie."""
        try:
            self.lines.append((part, True, await look()))
        except (*FAULTS, ValueError) as error:
            advice = f" Look at {keys}." if keys else ""
            self.lines.append((part, False, (str(error) or type(error).__name__) + advice))
        return self.lines[-1][1]


async def run(config: Config, *, as_json: bool) -> int:
    """Look at every part; 0 when all are in order."""
    findings = _Findings([("configuration", True, f"read from {config.path}")])
    async with AsyncExitStack() as stack:
        await _Check(config, findings, stack).everything()
    if as_json:
        rows = [{"part": part, "ok": ok, "detail": text} for part, ok, text in findings.lines]
        print(json.dumps(rows))
    else:
        for part, ok, text in findings.lines:
            print(f"{part:<14} {'ok' if ok else 'WRONG':<6} {text}")
    return 0 if all(ok for _, ok, _ in findings.lines) else 1


class _Check:
    """The looks, in the order in which each needs the ones before it."""

    def __init__(self, config: Config, findings: _Findings, stack: AsyncExitStack) -> None:
        self._config = config
        self._findings = findings
        self._stack = stack
        self._pool: Pool
        self._missing: list[str]
        self._objects: ObjectStore
        self._servers: Embedded
        self._ring: Ring
        self._policy = config.retention

    async def everything(self) -> None:
        look = self._findings.look
        await look("audio", self._audio)
        await look("tls", self._tls, "[doors] ..._tls_cert, ..._tls_key and ..._tls_client_ca")
        if not await look("servers", self._start):
            return
        database_ok = await look("database", self._database, "[database] url")
        asked = "[objects] endpoint, bucket, access_key, secret_key and ca"
        objects_ok = await look("object store", self._store, asked)
        if objects_ok:
            await look("residency", self._residency)
        keys_ok = database_ok and await look("keys", self._keys)
        if keys_ok and objects_ok:
            await look("ledger", self._ledger)
            await look("clocks", self._clocks)
        for place in self._config.landings if keys_ok else ():
            keys = f"[[landing]] {place.name}"
            await look(f"landing {place.name}", partial(self._landing, place), keys)
        if database_ok:
            await look("roles", self._roles, "docs/operations.md#roles")
            await look("fuse", self._fuse)

    async def _audio(self) -> str:
        workers = AudioPool(1)
        try:
            return str(await workers.sandbox())
        finally:
            await workers.close()

    async def _tls(self) -> str:
        found = [
            shown
            for name, door in self._config.doors.named.items()
            if (shown := listening.shown(name, door))
        ]
        if soon := [each for each in found if each.left < SOON]:
            raise ValueError(f"{_until(soon)}: renew it, the service takes it up by itself.")
        return f"valid: {_until(found)}" if found else "no door has a certificate: plain HTTP"

    async def _start(self) -> str:
        config = self._config
        self._servers = await self._stack.enter_async_context(
            Embedded(
                config.server.data_dir,
                want_postgres=config.database.embedded,
                want_s3=config.objects.embedded,
                join=True,
            )
        )
        if config.database.embedded or config.objects.embedded:
            return "embedded, for trial and small sites"
        return "external"

    async def _database(self) -> str:
        self._pool = await pools.open_owner(self._config, self._servers, size=2)
        self._stack.push_async_callback(self._pool.close)
        async with connection(self._pool) as lent:
            self._missing = await schema.migrate(lent)
            version = lent.get_server_version()
            fsync = await lent.fetchval("SELECT current_setting('fsync')")
            commit = await lent.fetchval("SELECT current_setting('synchronous_commit')")
        if fsync != "on":
            raise ValueError("fsync is off: a power cut would lose acknowledged recordings")
        if commit not in ("on", "remote_apply"):
            raise ValueError(
                f"synchronous_commit is {commit}, though each connection asks for `on`: does a"
                " pooler drop that? A crash of the server would lose acknowledged recordings"
            )
        return f"PostgreSQL {version.major}.{version.minor}, schema up to date"

    async def _roles(self) -> str:
        if self._missing:
            raise ValueError(
                f"{len(self._missing)} roles are not there, and the owner may not make them:"
                " `archive migrate` says how."
            )
        logins = self._servers.logins or self._config.database.logins
        if bare := [role for role, url in logins.items() if not url]:
            return f"there; {', '.join(bare)} work as the owner all the same, having no login here"
        async with AsyncExitStack() as stack:
            roles = pools.Pools(self._config, self._servers, stack)
            for role in logins:
                async with connection(await roles.of(role)) as lent:
                    await schema.check_schema(lent)
        return "every part of the service has its own login"

    async def _store(self) -> str:
        self._objects = await open_store(self._config, self._servers)
        self._stack.push_async_callback(self._objects.close)
        key = f"check/{secrets.token_hex(8)}"
        body = secrets.token_bytes(1000)
        await self._objects.put(key, [body], len(body), md5(body).digest(), 30)  # noqa: S324
        async with self._objects.get(key, 100, 200) as pieces:
            read = b"".join([piece async for piece in pieces])
        if read != body[100:200]:
            raise ValueError("the store gave back other bytes than were put there")
        await self._objects.remove(await self._objects.holdings("check/"))
        left = await self._objects.holdings("check/")
        if left:
            raise ValueError(
                "the store keeps what is deleted: is there an object lock on the bucket?"
            )
        return f"bucket {self._config.objects.bucket}: put, range, delete and read-back work"

    async def _residency(self) -> str:
        try:
            return await check_residency(self._config, self._objects)
        except ConfigError as error:
            raise ValueError(f"{error.problem}. Look at [objects] {error.key}.") from None

    async def _keys(self) -> str:
        config = self._config
        self._ring = await open_ring(config, self._pool, self._policy)
        text = f"{len(self._ring.days())} day keys"
        if not os.access(config.keys.root_file, os.W_OK):
            raise ValueError(
                "[keys] root_file cannot be written: the key of no day could be destroyed"
            )
        ring_device = config.keys.store.stat().st_dev
        if ring_device == config.keys.root_file.stat().st_dev:
            text += "; [keys] root_file lies on the same device as the ring: better on another"
        return text + "; this file is the only holder: an image of its disk holds the keys too"

    async def _ledger(self) -> str:
        """Ask what `serve` asks before it starts; what it would make or mark, is left to it."""
        signer = await open_signer(self._config, self._pool, self._ring, keep=False)
        ledger = _Ledger(self._pool, self._objects, self._ring, signer)
        marked = await published.owned(ledger)
        whole = await tree.look_wholly(ledger)
        async with connection(self._pool) as lent:
            await mark.recognize(ledger, lent)
        last = await asyncio.to_thread(signer.last)
        if last is None:
            text = "nothing was signed yet"
        else:
            text = f"goes on from the {last.size} entries that were signed last"
        if not whole:
            text += "; the bucket lacks some of it: they are published again after the next start"
        return text + ("" if marked else "; the next start marks the bucket as this archive's")

    async def _clocks(self) -> str:
        async with connection(self._pool) as lent:
            reading = await clocks.read(lent)
        others = Others(
            clocks.service_now(),
            await self._objects.clock(),
            await asyncio.to_thread(self._ring.today),
        )
        if faults := clocks.judge(reading, others, self._policy):
            raise ValueError(f"{'; '.join(faults)}; set them, or see `archive expire --release`")
        return "they agree"

    async def _landing(self, place: Place) -> str:
        async with connection(self._pool) as lent:
            if await credentials.uploader(lent, self._ring, place.key) is None:
                raise ValueError("there is no uploader's key of the name in `key`.")
            refused = await leftovers.refused(lent, place.name)
        opened = opened_at(place)
        try:
            found = await landing.check_residency(opened)
            async with aclosing(landing.walk(opened)) as held:
                await anext(held, None)
        finally:
            await opened.bucket.close()
        if refused:
            raise ValueError(f"{refused} objects are refused: `archive landing` names them.")
        return found

    async def _fuse(self) -> str:
        async with connection(self._pool) as lent:
            _, faults = await fuse.look_at_due(lent, await clocks.read(lent))
            people, known = await release.admins(lent)
        if faults:
            raise ValueError(f"{'; '.join(faults)}; see `archive expire --release`")
        if people > 1 and known < 2:
            raise ValueError(
                "it is whole, but nobody could release it: say whose the admin keys are, with"
                " `archive key person NAME PERSON`"
            )
        if people > 1:
            return "whole; two people can release it"
        return (
            "whole; one person can release it: two admin keys would make it two people's decision"
        )
