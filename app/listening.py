"""Where the doors listen: at addresses of the network, or at unix sockets.

A unix socket is for who may open its file: the service's user and the group of the file (0660), and
only as far as the folder lets them through. There is no peer address on it, so that a key which is
bound to networks is refused there. A socket file that a killed service left behind is taken over;
one at which somebody answers never is.
"""

import asyncio
import fcntl
import os
import socket
import ssl
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from aiohttp import web

from app.config import Door

MODE = 0o660
"""Of the file of a unix socket."""

_QUEUE = 128
"""Connections that may wait to be accepted."""


class _UnixSite(web.BaseSite):
    """A site on a unix socket that is bound already; aiohttp has one for the network's alone."""

    def __init__(
        self, runner: web.AppRunner, bound: socket.socket, ssl_context: ssl.SSLContext | None
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        self._bound = bound

    @property
    def name(self) -> str:
        return f"unix:{self._bound.getsockname()}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        if server is None:
            raise RuntimeError("a runner is set up before its sites are")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            server, sock=self._bound, ssl=self._ssl_context, backlog=_QUEUE
        )


async def start(runner: web.AppRunner, door: Door, stack: AsyncExitStack) -> str:
    """Let a door be reached; returns its address. Raises OSError when it cannot be."""
    context, address = _tls(door), door.address
    try:
        if address.socket is None:
            await web.TCPSite(runner, address.host, address.port, ssl_context=context).start()
        else:
            bound = bind(address.socket)
            stack.callback(_remove, address.socket, address.socket.stat().st_ino)
            await _UnixSite(runner, bound, context).start()
    except OSError as error:
        raise OSError(
            f"a door cannot listen on {address} ({error.strerror}): set another address in [doors]"
            " or ARCHIVE_DOORS_INGEST, _RETRIEVAL, _OPERATIONS"
        ) from error
    if address.socket is not None:
        return str(address)
    host, port = runner.addresses[0][:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if door.tls_cert else 'http'}://{shown}:{port}"


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


def _tls(door: Door) -> ssl.SSLContext | None:
    if not door.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(door.tls_cert, door.tls_key)
    if door.tls_client_ca:
        context.load_verify_locations(door.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
