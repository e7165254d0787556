"""Where the doors listen: at addresses of the network, or at unix sockets.

A unix socket is for who may open its file: the service's user and the group of the file (0660), and
only as far as the folder lets them through. There is no peer address on it, so that a key which is
bound to networks is refused there. A socket file that a killed service left behind is taken over;
one at which somebody answers never is.
"""

import asyncio
import fcntl
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from app.config import Door
from app.values import Address
from web import tls
from web.tls import Files, Shown

log = logging.getLogger("archive")

MODE = 0o660
"""Of the file of a unix socket."""

_QUEUE = 1024
"""Connections that may wait to be accepted: behind more, an honest one waits for all of a flood."""


class _Site(web.BaseSite):
    """A site on a socket that listens already, of the network or of the file system."""

    def __init__(
        self, runner: web.AppRunner, bound: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        super().__init__(runner, ssl_context=context)
        self._bound = bound

    @property
    def name(self) -> str:
        return str(self._bound.getsockname())

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        if server is None:
            raise RuntimeError("a runner is set up before its sites are")
        loop, context = asyncio.get_running_loop(), self._ssl_context
        if self._bound.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(
                server, sock=self._bound, ssl=context, backlog=_QUEUE
            )
        else:
            self._server = await loop.create_server(
                server, sock=self._bound, ssl=context, backlog=_QUEUE
            )

    def again(self, context: ssl.SSLContext) -> "_Site":
        """The same address, to be reached with another certificate."""
        [held] = self._server.sockets  # type: ignore[union-attr]
        bound = socket.socket(fileno=os.dup(held.fileno()))
        return _Site(self._runner, bound, context)  # type: ignore[arg-type]


class Listener:
    """One door's runner, where it listens, and what it shows (None: plain HTTP)."""

    def __init__(self, runner: web.AppRunner, door: Door, shown: Shown | None) -> None:
        self.runner = runner
        self._door = door
        self._shown = shown
        self._sites: list[_Site] = []

    async def start(self, stack: AsyncExitStack) -> str:
        """Let the door be reached; returns its address. Raises OSError when it cannot be."""
        address = self._door.address
        context = self._shown.context if self._shown else None
        try:
            bound = await _bound(address)
        except OSError as error:
            named = isinstance(error, socket.gaierror)  # the others tell of a place as well
            reason = error.strerror if named else os.strerror(error.errno or 0).lower()
            raise OSError(
                f"a door cannot listen on {address} ({reason}): set another address in"
                " [doors] or ARCHIVE_DOORS_INGEST, _RETRIEVAL, _OPERATIONS"
            ) from error
        if address.socket:
            stack.callback(_remove, address.socket, address.socket.stat().st_ino)
        self._sites = [_Site(self.runner, each, context) for each in bound]
        for site in self._sites:
            await site.start()
        if address.socket:
            return str(address)
        host, port = bound[0].getsockname()[:2]
        return f"{'https' if context else 'http'}://{Address(host, port)}"

    async def renew(self) -> None:
        """Show what the files hold now, if they are new, to who comes from now on.

        Connections that are open stay as they are. The sockets listen all the while, so that nobody
        is turned away.
        """
        if self._shown is None or not await asyncio.to_thread(self._shown.look):
            return
        for index, old in enumerate(self._sites):
            self._sites[index] = new = old.again(self._shown.context)
            await new.start()
            await old.stop()


async def renew(listeners: Sequence[Listener]) -> NoReturn:
    """Look at the files of all doors every few seconds."""
    while True:
        await asyncio.sleep(tls.LOOK)
        for listener in listeners:
            try:
                await listener.renew()
            except OSError as error:
                log.error("a new certificate cannot be shown: %s", error.strerror)  # noqa: TRY400


async def _bound(address: Address) -> list[socket.socket]:
    """Sockets that listen there: of a name that has several addresses, on each."""
    if address.socket:
        return [bind(address.socket)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    bound: list[socket.socket] = []
    try:
        for family, _, _, _, place in dict.fromkeys(found):
            bound.append(socket.create_server(place, family=family, backlog=_QUEUE))
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound


def shown(name: str, door: Door) -> Shown | None:
    """What a door is to show. Raises TlsError when its files cannot be used."""
    if door.tls_cert is None or door.tls_key is None:
        return None
    return Shown(Files(name, door.tls_cert, door.tls_key, door.tls_client_ca))


def bind(path: Path) -> socket.socket:
    """A unix socket at this path, in the place of one that nobody listens on any more.

    Raises OSError when the folder is not there, when somebody listens, and for any other file.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Of two services that start at once one is done before the other looks.
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.is_socket() and not _answers(path):
            path.unlink()
        bound.bind(str(path))
        path.chmod(MODE)
        bound.listen(_QUEUE)
    except BaseException:
        bound.close()
        raise
    finally:
        os.close(folder)
    return bound


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.setblocking(False)
        # What is full (EAGAIN), or is not ours to open, is somebody's.
        try:
            asked.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def _remove(path: Path, number: int) -> None:
    """Remove the file, unless it is another service's by now."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == number:
            path.unlink()
