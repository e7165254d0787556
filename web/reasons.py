"""Why somebody listens: said once for an hour, since a player cannot send a header, or with the
request itself.
"""

from aiohttp import web

from archive import listening
from storage import reading
from web import asked, render
from web.doors import Visit

HEADER = "Archive-Reason"


async def give(request: web.Request, visit: Visit) -> web.Response:
    """`POST /v1/recordings/{id}/reasons`: opens its audio to the caller for an hour."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    body = await asked.body(request, '{"reason": "..."}')
    said = listening.reason(body.get("reason"))
    until = await reading.give_reason(visit.vault, visit.caller, identifier, visit.now, said)
    shown = visit.vault.policy.local(until).isoformat()
    return render.data({"recording": str(identifier), "until": shown}, 201)


def of(request: web.Request) -> str | None:
    """The reason that came with a request, if one did. Raises MalformedError."""
    value = request.headers.get(HEADER)
    return None if value is None else listening.reason_of_header(value)
