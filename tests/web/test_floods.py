"""A thousand who hold on to the door, in each way, while somebody uploads as always.

The service is a process of its own, so that its memory is its own too. Who attacks comes from
another address than who uploads, or from a thousand; `pytest -s` shows what was counted.
"""

import asyncio
import os
import random
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import psutil
import pytest
import yarl

from storage.objects import ObjectStore
from tests.app.child_service import Child, House
from tests.services import Service
from tests.sounds import tone
from tests.stores.servers import Server
from tests.web.test_upload import query

THOUSAND = 1000
MOST_MEMORY = 500 * 10**6
UPLOADS = 3

pytestmark = pytest.mark.timeout(1500)


@dataclass
class Attack:
    """A thousand connections, each opened again whenever the door ends it."""

    port: int
    token: str
    addresses: list[str]
    opened: int = 0
    ended: int = 0
    everybody: asyncio.Event = field(default_factory=asyncio.Event)

    async def one(self, number: int, way: "Way") -> None:
        """Be one of them until the attack is over."""
        while True:
            reader, writer = await self._connect(self.addresses[number % len(self.addresses)])
            self.opened += 1
            if self.opened >= THOUSAND:
                self.everybody.set()
            heard = asyncio.create_task(self._hear(reader, writer))
            try:
                with suppress(ConnectionError):
                    await way(self, number, writer)
                await heard
            finally:
                heard.cancel()
                writer.transport.abort()
            self.ended += 1
            await asyncio.sleep(random.uniform(5, 15))

    async def _connect(self, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_connection(
                    "127.0.0.1", self.port, local_addr=(address, 0)
                )
            except OSError:
                await asyncio.sleep(0.5)

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.transport.abort()

    def head(self, number: int, *headers: str) -> bytes:
        params = yarl.URL().with_query(query()).raw_query_string
        lines = [
            f"PUT /v1/recordings/attack-{number}?{params} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {self.token}",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode()


Way = Callable[[Attack, int, asyncio.StreamWriter], Awaitable[None]]


async def trickled(writer: asyncio.StreamWriter, text: bytes) -> None:
    """Send a byte a second."""
    for byte in text:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def slow_heads(attack: Attack, number: int, writer: asyncio.StreamWriter) -> None:
    await trickled(writer, attack.head(number) * 10)


async def slow_bodies(attack: Attack, number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(attack.head(number, "Content-Length: 1000000"))
    await trickled(writer, tone(5))


async def half_uploads(attack: Attack, number: int, writer: asyncio.StreamWriter) -> None:
    audio = tone(20)
    writer.write(attack.head(number, f"Content-Length: {len(audio)}") + audio[: len(audio) // 2])


async def half_uploads_of_nobody(attack: Attack, number: int, writer: asyncio.StreamWriter) -> None:
    await half_uploads(replace(attack, token="nobody"), number, writer)


async def heads_without_end(attack: Attack, number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    while True:
        writer.write(b"X: " + b"x" * 8000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def tiny_chunks(attack: Attack, number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(attack.head(number, "Transfer-Encoding: chunked"))
    while True:
        writer.write(b"1\r\nx\r\n" * 1000)
        await writer.drain()
        await asyncio.sleep(0.01)


WAYS: list[Way] = [
    slow_heads, slow_bodies, half_uploads, half_uploads_of_nobody, heads_without_end, tiny_chunks,
]  # fmt: skip


@asynccontextmanager
async def attacked(
    child: Child, token: str, addresses: list[str], way: Way
) -> AsyncIterator[Attack]:
    """A thousand who attack in this way, all of whom have come at least once."""
    attack = Attack(yarl.URL(child.ingest).port or 0, token, addresses)
    tasks = [asyncio.create_task(attack.one(number, way)) for number in range(THOUSAND)]
    try:
        async with asyncio.timeout(120):
            await attack.everybody.wait()
        yield attack
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def child(
    database_url: str, rclone_server: Server, rclone_store: ObjectStore, tmp_path: Path
) -> AsyncIterator[Child]:
    bucket = rclone_store._bucket._path.removeprefix("/")
    house = House(database_url, rclone_server, bucket, tmp_path)
    with many_files():
        started = await house.start().ready()
        yield started
        started.kill()
    assert "Traceback" not in started.said()


def memory(child: Child) -> int:
    """Of the service and its workers, what they share counted once."""
    service = psutil.Process(child.process.pid)
    total = 0
    for process in [service, *service.children(recursive=True)]:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def held(child: Child) -> tuple[int, int]:
    """How many connections at the ingest door, and how many bodies, the service holds."""
    process = psutil.Process(child.process.pid)
    port = yarl.URL(child.ingest).port
    there = [
        one
        for one in process.net_connections()
        if one.laddr and one.laddr[1] == port and one.status != psutil.CONN_LISTEN
    ]
    bodies = 0
    for entry in os.listdir(f"/proc/{process.pid}/fd"):
        with suppress(OSError):
            bodies += "/spool/" in os.readlink(f"/proc/{process.pid}/fd/{entry}")
    return len(there), bodies


async def normal(service: Service, name: str) -> float:
    """Upload as always; how long it took."""
    started = time.monotonic()
    # Nothing is said of how long it takes: a thousand attackers share this process's time.
    patient = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=patient) as session:
        answer = await replace(service, session=session).put(name, tone(30), query())
        assert answer.status == 201, await answer.text()
    return time.monotonic() - started


@pytest.mark.parametrize("addresses", [1, THOUSAND], ids=["one address", "a thousand addresses"])
async def test_an_upload_succeeds_while_a_thousand_attack(
    service: Service, child: Child, addresses: int
) -> None:
    service = replace(service, ingest=child.ingest)
    stolen = await service.key("uploader", "stolen")
    quiet = await normal(service, "before")
    print(
        f"\n{addresses} addresses; without an attack: {quiet:.2f} s, {memory(child) / 1e6:.0f} MB"
    )
    for place, way in enumerate(WAYS):
        # Others each time: who flooded is let in no more for a while.
        origins = [f"127.{place + 7}.{one // 250}.{one % 250 + 1}" for one in range(addresses)]
        async with attacked(child, stolen, origins, way) as attack:
            most, took, connections = 0, [], 0
            for number in range(UPLOADS):
                took.append(await normal(service, f"{way.__name__}-{number}"))
                most = max(most, await asyncio.to_thread(memory, child))
                connections = max(connections, (await asyncio.to_thread(held, child))[0])
        print(
            f"{way.__name__}: {attack.opened} connections, {attack.ended} ended by the door,"
            f" {connections} held at once, {UPLOADS} uploads, the slowest {max(took):.2f} s,"
            f" {most / 1e6:.0f} MB"
        )
        assert most <= MOST_MEMORY
        assert connections <= 1000
        async with asyncio.timeout(120):
            while await asyncio.to_thread(held, child) != (0, 0):
                await asyncio.sleep(0.1)
    kept = [row for row in await service.rows() if row["state"] == "stored"]
    assert len(kept) == 1 + UPLOADS * len(WAYS) == len(await service.rows())
    assert len(await service.holdings()) == len(kept)
