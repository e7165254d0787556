"""Call detail records: taken at the ingest door, and what they show at the operations door.

The first says what became of each record. The second counts calls by source and hour, and says
nothing of any one of them.
"""

import asyncio
from datetime import timedelta
from zoneinfo import ZoneInfo

from aiohttp import web

from archive import cdr
from archive.access import OPERATORS, Level
from archive.errors import (
    InvalidError,
    MalformedError,
    NotAudioError,
    TooLargeError,
    UnavailableError,
)
from archive.sidecar import UnclearError
from storage import cdrs
from storage import gaps as counted
from storage.database import connection
from web import asked, digests, render
from web.doors import Route, Visit

MOST = 8 * 2**20
"""Bytes of one body of records."""

_PATIENCE = 60.0
"""Seconds for a body to come in."""


def taking() -> list[Route]:
    """The address on the ingest door."""
    return [Route("POST", "/v1/cdr", frozenset({Level.UPLOADER}), post, first=_before)]


def telling() -> list[Route]:
    """The address on the operations door."""
    return [Route("GET", "/v1/gaps", OPERATORS, gaps)]


async def _before(request: web.Request, visit: Visit) -> None:
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise NotAudioError("Send the records as they are: a Content-Encoding is not taken.")
    if (request.content_length or 0) > MOST:
        raise _too_large()
    digests.offer_of(request)


def _too_large() -> TooLargeError:
    return TooLargeError(f"A body of records may have {MOST} bytes at the most.", max_bytes=MOST)


async def post(request: web.Request, visit: Visit) -> web.Response:
    """`POST /v1/cdr`: one record or many, as JSON, CSV, Asterisk or FreeSWITCH write them.

    They are read by a thread: ten thousand of them take seconds.
    """
    zone = _zone(request)
    late = UnavailableError("The records took over a minute; nothing was kept.")
    body = await asked.whole(request, MOST, _PATIENCE, _too_large(), late)
    await asyncio.to_thread(digests.check, request, body)
    try:
        found = await asyncio.to_thread(cdr.read, body, zone)
    except UnclearError as error:
        raise MalformedError(f"These are no records of calls: {error}.") from None
    if not found.details:
        told = found.errors or {0: "there is no record"}
        raise InvalidError({f"record {number}": why for number, why in told.items()})
    took = await cdrs.take(visit.vault, visit.caller, found.details, visit.now)
    return render.data(
        {
            "new": took.new,
            "known": took.known,
            "unanswered": took.unanswered,
            "over": took.over,
            "ahead": took.ahead,
            "wrong": found.wrong,
            "errors": {str(number): why for number, why in found.errors.items()},
        }
    )


def _zone(request: web.Request) -> ZoneInfo | None:
    name = request.query.get("zone")
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):
        raise MalformedError("`zone` is the name of a time zone, like Europe/Helsinki.") from None


async def gaps(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/gaps?from=…&to=…&source=…`: answered calls without a recording, by hour."""
    asked.refuse_others(request, "from", "to", "source")
    policy, within = visit.vault.policy, visit.vault.limits.expected_within
    since = asked.instant(request, "from", visit.now - timedelta(days=7))
    before = asked.instant(request, "to", visit.now)
    source = asked.text(request, "source")
    async with connection(visit.vault.pool) as lent:
        hours = await counted.by_hour(lent, since, before, source, within)
    return render.data(
        {
            "expected_within": within.total_seconds(),
            "answered": sum(hour.answered for hour in hours),
            "missing": sum(hour.missing for hour in hours),
            "awaited": sum(hour.awaited for hour in hours),
            "hours": [
                {
                    "source": hour.source,
                    "hour": policy.local(hour.hour).isoformat(),
                    "answered": hour.answered,
                    "missing": hour.missing,
                    "awaited": hour.awaited,
                }
                for hour in hours
            ],
        }
    )
