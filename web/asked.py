"""What a request asks for in its query: read once, and refused with what to do."""

from datetime import date, datetime

from aiohttp import web

from archive.errors import MalformedError
from archive.recording import parse_instant


def refuse_others(request: web.Request, *known: str) -> None:
    """A parameter that is misspelt or said twice must not pass for an answer to it."""
    for name in request.query:
        if name not in known:
            which = f"only: {', '.join(known)}" if known else "nor any other"
            raise MalformedError(f"There is no such parameter here, {which}.")
        if len(request.query.getall(name)) > 1:
            raise MalformedError(f"`{name}` can be given once.")


def number(request: web.Request, name: str, default: int) -> int:
    """A whole number of at most 18 digits. Raises MalformedError for anything else."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise MalformedError(f"`{name}` is a whole number.")
    return int(text)


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
