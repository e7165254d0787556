"""The OpenAPI page of each door, as it is written in `web/openapi_<door>.json`."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Literal

from aiohttp import web

Door = Literal["ingest", "retrieval", "operations"]


def text(door: Door) -> str:
    """The document of one door, in JSON."""
    return files("web").joinpath(f"openapi_{door}.json").read_text(encoding="utf-8")


def page(door: Door) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that answers with the document of one door."""
    document = text(door)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=document, content_type="application/json")

    return answer
