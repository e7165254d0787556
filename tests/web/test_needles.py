"""Needles through every address of every door, with the right key and with wrong ones, in the path,
the query, the headers and the body: none is found afterwards in an answer that is not about it, a
log line, a figure, the ledger, the store, a file, the database's own files and log, or the list of
processes and their environment.
"""

import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yarl

from app import lines
from archive.bounds import read_networks
from storage.vault import Vault
from tests.needles import CALL_ID, FILE_NAME, NEEDLES, WRONG, errors, files, found, no_http, talking
from tests.needles import use as use_well
from tests.postgres import Postgres
from tests.services import Service, open_service
from tests.stores.servers import Server, running_rclone
from tests.web.test_openapi import DOCUMENTS, ROUTES, names, plain
from tests.web.test_upload import query
from web.limits import Limits

TOKENS = ("right", "unknown", None, "supervisor", "auditor", "uploader")
HEADERS = {
    "User-Agent": WRONG,
    "Referer": f"https://{WRONG}.example/{NEEDLES['customer']}",
    "Cookie": f"name={NEEDLES['queue']}",
    "Origin": f"https://{WRONG}.example",
    "Accept-Language": WRONG,
    "Range": f"bytes={WRONG}",
    "If-Range": f'"{WRONG}"',
    "If-None-Match": f'"{WRONG}"',
    "X-Forwarded-For": NEEDLES["caller"],
    "X-Request-Id": WRONG,
    "Traceparent": WRONG,
    "Content-Disposition": f'attachment; filename="{FILE_NAME}"',
    NEEDLES["contract"]: WRONG,
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of its own that writes down every statement with what belongs to it."""
    server = Postgres(log_statement="all", log_parameter_max_length="-1", log_min_messages="info")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def rclone_server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, whose folder can be read to the last byte."""
    with running_rclone(tmp_path / "store") as server:
        yield server


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged, from the least level on, as the service writes it; the tests' own client
    apart, and asyncio's own debugging."""
    out, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(out)
    handler.setFormatter(lines.Json())
    handler.addFilter(lambda record: not record.name.startswith(("asyncio", "tests", "aiohttp")))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield out
    root.removeHandler(handler)
    root.setLevel(level)


async def everywhere(service: Service, identifier: str) -> list[tuple[str, str]]:
    """Ask each address with needles wherever something can stand; each answer and where from."""
    said = []
    for door, routes in ROUTES.items():
        for route in routes:
            told = DOCUMENTS[door]["paths"].get(plain(route.path), {})  # pages are in none
            wanted = (
                names(door, plain(route.path), "get") if "parameters" in told.get("get", {}) else {}
            )
            asked = {name: WRONG for name in (*wanted, *NEEDLES, WRONG) if name not in HEADERS}
            for filled in (WRONG, identifier):
                path = re.sub(r"\{[^{}]+\}", filled, plain(route.path))
                for given in ({}, asked, NEEDLES):
                    for token in TOKENS:
                        url = yarl.URL(getattr(service, door) + path).with_query(given)
                        said.append(await ask(service, route.method, url, token))
    return said


async def ask(service: Service, method: str, url: yarl.URL, token: str | None) -> tuple[str, str]:
    """One answer, with its headers, and where it is from."""
    login = {
        None: {},
        "right": {"Authorization": f"Bearer {service.tokens['supervisor']}"},
        "unknown": {"Authorization": f"Bearer {WRONG}"},
    }.get(token, {"Authorization": f"Bearer {service.tokens.get(str(token))}"})
    body: Any = talking() if method in ("PUT", "POST") else None
    async with service.session.request(
        method, url, data=body, headers={**HEADERS, **login}, allow_redirects=False
    ) as answer:
        assert answer.status < 500, (method, url.path, await answer.text())
        # Who may read is told, and who handed a call over gets the receipt.
        about_it = answer.status < 300 and token in ("right", "supervisor", "uploader")
        text = "" if about_it else (await answer.read()).decode("utf-8", "replace")
        return f"{method} {url.path} {answer.status} {token}", f"{answer.headers} {text}"


def processes() -> Iterator[str]:
    """How each process of the service was started, and its environment."""
    for process in psutil.Process().children(recursive=True):
        try:
            yield f"{process.cmdline()} {process.environ()}"
        except psutil.Error:
            continue


@pytest.fixture
async def service(vault: Vault) -> AsyncIterator[Service]:
    """The three doors, which do not count the wrong keys of this address."""
    async with open_service(vault, Limits(proxies=read_networks("127.0.0.0/8"))) as opened:
        yield opened


@pytest.mark.timeout(600)
async def test_no_needle_is_found_anywhere(
    service: Service, postgres: Postgres, log: io.StringIO, tmp_path: Path
) -> None:
    taken = await service.put(CALL_ID, talking(), query(**NEEDLES))
    assert taken.status == 201
    identifier = (await taken.json())["id"]
    await use_well(service, identifier)
    said = [(name, text) for name, text in await everywhere(service, identifier)]
    assert {name.split()[2] for name, _ in said} >= {"200", "400", "401", "403", "404"}
    said += [("error", text) for text in await errors(service, identifier)]
    await no_http(service)
    for path in ("/metrics", "/readyz", "/healthz", "/v1/expiry", "/v1/ledger?limit=1000"):
        answer = await service.operate(path)
        said.append((path, f"{answer.status} {answer.headers} {await answer.text()}"))
    assert any('"listened"' in text for _, text in said)
    assert [(name, found(text)) for name, text in said if found(text)] == []

    told = log.getvalue().splitlines()
    assert sum(json.loads(line)["event"] == "request" for line in told) > 500
    assert [(line, found(line)) for line in told if found(line)] == []
    assert [found(text) for text in processes() if found(text)] == []
    for folder in (tmp_path, postgres.folder):
        for name, content in files(folder):
            assert found(name) == [], name
            assert found(content) == [], name
    statements = (postgres.folder / "log").read_text()
    assert "INSERT INTO recording" in statements
    assert "arameters: $1" in statements, "what belongs to the statements is there"


def test_a_needle_in_a_process_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_NAME", NEEDLES["agent"])
    with psutil.Popen(["sleep", "60"]) as process:
        assert any(found(text) for text in processes())
        process.kill()
