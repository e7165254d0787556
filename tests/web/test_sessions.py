"""Sessions: what they open, how they end, and that no other site can use one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from archive.access import Level
from archive.bounds import Rate
from archive.recording import Call, CallType
from archive.retention import Expiry
from storage import accounts, sessions
from storage.credentials import Limits
from tests import services
from tests.roles import acting, connection
from tests.services import Service, _door
from tests.sounds import tone
from tests.web.browsing import OWN, Browser, code_of, signed_in
from tests.web.test_allowance import LONG, listening, rest
from tests.web.test_listen import upload
from tests.web.test_sign_in import entries, locked, stop_clock
from tests.web.test_upload import problem, query
from web import allowance, limits, sign_in
from web.doors import Route, Visit


async def changed(service: Service, level: Level, limits: Limits) -> None:
    async with connection(service.vault.pool) as lent:
        await accounts.change(lent, "anna", level, limits)


async def test_a_session_opens_what_its_level_may(service: Service) -> None:
    identifier = await upload(service, "c", tone())
    anna, bo = await signed_in(service), await signed_in(service, "bo", Level.AUDITOR)
    assert (await anna.get(f"/v1/recordings/{identifier}/audio")).status == 200
    assert (await bo.get("/v1/expiry")).status == 200
    # At the other door the cookie is shown as well: one host is one jar.
    anna.door, bo.door = service.operations, service.retrieval
    await problem(await anna.get("/v1/expiry"), 403, "forbidden")
    await problem(await bo.get(f"/v1/recordings/{identifier}/audio"), 403, "forbidden")
    for browser in (anna, bo):
        browser.door = service.ingest
        params = "&".join(f"{name}={value}" for name, value in query().items())
        answer = await browser.ask("PUT", f"/v1/recordings/d?{params}")
        await problem(answer, 401, "unauthenticated")


async def test_a_key_that_is_shown_counts_and_the_cookie_does_not(service: Service) -> None:
    anna = await signed_in(service)
    shown = f"Bearer {service.tokens['auditor']}"
    await problem(await anna.get("/v1/recordings", Authorization=shown), 403, "forbidden")
    await problem(await anna.get("/v1/recordings", Authorization="x"), 401, "unauthenticated")


async def test_limits_of_an_account_count_at_the_next_request(service: Service) -> None:
    identifier = await upload(service, "c", tone())  # a fault report
    anna = await signed_in(service, limits=Limits(["fault_report"]))
    path = f"/v1/recordings/{identifier}"
    assert (await anna.get(path)).status == 200
    await changed(service, Level.SUPERVISOR, Limits(["other"]))
    await problem(await anna.get(path), 404, "not-found")
    await changed(service, Level.SUPERVISOR, Limits(queues=["elsewhere"]))
    await problem(await anna.get(path), 404, "not-found")
    await changed(service, Level.ADMIN, Limits())
    await problem(await anna.get(path), 403, "forbidden")


async def test_a_session_ends_when_it_is_not_used_and_when_it_is_old(service: Service) -> None:
    anna = await signed_in(service)
    limits = sessions.Limits()
    assert (limits.idle, limits.absolute) == (timedelta(minutes=15), timedelta(hours=8))
    minutes = 0
    while minutes + 14 < 8 * 60:
        minutes += 14
        await service.turn_clock(timedelta(minutes=minutes))
        assert (await anna.get("/v1/recordings")).status == 200, minutes
    await service.turn_clock(limits.absolute)
    await problem(await anna.get("/v1/recordings"), 401, "unauthenticated")
    code = await code_of(service.vault, anna.secret)
    assert (await anna.enter("anna", OWN, code)).status == 303
    assert (await anna.get("/v1/recordings")).status == 200
    await service.turn_clock(limits.absolute + limits.idle + timedelta(minutes=1))
    await problem(await anna.get("/v1/recordings"), 401, "unauthenticated")
    code = await code_of(service.vault, anna.secret)
    assert (await anna.enter("anna", OWN, code)).status == 303
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM session") == 1, "what is over goes"


async def test_the_page_of_a_recording_knows_how_long_its_session_lasts_unused(
    service: Service,
) -> None:
    """What it plays without asking is told of by this. Nothing of a key ends that way."""
    path = f"/recordings/{await upload(service, 'c', tone())}"
    anna = await signed_in(service)
    assert 'data-idle="900"' in await (await anna.get(path)).text()
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE session SET idle = interval '4 minutes'")
    assert 'data-idle="240"' in await (await anna.get(path)).text()
    assert "data-idle" not in await (await service.get(path)).text()


async def test_a_session_ends_at_its_instant(service: Service) -> None:
    anna = await signed_in(service)
    at, instant, limits = datetime.now(UTC), timedelta(microseconds=1), sessions.Limits()
    await services.stop_clock(service.vault, at)
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "UPDATE session SET seen_at = archive_now(), ends_at = archive_now() + $1::interval",
            limits.absolute,
        )
    # Used within 20 s it is not written to again: it still ends by when it was written last.
    for moment, used in (
        (at + timedelta(seconds=20) - instant, at),
        (at + timedelta(seconds=20), at + timedelta(seconds=20)),
        (at + limits.idle, at + limits.idle),
        (at + 2 * limits.idle - instant, at + 2 * limits.idle - instant),
    ):
        await services.stop_clock(service.vault, moment)
        assert (await anna.get("/v1/recordings")).status == 200
        async with connection(service.vault.pool) as lent:
            assert await lent.fetchval("SELECT seen_at FROM session") == used
    await services.stop_clock(service.vault, at + 3 * limits.idle - instant)
    await problem(await anna.get("/v1/recordings"), 401, "unauthenticated")
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE session SET seen_at = $1", at + limits.absolute)
    await services.stop_clock(service.vault, at + limits.absolute - instant)
    assert (await anna.get("/v1/recordings")).status == 200
    await services.stop_clock(service.vault, at + limits.absolute)
    await problem(await anna.get("/v1/recordings"), 401, "unauthenticated")


async def test_what_is_being_sent_is_known_to_living_sessions_alone(service: Service) -> None:
    anna = await signed_in(service)
    moment = datetime(2026, 2, 28, 9, 30, tzinfo=UTC)
    expiry = Expiry(moment.replace(year=2027), moment.date().replace(year=2027), "rule")
    call, ring = Call("1", CallType.OTHER, moment, expiry), service.vault.ring
    async with connection(service.vault.pool) as lent:
        login = await sessions.authenticate(lent, ring, anna.session)
        assert await sessions.holds(lent, ring, login, call) is True
        await _locked_alone(service)
        assert await sessions.holds(lent, ring, login, call) is False


async def _locked_alone(service: Service) -> None:
    """As a row that is locked by whatever way: its sessions may still be there."""
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE account SET locked_at = archive_now()")


async def _reset(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        await accounts.reset(lent, service.vault.ring, "anna")


@pytest.mark.parametrize("end", [lambda service: locked(service, "anna"), _locked_alone, _reset])
async def test_an_account_is_signed_out_everywhere_at_once(
    service: Service, end: Callable[[Service], Awaitable[None]]
) -> None:
    anna = await signed_in(service)
    second = Browser(service, service.retrieval)
    await second.enter("anna", OWN, await code_of(service.vault, anna.secret, 1))
    assert (await second.get("/v1/recordings")).status == 200
    await end(service)
    for browser in (anna, second):
        await problem(await browser.get("/v1/recordings"), 401, "unauthenticated")


async def test_signing_out_ends_the_session_and_needs_its_token(service: Service) -> None:
    anna, bo = await signed_in(service), await signed_in(service, "bo")
    token, foreign = await anna.token(), await bo.token()
    for fields in (None, {"csrf": ""}, {"csrf": foreign}, {"csrf": "ä"}):
        await problem(await anna.ask("POST", "/sign-out", fields), 403, "forbidden")
    for headers in ELSEWHERE:
        answer = await anna.ask("POST", "/sign-out", {"csrf": token}, **headers)
        await problem(answer, 403, "forbidden")
        stranger = Browser(service, service.retrieval)
        answer = await stranger.ask("POST", "/sign-out", **headers)
        assert "Set-Cookie" not in answer.headers, "another site would sign somebody out"
    assert (await anna.get("/v1/recordings")).status == 200
    kept = anna.session
    answer = await anna.ask("POST", "/sign-out", {"csrf": token})
    assert answer.status == 200
    assert "__Host-session" not in anna.cookies
    anna.cookies = {"__Host-session": kept}
    await problem(await anna.get("/v1/recordings"), 401, "unauthenticated")
    assert (await bo.get("/v1/recordings")).status == 200
    assert [act for _, act, _ in await entries(service)].count("signed_out") == 1


ELSEWHERE = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "none"},
    {"Sec_Fetch_Site": "", "Origin": ""},
    {"Sec_Fetch_Site": "", "Origin": "null"},
    {"Sec_Fetch_Site": "", "Origin": "https://evil.example"},
    {"Sec_Fetch_Site": "", "Origin": "http://127.0.0.1:1"},
    {"Origin": "https://evil.example"},
]
"""What a request tells that another site began, or that tells nothing."""


@pytest.fixture
async def changing(service: Service) -> AsyncIterator[tuple[str, list[str]]]:
    """A door with a route that changes something, and what was changed."""
    done: list[str] = []

    async def act(request: web.Request, visit: Visit) -> web.Response:
        done.append(visit.caller.id)
        return web.Response(text=(await request.read()).decode())

    supervisors = frozenset({Level.SUPERVISOR})
    routes = [Route(method, "/thing", supervisors, act) for method in ("POST", "DELETE")]
    async with AsyncExitStack() as stack:
        yield await _door(stack, acting(service.vault, "retrieval"), "", routes), done


async def test_no_other_site_changes_anything(
    service: Service, changing: tuple[str, list[str]]
) -> None:
    anna, bo = await signed_in(service), await signed_in(service, "bo")
    token, foreign = await anna.token(), await bo.token()
    door, done = changing
    anna.door = door
    wrong = [{}, {"X_CSRF_Token": foreign}, {"X_CSRF_Token": "ä".encode().decode("latin-1")}]
    for headers in [*({**site, "X_CSRF_Token": token} for site in ELSEWHERE), *wrong]:
        for method in ("POST", "DELETE"):
            await problem(await anna.ask(method, "/thing", **headers), 403, "forbidden")
    await problem(await anna.ask("POST", "/thing", {"csrf": foreign}), 403, "forbidden")
    assert done == []
    assert (await anna.ask("DELETE", "/thing", X_CSRF_Token=token)).status == 200
    assert (await anna.ask("POST", "/thing", {"csrf": token, "x": "1"})).status == 200
    assert len(done) == 2
    # A key is shown by no browser on its own.
    answer = await service.ask("POST", f"{door}/thing", "supervisor")
    assert answer.status == 200
    assert len(done) == 3


async def test_nobody_is_signed_in_by_another_site(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        ring = service.vault.ring
        await accounts.add(lent, ring, "bo", Level.SUPERVISOR, own_password=OWN)
    victim = Browser(service, service.retrieval)
    for headers in ELSEWHERE:
        await problem(await victim.enter("bo", OWN, **headers), 403, "forbidden")
    assert victim.cookies == {}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"name=bo&password=x"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/x-www-form-urlencoded", b"name=" + b"x" * 17000),
    ],
)
async def test_what_is_no_form_or_too_large_is_refused(
    service: Service, kind: str, body: bytes
) -> None:
    headers = {"Content-Type": kind, "Sec-Fetch-Site": "same-origin"}
    answer = await service.session.post(service.retrieval + "/sign-in", data=body, headers=headers)
    await problem(answer, 400, "malformed")


ENDS: dict[str, Callable[[Service, Browser], Awaitable[None]]] = {
    "locked": lambda service, _: locked(service, "anna"),
    "limited": lambda service, _: changed(service, Level.SUPERVISOR, Limits(["other"])),
    "another level": lambda service, _: changed(service, Level.PRIVACY, Limits()),
    "over": lambda service, _: stop_clock(service, hours=8),
    "signed out": lambda service, browser: _sign_out(browser),
}


async def _sign_out(browser: Browser) -> None:
    await browser.ask("POST", "/sign-out", {"csrf": await browser.token()})


@pytest.mark.parametrize("how", ENDS)
async def test_a_stream_stops_when_its_session_ends(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(allowance, "LOOK", 0.05)
    audio = tone(LONG)
    anna = await signed_in(service)
    cookie = f"Cookie: __Host-session={anna.session}"
    async with listening(service, audio, cookie) as reader:
        await ENDS[how](service, anna)
        while "an answer was cut off: the key" not in caplog.text:
            await asyncio.sleep(0.01)
        assert await rest(reader) < len(audio) / 2


async def test_a_stream_goes_on_while_its_session_holds(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "LOOK", 0.05)
    looked = 0
    real = sessions.holds

    async def counted(*arguments: object) -> bool:
        nonlocal looked
        looked += 1
        return await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "holds", counted)
    audio = tone(LONG)
    anna = await signed_in(service)
    async with listening(service, audio, f"Cookie: __Host-session={anna.session}") as reader:
        while looked < 3:
            assert "cut off" not in caplog.text
            await asyncio.sleep(0.01)
        assert await rest(reader) == len(audio)


@pytest.mark.parametrize(
    ("path", "cookie", "asks"),
    [
        ("/sign-in", "__Host-session", "authenticate"),
        ("/sign-in/setup", "__Host-setup", "setting_up"),
    ],
)
async def test_made_up_sessions_are_bounded_where_people_sign_in(
    service: Service, monkeypatch: pytest.MonkeyPatch, path: str, cookie: str, asks: str
) -> None:
    monkeypatch.setattr(limits, "WRONG_SESSIONS", Rate.from_text("3/h"))
    looked = []
    real = getattr(sessions, asks)

    async def look(*shown: object) -> object:
        looked.append(shown)
        return await real(*shown)

    monkeypatch.setattr(sessions, asks, look)
    async with AsyncExitStack() as stack:
        door = await _door(stack, acting(service.vault, "retrieval"), "", sign_in.routes())
        for _ in range(9):
            nobody = Browser(service, door, {cookie: "x" * 43})
            assert (await nobody.get(path)).status in (200, 303)
    assert len(looked) == 3


async def test_a_token_that_cannot_be_one_is_a_missing_one(service: Service) -> None:
    anna = await signed_in(service)
    answer = await anna.ask("POST", "/search", {}, X_CSRF_Token="\xff")
    assert answer.status == 403


async def test_made_up_sessions_cost_the_database_no_more_than_wrong_keys(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the rate of an address none of it is looked at."""
    monkeypatch.setattr(limits, "WRONG_SESSIONS", Rate.from_text("3/h"))
    anna = await signed_in(service)
    looked = []

    async def act(request: web.Request, visit: Visit) -> web.Response:
        return web.Response(status=204)

    async def look(*shown: object) -> object:
        looked.append(shown)
        return await authenticate(*shown)  # type: ignore[arg-type]

    authenticate = sessions.authenticate
    monkeypatch.setattr(sessions, "authenticate", look)
    routes = [Route("GET", "/thing", frozenset({Level.SUPERVISOR}), act)]
    async with AsyncExitStack() as stack:
        door = await _door(stack, acting(service.vault, "retrieval"), "", routes)
        anna.door = door
        for _ in range(5):
            assert (await anna.get("/thing")).status == 204
        nobody = Browser(service, door, {"__Host-session": "x" * 43})
        answers = [(await nobody.get("/thing")).status for _ in range(6)]
        assert answers == [401] * 3 + [429] * 3
        assert len(looked) == 5 + 3
        # Keys are counted apart.
        shown = f"Bearer {service.tokens['supervisor']}"
        assert (await nobody.get("/thing", Authorization=shown)).status == 204
