"""Exports over HTTP: asked for, agreed to, looked after, fetched as a ZIP."""

from contextlib import nullcontext

from aiohttp import hdrs, web

from archive import export, listening
from archive.access import READERS
from archive.errors import MalformedError
from storage import exports, playback
from storage.exports import AGREE, Export, Package
from web import asked, render, sending
from web.allowance import Allowance
from web.doors import Route, Visit

_ONE = "/v1/exports/{id}"


def routes() -> list[Route]:
    """The addresses on the retrieval door."""
    return [
        Route("POST", "/v1/exports", READERS, ask),
        Route("GET", "/v1/exports", READERS, show_all),
        Route("GET", _ONE, READERS, show),
        Route("DELETE", _ONE, READERS, withdraw),
        Route("POST", f"{_ONE}/agree", AGREE, agree),
        Route("GET", f"{_ONE}/file", READERS, fetch),
        Route("HEAD", f"{_ONE}/file", READERS, fetch_head),
    ]


async def ask(request: web.Request, visit: Visit) -> web.Response:
    """`POST /v1/exports` {"recordings", "reason"}: have these made into one file."""
    asked.refuse_others(request)
    body = await asked.body(request, '{"recordings": ["..."], "reason": "..."}')
    ids = body.get("recordings")
    if not isinstance(ids, list):
        raise MalformedError(f"`recordings` is a list of 1 to {export.MOST} ids.")
    reason = listening.reason(body.get("reason"))
    made = await exports.ask(visit.vault, visit.caller, export.chosen(ids), reason, visit.now)
    return render.data(_shown(visit, made), 201, Location=f"/v1/exports/{made.order.id}")


async def show_all(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/exports`: one's own, and those that wait for who may agree."""
    asked.refuse_others(request)
    found = await exports.of(visit.vault, visit.caller, visit.now)
    return render.data({"items": [_shown(visit, each) for each in found]})


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/exports/{id}`: how far it is."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    return render.data(
        _shown(visit, await exports.find(visit.vault, visit.caller, identifier, visit.now))
    )


async def agree(request: web.Request, visit: Visit) -> web.Response:
    """`POST /v1/exports/{id}/agree`: let another person have a mass export."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    return render.data(
        _shown(visit, await exports.agree(visit.vault, visit.caller, identifier, visit.now))
    )


async def withdraw(request: web.Request, visit: Visit) -> web.Response:
    """`DELETE /v1/exports/{id}`: end it now; its bytes go within a minute or so."""
    asked.refuse_others(request)
    await exports.withdraw(visit.vault, visit.caller, render.identifier(request), visit.now)
    return web.Response(status=204, headers=render.NO_STORE)


async def fetch(request: web.Request, visit: Visit) -> web.StreamResponse:
    """`GET /v1/exports/{id}/file`: the ZIP, by who asked for it."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    found = await exports.fetch(visit.vault, visit.caller, identifier, visit.now)
    response = web.StreamResponse(headers=_headers(found))
    allowance = Allowance(visit, *found.recordings, export=found.order)
    sealed = (found.object_key, found.offset, found.seal, found.size)
    pieces = playback.unsealed(visit.vault, *sealed, 0, found.size)
    return await sending.stream(request, allowance, response, nullcontext(pieces))


async def fetch_head(request: web.Request, visit: Visit) -> web.Response:
    """`HEAD` of the same: whether it can be fetched, and nothing is."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    found = await exports.fetch(visit.vault, visit.caller, identifier, visit.now, heard=False)
    return web.Response(headers=_headers(found))


def _headers(found: Package) -> dict[str, str]:
    return {
        **render.NO_STORE,
        hdrs.CONTENT_TYPE: "application/zip",
        hdrs.CONTENT_LENGTH: str(found.size),
        hdrs.CONTENT_DISPOSITION: f'attachment; filename="export-{found.order.id}.zip"',
        "Sunset": render.http_date(found.order.expires_at),
    }


def _shown(visit: Visit, found: Export) -> dict[str, object]:
    order, local = found.order, visit.vault.policy.local
    return {
        "id": str(order.id),
        "stage": found.stage,
        "ended": found.ended,
        "recordings": found.number,
        "done": found.done,
        "bytes": found.bytes,
        "mass": found.mass,
        "reason": order.reason,
        "asked_by": order.asker,
        "asked_at": local(order.asked_at).isoformat(),
        "agreed_by": order.agreed_by,
        "expires_at": local(order.expires_at).isoformat(),
    }
