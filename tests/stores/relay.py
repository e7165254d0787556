"""A relay that a test puts in front of a server, and that fails as networks do.

In front of S3 (`http=True`) each request gets a connection of its own, and the next fault that fits
its method; in front of Postgres each connection gets the next fault. What has no fault passes.

    async with Relay(host, port) as relay:
        relay.next(Answer(503), method="PUT")
        store = await server.connect(endpoint=relay.url)
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

HEAD = 64 << 10  # bytes; a request line with a signature in it stays far below


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection once more than so many bytes went up, or came down from the server.

    The head of a request is not counted: with `up=0` the server gets that and no byte of a body.
    With `down=0` it has done its work, and nobody hears of it.
    """

    up: int | None = None
    down: int | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait so many seconds before the server hears of it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer in the server's place, which hears nothing."""

    status: int = 200
    headers: tuple[str, ...] = ()
    body: bytes = b""

    def raw(self) -> bytes:
        """Write the answer as it goes over the wire."""
        lines = [f"HTTP/1.1 {self.status} Said", "Connection: close", *self.headers]
        if not any(line.startswith(("Content-Length", "Transfer-")) for line in self.headers):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


@dataclass(frozen=True, slots=True)
class Hang:
    """Take everything in and never say a word."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Hang, but keep the request: `Relay.release` lets it land late."""


Fault = Cut | Delay | Answer | Hang | Hold


class Listener(ABC):
    """Listens on a free port of its own. While it is `away` nobody is let in."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.away = False

    async def cut(self) -> None:
        """Break every connection that is open."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=HEAD)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also of one that was cancelled before it began.
        task.add_done_callback(lambda _: writer.transport.abort())

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, to its end."""


class Relay(Listener):
    """Stands before one server; `requests` are the heads that came in, in order."""

    def __init__(self, host: str, port: int, *, http: bool = True) -> None:
        super().__init__()
        self._host, self._port, self._http = host, port, http
        self._faults: list[tuple[str, Fault]] = []
        self._held: list[bytes] = []
        self.requests: list[str] = []

    @classmethod
    def before(cls, url: str) -> "Relay":
        """Stand before the server at an `http://host:port`."""
        host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        return cls(host, int(port))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next(self, *faults: Fault, method: str = "") -> None:
        """Say what befalls the next requests, of that method if one is given."""
        self._faults += [(method, fault) for fault in faults]

    def waiting(self, method: str) -> bool:
        """Whether a fault for this method has befallen nobody yet."""
        return any(wanted == method for wanted, _ in self._faults)

    def forget(self, method: str) -> None:
        """Let what was meant for this method befall nobody."""
        self._faults = [each for each in self._faults if each[0] != method]

    def seen(self, method: str) -> list[str]:
        """Return the heads of the requests of one method."""
        return [head for head in self.requests if head.startswith(f"{method} ")]

    async def release(self) -> list[int]:
        """Let the held requests land now; what the server said to each."""
        held, self._held = self._held, []
        return [await self._land(request) for request in held]

    async def _closing(
        self, work: Coroutine[None, None, None], writer: asyncio.StreamWriter
    ) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await work
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._closing(self._answer(reader, writer), writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await self._head(reader) if self._http else b""
        fault = self._take(head)
        if isinstance(fault, Hold):
            size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            self._held.append(head + await reader.readexactly(int(size[1]) if size else 0))
        if isinstance(fault, Answer):
            writer.write(fault.raw())
            writer.write_eof()
        if isinstance(fault, Hang | Hold | Answer):
            await _drain(reader)
            return
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        cut = fault if isinstance(fault, Cut) else Cut()
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        await self._closing(
            self._pass(head, cut, (reader, writer), (server_reader, server_writer)), server_writer
        )

    async def _pass(
        self,
        head: bytes,
        cut: Cut,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        server[1].write(head)
        pumps = [
            asyncio.create_task(_pump(client[0], server[1], cut.up)),
            asyncio.create_task(_pump(server[0], client[1], cut.down)),
        ]
        try:
            # The server's end ends it; so does a limit. A client may close its half and wait.
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if pumps[1] not in done and not pumps[0].result():
                await pumps[1]
            if pumps[1].done() and not pumps[1].result():
                client[1].close()  # flushes, where the abort that follows a cut does not
                await client[1].wait_closed()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.decode("latin-1"))
        return head[:-2] + b"Connection: close\r\n\r\n"

    def _take(self, head: bytes) -> Fault | None:
        for place, (method, fault) in enumerate(self._faults):
            if head.startswith(method.encode()):
                del self._faults[place]
                return fault
        return None

    async def _land(self, request: bytes) -> int:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request)
            status = await reader.readline()
            await _drain(reader)
            return int(status.split()[1])
        finally:
            writer.close()
            await writer.wait_closed()


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(HEAD):
        pass


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None
) -> bool:
    """Copy until the end, or until more than `limit` bytes came; whether the limit ended it."""
    copied = 0
    while piece := await reader.read(HEAD):
        copied += len(piece)
        if limit is not None and copied > limit:
            writer.write(piece[: len(piece) - (copied - limit)])
            await writer.drain()
            return True
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    return False
