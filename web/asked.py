"""What a request asks for in its query: read once, and refused with what to do."""

import asyncio
import json
from datetime import date, datetime
from typing import Any

from aiohttp import web

from archive.errors import MalformedError
from archive.recording import LONGEST, is_text, parse_instant
from storage import numbers


def refuse_others(request: web.Request, *known: str) -> None:
    """A parameter that is misspelt or said twice must not pass for an answer to it."""
    for name in request.query:
        if name not in known:
            which = f"only: {', '.join(known)}" if known else "nor any other"
            raise MalformedError(f"There is no such parameter here, {which}.")
        if len(request.query.getall(name)) > 1:
            raise MalformedError(f"`{name}` can be given once.")


def given(request: web.Request) -> dict[str, str | list[str]]:
    """All that the query says of a call; what is said twice is refused with what else is wrong."""
    return {name: one(request.query.getall(name)) for name in request.query}


def one(values: list[str]) -> str | list[str]:
    """What was said once, or a list, which is no text."""
    return values if values[1:] else values[0]


def filters(request: web.Request) -> list[tuple[str, str]]:
    """What the query says of a search, each as often as it is said."""
    return [
        (name, numbers.with_plus(text) if name == "number" else text)
        for name, text in request.query.items()
    ]


def number(request: web.Request, name: str, default: int) -> int:
    """A whole number of at most 18 digits. Raises MalformedError for anything else."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise MalformedError(f"`{name}` is a whole number.")
    return int(text)


def text(request: web.Request, name: str) -> str | None:
    """A text of one line; None without it. Raises MalformedError for anything else."""
    value = request.query.get(name)
    if value is not None and not (0 < len(value.strip()) <= LONGEST and is_text(value)):
        raise MalformedError(f"`{name}` is a text of 1 to {LONGEST} characters.")
    return value


def day(request: web.Request, name: str, default: date) -> date:
    """A day. Raises MalformedError for anything else."""
    text = request.query.get(name)
    try:
        return default if text is None else date.fromisoformat(text)
    except ValueError:
        raise MalformedError(f"`{name}` is a day, like 2026-11-24.") from None


def instant(request: web.Request, name: str, default: datetime) -> datetime:
    """An instant. Raises MalformedError for anything else."""
    text = request.query.get(name)
    try:
        return default if text is None else parse_instant(text)
    except ValueError:
        raise MalformedError(
            f"`{name}` is a time with an offset, like 2026-11-24T09:30:00+02:00."
        ) from None


async def whole(
    request: web.Request, most: int, patience: float, too_large: Exception, too_late: Exception
) -> bytes:
    """A body of at most so many bytes that arrives within so many seconds; raises these if not."""
    body = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise too_late from None
    return bytes(body)


_LARGEST = 8192
"""Bytes of a body of JSON."""


async def body(request: web.Request, example: str) -> dict[str, Any]:
    """A small object of JSON. Raises MalformedError, which shows the example."""
    sent = await request.content.read(_LARGEST + 1)
    while len(sent) <= _LARGEST and (piece := await request.content.read(_LARGEST + 1)):
        sent += piece
    try:
        known = json.loads(sent) if len(sent) <= _LARGEST else None
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise MalformedError(f"Send a body of JSON like {example}.")
    return known
