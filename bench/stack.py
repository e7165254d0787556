"""What is measured: the embedded PostgreSQL and object store, the service over them as users run
it (`archive serve`, configured by its environment), and the load client; each a process of its own.
"""

import asyncio
import json
import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil

from app import config
from app.config import Config
from app.embedded import Embedded
from bench.cpu import Meter
from storage.objects import ObjectStore

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "bench"
"""The bucket of what stands beside the archives."""

SOURCE = "bench-pbx"


class Client:
    """The load client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.meter = Meter()
        self.meter.watch("client", process.pid)

    async def run(
        self, method: str, urls: Sequence[str], side: str = "preparation", **job: Any
    ) -> dict[str, Any]:
        """Send one batch; see `bench.client`. Raises RuntimeError if any answer was wrong."""
        with self.meter.during(side, len(urls)):
            return await self._run(method, urls, job)

    async def _run(self, method: str, urls: Sequence[str], job: dict[str, Any]) -> dict[str, Any]:
        job = {"method": method, "urls": list(urls), "statuses": [200], "at_once": 1, **job}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load client ended")
        result: dict[str, Any] = json.loads(line)
        if result["wrong"]:
            raise RuntimeError(f"{method}: wrong answers: {result['wrong']}")
        return result


@dataclass
class Service:
    """A running `archive serve`: its process, its doors, its configuration and its keys."""

    process: psutil.Process
    ingest: str
    retrieval: str
    config: Config
    tokens: dict[str, str] = field(default_factory=dict)

    def login(self, level: str) -> dict[str, str]:
        """The header that lets a key of this level in."""
        return {"Authorization": f"Bearer {self.tokens[level]}"}

    def peak(self) -> tuple[float, float]:
        """The peak resident memory of the service, and the sum of its workers' peaks, in MB."""
        workers = [peak(child.pid) for child in self.process.children(recursive=True)]
        return peak(self.process.pid), sum(workers)


def peak(pid: int) -> float:
    """The peak resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the kernel tells of no peak")


class Stack:
    """The servers, and what is started over them."""

    def __init__(self, folder: Path, servers: Embedded, store: ObjectStore, client: Client) -> None:
        self.folder = folder
        self.servers = servers
        self.store = store
        self.client = client
        self.filled: dict[str, str] = {}
        """The databases of archives that were filled once for several figures, by name."""

    def environment(
        self, name: str, database: str, store: Embedded | None = None
    ) -> dict[str, str]:
        """What configures a service of this name: the servers are external to it."""
        store = store or self.servers
        return {
            "ARCHIVE_SERVER_DATA_DIR": str(self.folder / name),
            "ARCHIVE_DOORS_INGEST": "127.0.0.1:0",
            "ARCHIVE_DOORS_RETRIEVAL": "127.0.0.1:0",
            "ARCHIVE_DOORS_OPERATIONS": "127.0.0.1:0",
            "ARCHIVE_DATABASE_URL": database,
            **{
                f"ARCHIVE_DATABASE_{role.upper()}_LOGIN": self.login(role, database)
                for role in self.servers.logins
            },
            "ARCHIVE_OBJECTS_ENDPOINT": store.endpoint or "",
            "ARCHIVE_OBJECTS_BUCKET": bucket(name),
            "ARCHIVE_OBJECTS_ACCESS_KEY": store.access_key or "",
            "ARCHIVE_OBJECTS_SECRET_KEY": store.secret_key or "",
        }

    def config(self, name: str, database: str, store: Embedded | None = None) -> Config:
        """The same as the service reads it."""
        return config.load(ROOT / "config.toml", self.environment(name, database, store))

    async def database(self, name: str) -> str:
        """A new, empty database on the server; returns its URL."""
        url = self.servers.database_url or ""
        lent = await asyncpg.connect(url)
        await lent.execute(f"CREATE DATABASE {name}")
        await lent.close()
        return url.replace("/archive?", f"/{name}?")

    def login(self, role: str, database: str) -> str:
        """The URL of that database by which a part of the service logs in."""
        name = urlsplit(database).path
        return urlsplit(self.servers.logins[role])._replace(path=name).geturl()

    @asynccontextmanager
    async def service(self, name: str, database: str) -> AsyncIterator[Service]:
        """Run `archive serve` with a key of each kind that is needed, until the context is left."""
        environment = {**os.environ, **self.environment(name, database)}
        log = (self.folder / f"{name}.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            *_archive("serve"), env=environment, stdout=asyncio.subprocess.PIPE, stderr=log
        )
        try:
            doors = await asyncio.wait_for(_doors(process), 60)
            service = Service(
                psutil.Process(process.pid),
                doors["ingest"],
                doors["retrieval"],
                self.config(name, database),
            )
            self.client.meter.watch(f"service {name}", process.pid)
            for level, more in (("uploader", ["--source", SOURCE]), ("privacy", [])):
                service.tokens[level] = await _key(environment, level, more)
            yield service
        finally:
            self.client.meter.forget(f"service {name}")
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), 60)
            log.close()

    def straight(self, method: str, keys: Sequence[str]) -> list[str]:
        """Addresses of objects in the store itself, signed for an hour."""
        signed = self.store._bucket.signed
        return [str(signed(method, key, {}, 3600)) for key in keys]


def bucket(name: str) -> str:
    """The bucket of an archive of this name: each has its own, and refuses another's."""
    return f"{BUCKET}-{name.replace('_', '-')}"


