"""Every answer of every door says the same of itself: each route, each level, each error, and what
aiohttp refuses before any of our code.
"""

import asyncio
import re
from typing import Any

import pytest
import yarl
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from storage.vault import Vault
from tests.services import FREELY, Service, open_service
from tests.sounds import tone
from tests.web.test_openapi import ROUTES, plain
from tests.web.test_upload import query
from web import doors, face, headers
from web.doors import OpenRoute

ID = "019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02"
DISPOSITION = re.compile(r'inline; filename="[0-9a-f-]{36}\.[a-z0-9]{2,4}"')
"""RFC 6266, and within it a quoted string in which nothing would have to be quoted."""


def dressed(answer: Any) -> None:
    """Hold the headers of one answer against what each has to say."""
    said = answer.headers
    policy = said["Content-Security-Policy"]
    page = policy != headers.DATA
    if page:
        assert not answer.url.path.startswith("/v1/")
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
    assert said["X-Content-Type-Options"] == "nosniff"
    # A form of a page has to tell its own door where it comes from.
    assert said["Referrer-Policy"] in ("no-referrer", *(["same-origin"] if page else []))
    assert said["Cross-Origin-Opener-Policy"] == "same-origin"
    assert said["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert said["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "microphone=()" in said["Permissions-Policy"]
    assert said["Cache-Control"] == "private, no-store"
    assert said["Server"] == "call-archive"
    assert "Strict-Transport-Security" not in said
    assert len(said) == len(set(map(str.lower, said))), "no header is said twice"


def address(path: str, **values: str) -> str:
    """A path with its parameters filled in."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], "x"), plain(path))


async def test_every_route_says_it_to_everybody(vault: Vault) -> None:
    async with open_service(vault, FREELY) as service:
        await _says_it(service)


async def _says_it(service: Service) -> None:
    kept = await (await service.put("a", tone(), query())).json()
    for door, routes in ROUTES.items():
        for route in routes:
            for where in (address(route.path, id=kept["id"]), address(route.path, id=ID)):
                for level in (None, "nobody", *service.tokens):
                    url = getattr(service, door) + where
                    answer = await service.ask(route.method, url, level)
                    dressed(answer)
                    if not isinstance(route, OpenRoute):
                        refused = {None: 401, "nobody": 401}.get(level)
                        assert answer.status == refused or level in service.tokens
                    await answer.read()


async def test_every_kind_of_error_says_it(service: Service) -> None:
    full = query()
    one = (await (await service.put("a", tone(), full)).json())["id"]
    answers = [
        await service.put("a", tone(pitch=880), full),
        await service.put("b", b"no sound", full),
        await service.put("b", tone(), {}),
        await service.put("b", tone(), full, headers={"Content-MD5": "x"}),
        await service.put("b", tone(), full, headers={"Content-Encoding": "gzip"}),
        await service.put("b", tone(), full, headers={"Expect": "a miracle"}),
        await service.put("b", tone(), full, headers={"Expect": "100-continue"}, token="no"),
        await service.put("b", bytes(service.limits.max_bytes + 1), full),
        await service.ask("DELETE", f"{service.retrieval}/v1/recordings", "supervisor"),
        await service.get("/nowhere"),
        await service.get("/v1/recordings?nothing=x"),
        await service.get(f"/v1/recordings/{one}/audio", Range="bytes=99999999-"),
        await service.get(f"/v1/recordings/{one}/audio", Range="bytes=0-9"),
    ]
    for answer in answers:
        dressed(answer)
    assert sorted({answer.status for answer in answers}) == [
        206, 400, 401, 404, 405, 409, 413, 415, 416, 422,
    ]  # fmt: skip


async def test_what_is_no_http_is_answered_with_it(service: Service) -> None:
    door = yarl.URL(service.retrieval)
    for request in (
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(door.host, door.port)
        writer.write(request)
        head = (await reader.read()).partition(b"\r\n\r\n")[0].decode()
        writer.close()
        await writer.wait_closed()
        lines = head.split("\r\n")
        assert " 400 " in lines[0]
        said = CIMultiDict(line.split(": ", 1) for line in lines[1:])
        dressed(type("Answer", (), {"headers": CIMultiDictProxy(said)}))


async def test_what_fails_says_it(service: Service, vault: Vault) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise ValueError

    runner = doors.runner(doors.build(vault, "", [OpenRoute("GET", "/", fail)]), 1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        answer = await service.session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        assert answer.status == 500
        dressed(answer)
    finally:
        await runner.cleanup()


async def test_over_tls_a_browser_is_told_to_stay_with_it() -> None:
    answer = web.Response()
    headers.dress(answer, secure=True)
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


def test_what_an_answer_says_itself_stays() -> None:
    own = headers.styled("x")
    page = web.Response(headers={"Content-Security-Policy": own, "Cache-Control": "x"})
    headers.dress(page, secure=False)
    assert page.headers["Content-Security-Policy"] == own
    assert page.headers["Cache-Control"] == "x"
    assert page.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("policy", [headers.DATA, headers.styled("x"), face.policy("x")])
def test_no_policy_lets_anything_within_a_page_run(policy: str) -> None:
    words = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    assert words["default-src"] == ["'none'"]
    assert words["frame-ancestors"] == words["base-uri"] == ["'none'"]
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "data:" not in policy
    assert words.get("script-src", ["'self'"]) == ["'self'"]


async def test_file_names_are_made_of_the_id_whatever_was_sent(service: Service) -> None:
    """RFC 6266: no name, type or id that a sender chose comes back in one."""
    sent = [
        ('x"; filename="evil.exe', tone(0.5, pitch=300), "audio/x-wav"),
        ("x%0D%0ASet-Cookie: a=b", tone(0.5, pitch=400), 'audio/"x\\"'),
        ("\N{RIGHT-TO-LEFT OVERRIDE}vaw.exe", tone(0.5, pitch=500), "text/html"),
        ("../../etc/passwd", bytes(4000), "audio/PCMA; rate=8000; channels=1"),
    ]
    for call_id, audio, kind in sent:
        taken = await service.put(call_id, audio, query(), content_type=kind)
        assert taken.status == 201, await taken.text()
        one = (await taken.json())["id"]
        for wanted in ("", "?format=wav", "?format=mp3", "?format=ogg"):
            answer = await service.get(f"/v1/recordings/{one}/audio{wanted}")
            assert answer.status == 200
            assert DISPOSITION.fullmatch(answer.headers["Content-Disposition"])
            assert one in answer.headers["Content-Disposition"]
            assert answer.headers["Content-Type"].startswith("audio/")
            assert "html" not in answer.headers["Content-Type"]
            assert "Set-Cookie" not in answer.headers
            dressed(answer)
            await answer.read()


@pytest.mark.parametrize("door", ROUTES)
async def test_what_answers_get_answers_head(service: Service, door: str) -> None:
    kept = await (await service.put("a", tone(), query())).json()
    levels = {"retrieval": "supervisor", "operations": "auditor", "ingest": "uploader"}
    for route in ROUTES[door]:  # type: ignore[index]
        if route.method != "GET":
            continue
        url = getattr(service, door) + address(route.path, id=kept["id"], name="0/000", day="x")
        got = await service.ask("GET", url, levels[door])
        head = await service.ask("HEAD", url, levels[door])
        assert head.status == got.status, url
        assert await head.read() == b""
        bodiless = {"Transfer-Encoding"} | ({"Content-Length"} if got.status == 303 else set())
        assert set(head.headers) ^ set(got.headers) <= bodiless, url
        if got.status < 300:
            assert head.headers["Content-Type"] == got.headers["Content-Type"]
        await got.read()
        if not isinstance(route, OpenRoute):
            assert (await service.ask("HEAD", url, None)).status == 401
