"""Each request has one line in the log, which says who asked what by which right, in ids alone."""

import asyncio
import json
import logging
import re
from typing import Any

import pytest
import yarl

from app import lines
from storage.vault import Vault
from tests.services import FREELY, Service, open_service
from tests.sounds import tone
from tests.web.test_headers import address
from tests.web.test_openapi import ROUTES, plain
from tests.web.test_upload import query
from web.doors import OpenRoute

ID = "019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02"
FORGED = "needle%0D%0A%22event%22%3A%20%22request%22"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    """What was logged of requests since it was last asked, as the log has it."""
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(lines.Json())

    async def since() -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        texts = [json.loads(line) for line in caplog.text.splitlines()]
        caplog.clear()
        return [line for line in texts if line["event"] == "request"]

    return since


async def asked(service: Service, told: Any, method: str, url: str, token: str | None) -> Any:
    """Ask, and the one line about it."""
    await told()
    answer = await service.ask(method, url, token)
    await answer.read()
    async with asyncio.timeout(20):
        while not (found := await told()):
            await asyncio.sleep(0.01)
    assert len(found) == 1
    line = found[0]
    assert line["status"] == answer.status
    assert line["request"] == answer.headers["X-Request-Id"]
    assert line["ms"] >= 0
    return line


async def test_every_decision_on_every_route_is_told(vault: Vault, told: Any) -> None:
    async with open_service(vault, FREELY) as service:
        await _tells(service, told)


async def _tells(service: Service, told: Any) -> None:
    ids = {name: token.split("_")[1] for name, token in service.tokens.items()}
    for door, routes in ROUTES.items():
        for route in routes:
            url = getattr(service, door) + address(route.path, id=ID)
            for level in (None, "nobody", *service.tokens):
                line = await asked(service, told, route.method, url, level)
                assert (line["method"], line["route"]) == (route.method, plain(route.path))
                if isinstance(route, OpenRoute):
                    assert "decision" not in line
                    continue
                allowed = level in map(str, route.levels)
                assert line["decision"] == ("allowed" if allowed else "refused")
                if not allowed:
                    known = level in service.tokens
                    assert line["problem"] == ("forbidden" if known else "unauthenticated")
                assert line.get("actor") == ids.get(str(level))


async def test_nothing_that_was_sent_is_in_a_line(service: Service, told: Any) -> None:
    for url, route in (
        (f"{service.retrieval}/v1/recordings/{FORGED}", "/v1/recordings/{id}"),
        (f"{service.retrieval}/{FORGED}?{FORGED}={FORGED}", None),
        (f"{service.ingest}/v1/recordings/{FORGED}?agent={FORGED}", "/v1/recordings/{call_id}"),
    ):
        method = "PUT" if "call_id" in str(route) else "GET"
        line = await asked(service, told, method, yarl.URL(url, encoded=True), "supervisor")
        assert line.get("route") == route
        assert "needle" not in json.dumps(line)


async def test_what_is_refused_before_it_is_a_request_has_a_line_too(
    service: Service, told: Any
) -> None:
    await told()
    door = yarl.URL(service.ingest)
    for text in (
        b"\0\r\n\r\n",
        b"PUT /v1/recordings/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 5\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(door.host, door.port)
        writer.write(text)
        head = await reader.read()
        writer.close()
        found = re.search(rb"X-Request-Id: ([0-9a-f]{16})", head)
        assert found
        async with asyncio.timeout(20):
            while not (lines_of_it := await told()):
                await asyncio.sleep(0.01)
        assert [line["request"] for line in lines_of_it] == [found[1].decode()]
        assert lines_of_it[0]["problem"] in ("malformed", "unauthenticated")


async def test_who_hangs_up_has_a_line_without_a_status(service: Service, told: Any) -> None:
    await told()
    door = yarl.URL(service.ingest)
    params = yarl.URL().with_query(query()).raw_query_string
    _, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(
        f"PUT /v1/recordings/a?{params} HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n"
        f"Authorization: Bearer {service.tokens['uploader']}\r\n\r\n".encode()
        + tone()[:1000]
    )
    async with asyncio.timeout(20):
        while not service.vault.intakes:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while not (found := await told()):
            await asyncio.sleep(0.01)
    assert found[0]["route"] == "/v1/recordings/{call_id}"
    assert found[0]["decision"] == "allowed"