def keys(count: int, day: str = "straight") -> list[str]:
    """Names of the shape that the archive gives its objects; `day` is the first part."""
    return [f"{day}/{uuid.uuid4()}/{uuid.uuid4()}" for _ in range(count)]


def uploads(service: Service, count: int, started_at: str, *, by_name: bool = False) -> list[str]:
    """Addresses for calls that never were before, each described as a real one is; or `by_name`, by
    no more than the name of a file tells.
    """
    more = "" if by_name else "&agent=agent-17&queue=queue-3&customer=customer-"
    return [
        f"{service.ingest}/v1/recordings/{uuid.uuid4()}?call_type=customer_service"
        f"&started_at={started_at}&direction=inbound&caller=%2B35840{number:07}"
        f"&callee=%2B358800012345{more and more + str(number)}"
        for number in range(count)
    ]


def _archive(*words: str) -> list[str]:
    return [sys.executable, "-m", "app", "--config", str(ROOT / "config.toml"), *words]


async def _doors(process: asyncio.subprocess.Process) -> dict[str, str]:
    assert process.stdout
    doors: dict[str, str] = {}
    while line := (await process.stdout.readline()).decode().strip():
        if line == "ready":
            return doors
        name, _, address = line.partition(" ")
        doors[name] = address.strip()
    raise RuntimeError("the service did not start; see its log")


async def _key(environment: dict[str, str], level: str, more: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *_archive("key", "add", "--json", "--level", level, "--name", f"bench-{level}", *more),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("no key could be made")
    return str(json.loads(said)["token"])


async def connect(servers: Embedded, named: str = BUCKET) -> ObjectStore:
    """Open a bucket of these servers' store."""
    return await ObjectStore.connect(
        servers.endpoint or "", named, servers.access_key or "", servers.secret_key or ""
    )


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Stack]:
    """Start the servers with the embedded default's own settings, and the load client."""
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        servers = await stack.enter_async_context(
            Embedded(folder / "servers", want_postgres=True, want_s3=True)
        )
        store = await connect(servers)
        stack.push_async_callback(store.close)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.client"),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 28,
        )
        stack.push_async_callback(process.wait)
        stack.callback(process.terminate)
        client = Client(process)
        for name, child in (("store", servers.store), ("postgres", servers.postgres)):
            client.meter.watch(name, child.pid if child else None)
        yield Stack(folder, servers, store, client)


async def empty(stack: Stack, day: str | date) -> None:
    """Remove what lies under a first part of names; not measured."""
    while held := await stack.store.holdings(f"{day}/"):
        await stack.store.remove(held)
