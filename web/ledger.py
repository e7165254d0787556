"""The ledger, to read and to check: its entries, its signed checkpoint, and the tiles of its tree.

Checkpoint, tiles and bundles of entries stand at the addresses of C2SP tlog-tiles, under
`/v1/ledger/`: whatever reads such logs can read this one.
"""

from aiohttp import web

from archive import tiles
from archive.access import OPERATORS
from archive.errors import MalformedError, NotFoundError
from archive.ledger import instant
from storage import ledger, tree
from storage.database import connection
from web import asked, render
from web.doors import OpenRoute, Route, Visit

PAGE = 1000
"""Entries on one page, at the most."""


def routes() -> list[Route | OpenRoute]:
    """The ledger's addresses, on the operations door."""
    return [
        Route("GET", "/v1/ledger", OPERATORS, entries),
        Route("GET", "/v1/ledger/checkpoint", OPERATORS, checkpoint),
        Route("GET", "/v1/ledger/tile/{name:.+}", OPERATORS, tile),
    ]


async def entries(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/ledger?from=POSITION&limit=N`: what was done, by which key, when; oldest first."""
    asked.refuse_others(request, "from", "limit")
    first, limit = asked.number(request, "from", 0), asked.number(request, "limit", 100)
    if not 1 <= limit <= PAGE:
        raise MalformedError(f"`limit` is a whole number from 1 to {PAGE}.")
    await tree.sequence(visit.vault)
    async with connection(visit.vault.pool) as lent:
        page = await ledger.page(lent, first, limit)
    items = [
        {
            "position": entry.position,
            "at": instant(entry.at),
            "actor": entry.actor,
            "act": entry.act,
            "recording": entry.recording and str(entry.recording),
            "facts": entry.facts,
            "sealed": entry.sealed,
        }
        for entry in page
    ]
    return render.data({"items": items, "next_from": page[-1].position + 1 if page else first})


async def checkpoint(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/ledger/checkpoint`: the ledger as it stands now, as a signed note."""
    asked.refuse_others(request)
    note = await tree.checkpoint(visit.vault)
    return web.Response(text=str(note), content_type="text/plain", headers=render.NO_STORE)


async def tile(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/ledger/tile/{level}/{number}[.p/{width}]`, and `tile/entries/...`: hashes, entries.

    404 for one that is not as wide yet.
    """
    asked.refuse_others(request)
    named = tiles.parse(request.match_info["name"])
    if named is None:
        raise NotFoundError("There is no such tile: they are named like 0/x001/234 or 0/005.p/17.")
    level, index, width = named
    if index * tiles.FULL >= 2**63:
        raise NotFoundError("No ledger is that large.")
    async with connection(visit.vault.pool) as lent:
        if level is None:
            texts = [entry.text for entry in await ledger.page(lent, index * tiles.FULL, width)]
            found, enough = tiles.bundle(texts), len(texts) == width
        else:
            hashes = await tree.tile(lent, level, index) or b""
            found, enough = hashes[: width * tiles.HASH], len(hashes) >= width * tiles.HASH
    if not enough:
        raise NotFoundError("The ledger is not that large yet.")
    return web.Response(
        body=found, content_type="application/octet-stream", headers=render.NO_STORE
    )
