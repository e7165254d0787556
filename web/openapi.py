"""The OpenAPI page of each door, as it is written in `web/openapi_<door>.json`.

A path or a component that is `"shared"` there is the one of `web/openapi_shared.json`.
"""

import json
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Literal

from aiohttp import web

Door = Literal["ingest", "retrieval", "operations"]


def text(door: Door) -> str:
    """The document of one door, in JSON."""
    document, shared = _read(door), _read("shared")
    _fill(document["paths"], shared["paths"])
    for kind, components in document["components"].items():
        _fill(components, shared["components"].get(kind, {}))
    return json.dumps(document)


def page(door: Door) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that answers with the document of one door."""
    document = text(door)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=document, content_type="application/json")

    return answer


def _fill(own: dict[str, Any], shared: dict[str, Any]) -> None:
    own.update({name: shared[name] for name, value in own.items() if value == "shared"})


def _read(name: str) -> dict[str, Any]:
    path = files("web").joinpath(f"openapi_{name}.json")
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read
