"""Forms in parts (`multipart/form-data`): those of machines with audio in them, and those of pages
with a file.

A page's form tells the token of its session in its first part, ahead of the file: of a form that
another site made, nothing further is read.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable

from aiohttp import BodyPartReader, ClientPayloadError, MultipartReader, web
from aiohttp.http import HttpProcessingError

from archive.errors import MalformedError

KIND = "multipart/form-data"

_PIECE = 2**18
_LINE = 2**12
"""The most bytes of a field that is no file."""

_SILENCE = 20.0
"""Seconds that a part of a page's form may take to arrive."""

_READER = web.RequestKey("reader", MultipartReader)


async def form(request: web.Request) -> MultipartReader:
    """The form that the body is."""
    try:
        return await request.multipart()
    except (KeyError, ValueError, AssertionError):  # the first without any Content-Type
        raise MalformedError("The form cannot be read: it names no boundary.") from None


async def next_part(reader: MultipartReader) -> BodyPartReader | None:
    """The next part of a form, or None behind the last."""
    try:
        part = await reader.next()
    except (ValueError, ClientPayloadError):
        raise MalformedError("The form is broken off, or its boundaries are wrong.") from None
    except (HttpProcessingError, RuntimeError):
        raise MalformedError("The headers of a part of the form cannot be read.") from None
    if part is not None and not isinstance(part, BodyPartReader):
        raise MalformedError("A form within a form is not taken.")
    return part


async def pieces_of(part: BodyPartReader) -> AsyncIterator[bytes]:
    """A part of a form as it arrives."""
    try:
        while piece := await part.read_chunk(_PIECE):
            yield piece
    except ValueError:
        raise MalformedError("The form is broken off, or its boundaries are wrong.") from None


async def token(request: web.Request, name: str) -> str:
    """What the first part of a page's form says, if it is of this name. Raises MalformedError."""
    request[_READER] = reader = await form(request)
    said = await _in_time(_first(reader, name))
    return (said or b"").decode(errors="replace")


async def file(request: web.Request, name: str, most: int) -> bytes | None:
    """The file of a page's form, empty where none was chosen; None when it has more than `most`
    bytes, and then no more of it was read. Raises MalformedError.
    """
    reader = request.get(_READER) or await form(request)
    return await _in_time(_named(reader, name, most))


async def _first(reader: MultipartReader, name: str) -> bytes | None:
    part = await next_part(reader)
    return await _whole(part, _LINE) if part is not None and part.name == name else None


async def _named(reader: MultipartReader, name: str, most: int) -> bytes | None:
    while (part := await next_part(reader)) is not None:
        if part.name == name:
            return await _whole(part, most)
    raise MalformedError("The form has no file in it.")


async def _whole(part: BodyPartReader, most: int) -> bytes | None:
    held = bytearray()
    async for piece in pieces_of(part):
        held += piece
        if len(held) > most:
            return None
    return bytes(held)


async def _in_time(reading: Awaitable[bytes | None]) -> bytes | None:
    try:
        async with asyncio.timeout(_SILENCE):
            return await reading
    except TimeoutError:
        raise MalformedError("The form did not arrive whole.") from None
