"""Sending an answer piece by piece, for as long as it is allowed and not a byte longer."""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from aiohttp import hdrs, web

from web.allowance import Allowance

log = logging.getLogger("archive.web")

_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # named from Python 3.12 on
_UNSENT = 1 << 17


async def stream(
    request: web.Request,
    allowance: Allowance,
    response: web.StreamResponse,
    source: AbstractAsyncContextManager[AsyncIterator[bytes]],
) -> web.StreamResponse:
    """Send pieces until the end, or as long as it is allowed.

    What fails before the first byte is told as a problem; afterwards the connection is cut, so that
    nobody takes a part for the whole.
    """
    try:
        async with allowance, source as pieces:
            first = await anext(pieces, b"")
            _hold_little(request.transport)
            await response.prepare(request)
            if request.method == hdrs.METH_HEAD:
                return response
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
    except Exception as error:
        if not response.prepared:
            if allowance.over:
                raise allowance.refusal() from None
            raise
        _cut(request.transport)
        log.warning("an answer was cut off: %s", allowance.over or type(error).__name__)
    return response


def _hold_little(transport: asyncio.Transport | None) -> None:
    """Keep what the kernel has taken over and not sent yet small: it cannot be called back."""
    if transport is not None and (held := transport.get_extra_info("socket")) is not None:
        if held.family == socket.AF_UNIX:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT)
        else:
            held.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT)


def _cut(transport: asyncio.Transport | None) -> None:
    """End a connection now, and let what the kernel still holds go: a mere close would send it."""
    if transport is None:
        return
    if (held := transport.get_extra_info("socket")) is not None:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
