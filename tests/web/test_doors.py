"""A permission cannot be forgotten."""

import pytest
from aiohttp import web

from archive.access import Level
from storage.vault import Vault
from tests.services import Service, ways_in
from web import ingest, operations, pages, retrieval, sign_in
from web.doors import OpenRoute, Route, Visit, build


async def act(request: web.Request, visit: Visit) -> web.Response:
    return web.Response()


def test_a_route_without_a_level_does_not_start(vault: Vault) -> None:
    with pytest.raises(ValueError, match="GET /v1/secret says no level"):
        build(vault, "", [Route("GET", "/v1/secret", frozenset(), act)])


MEANT = {
    ("GET", "/openapi.json"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("OPTIONS", "/v1/uploads"),
    # Whoever sends these shows a signature, or is known by their network.
    ("POST", "/v1/hooks/{name}"),
    ("GET", "/orktrack/command"),
}


def test_only_what_is_meant_for_anybody_is_open() -> None:
    doors = [ways_in(), retrieval.routes(), operations.routes()]
    for routes in doors:
        opened = {(route.method, route.path) for route in routes if isinstance(route, OpenRoute)}
        opened -= {(each.method, each.path) for each in (*sign_in.routes(), *pages.routes())}
        assert opened <= MEANT
    assert not any(route.path.startswith("/sign-") for route in ingest.routes())
    uploads = {
        route.path
        for routes in doors[1:]
        for route in routes
        if isinstance(route, Route) and Level.UPLOADER in route.levels
    }
    assert uploads == set()


@pytest.mark.parametrize("level", ["supervisor", "auditor"])
async def test_what_is_read_has_headers_alone_too(service: Service, level: str) -> None:
    url = f"{service.retrieval}/v1/recordings"
    get, head = [await service.ask(how, url, level) for how in ("GET", "HEAD")]
    assert head.status == get.status == (200 if level == "supervisor" else 403)
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert await head.read() == b""


async def test_only_the_ingest_door_offers_basic_authentication(service: Service) -> None:
    path = "/v1/recordings"
    put = await service.ask("POST", service.ingest + path, None)
    assert "Basic" in put.headers["WWW-Authenticate"]
    get = await service.ask("GET", service.retrieval + path, None)
    assert get.headers["WWW-Authenticate"] == 'Bearer realm="call archive"'
