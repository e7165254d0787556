"""A relay in front of Postgres that breaks a connection at a statement, or all at once.

It reads the messages of the protocol as far as it needs to: a fault befalls the execution of the
next statement that holds a given text, so that a test can lose exactly the commit, or its reply.
"""

import asyncio
import re
import struct
from contextlib import suppress
from typing import Literal

from tests.stores.relay import Listener

Fault = Literal["before", "after", "late"]
"""Cut before the server hears of it; after it has done it; or before, and it lands half a second
later nevertheless."""

LATE = 0.5


class DatabaseRelay(Listener):
    """Listens on a free port, in front of the server whose socket `url` names."""

    def __init__(self, url: str) -> None:
        super().__init__()
        name, folder = re.fullmatch(r"postgresql://(\w+@/\w+)\?host=(.+)", url).groups()  # type: ignore[union-attr]
        self._name = name
        self._socket = f"{folder}/.s.PGSQL.5432"
        self._faults: list[tuple[bytes, Fault]] = []
        self.befallen = 0

    @property
    def url(self) -> str:
        user, database = self._name.split("@/")
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def next(self, text: str, fault: Fault) -> None:
        """Let a fault befall the next execution of a statement that holds this text."""
        self._faults.append((text.encode(), fault))

    def forget(self) -> None:
        """Let what has befallen nobody yet befall nobody."""
        self._faults.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        down = asyncio.create_task(_pump(server_reader, writer))
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._up(reader, writer, server_writer, down, server_reader)
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)
            for each in (writer, server_writer):
                each.transport.abort()

    async def _up(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        down: "asyncio.Task[None]",
        server_reader: asyncio.StreamReader,
    ) -> None:
        size = await reader.readexactly(4)
        server.write(size + await reader.readexactly(struct.unpack("!I", size)[0] - 4))
        statements: dict[bytes, bytes] = {}
        while True:
            kind, body, message = await _message(reader)
            if kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                statements[name] = text
            if kind == b"B" and (fault := self._take(statements, body)):
                self.befallen += 1
                if fault == "before":
                    return
                while kind != b"S":
                    kind, _, more = await _message(reader)
                    message += more
                down.cancel()  # nobody hears what the server says to this
                await asyncio.gather(down, return_exceptions=True)
                if fault == "late":
                    writer.transport.abort()
                    await asyncio.sleep(LATE)
                server.write(message)
                while (await _message(server_reader))[0] != b"Z":
                    pass
                return
            server.write(message)

    def _take(self, statements: dict[bytes, bytes], bind: bytes) -> Fault | None:
        text = statements.get(bind.split(b"\0", 2)[1], b"")
        for place, (wanted, fault) in enumerate(self._faults):
            if wanted in text:
                del self._faults[place]
                return fault
        return None


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes, bytes]:
    head = await reader.readexactly(5)
    body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
    return head[:1], body, head + body


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()
