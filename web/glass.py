"""Breaking the glass, on both reading doors: a reader asks, who was named grants, either ends."""

from datetime import timedelta

from aiohttp import web

from archive import listening
from archive.access import READERS, Level
from archive.errors import MalformedError
from archive.recording import is_text
from storage import glass
from web import asked, render
from web.doors import Route, Visit

_ONE = "/v1/glass/{id}"


def readers_routes() -> list[Route]:
    """The addresses on the retrieval door."""
    return [
        Route("POST", "/v1/glass", READERS, ask),
        Route("POST", f"{_ONE}/grant", frozenset({Level.PRIVACY}), grant),
        Route("DELETE", _ONE, READERS, end),
    ]


def operators_routes() -> list[Route]:
    """The addresses on the operations door: an admin can be named as well."""
    admins = frozenset({Level.ADMIN})
    return [Route("POST", f"{_ONE}/grant", admins, grant), Route("DELETE", _ONE, admins, end)]


async def ask(request: web.Request, visit: Visit) -> web.Response:
    """`POST /v1/glass` {"reason", "approver", "minutes"}: ask to know of everything for a while."""
    asked.refuse_others(request)
    body = await asked.body(request, '{"reason": "...", "approver": "...", "minutes": 30}')
    minutes, approver = body.get("minutes", 0), body.get("approver")
    # In JSON 30.0 is a whole number, and True is none.
    if type(minutes) not in (int, float) or minutes not in range(1, 61):
        raise MalformedError("`minutes` is a whole number from 1 to 60.")
    if not (isinstance(approver, str) and is_text(approver)):
        raise MalformedError("`approver` is the name of a key.")
    reason = listening.reason(body.get("reason"))
    lasts = timedelta(minutes=int(minutes))
    identifier = await glass.ask(visit.vault, visit.caller, approver, lasts, reason)
    return render.data({"id": str(identifier)}, 201)


async def grant(request: web.Request, visit: Visit) -> web.Response:
    """`POST /v1/glass/{id}/grant`: let the reader; by whom they named."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    until = await glass.grant(visit.vault, visit.caller, identifier)
    shown = visit.vault.policy.local(until).isoformat()
    return render.data({"id": str(identifier), "until": shown})


async def end(request: web.Request, visit: Visit) -> web.Response:
    """`DELETE /v1/glass/{id}`: end it now; by either of the two."""
    asked.refuse_others(request)
    await glass.end(visit.vault, visit.caller, render.identifier(request))
    return web.Response(status=204, headers=render.NO_STORE)
