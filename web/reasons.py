"""Why somebody listens: said once for an hour, since a player cannot send a header, or with the
request itself.
"""

import json

from aiohttp import web

from archive import listening
from archive.errors import MalformedError
from storage import reading
from web import asked, render
from web.doors import Visit

HEADER = "Archive-Reason"

_LARGEST = 8192
"""Bytes of a body that holds a reason."""


async def give(request: web.Request, visit: Visit) -> web.Response:
    """`POST /v1/recordings/{id}/reasons`: opens its audio to the caller for an hour."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    said = listening.reason(await _said(request))
    until = await reading.give_reason(visit.vault, visit.caller, identifier, visit.now, said)
    shown = visit.vault.policy.local(until).isoformat()
    answer = render.data({"recording": str(identifier), "until": shown})
    answer.set_status(201)
    return answer


async def _said(request: web.Request) -> object:
    body = await request.content.read(_LARGEST + 1)
    try:
        known = json.loads(body) if len(body) <= _LARGEST else None
    except ValueError:
        known = None
    if not isinstance(known, dict):
        raise MalformedError('Send a body of JSON like {"reason": "..."}.')
    return known.get("reason")


def of(request: web.Request) -> str | None:
    """The reason that came with a request, if one did. Raises MalformedError."""
    value = request.headers.get(HEADER)
    return None if value is None else listening.reason_of_header(value)
