"""Signing in by a provider: what its word has to be to count, and what it opens."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest
from aiohttp import web
from joserfc.jwk import RSAKey

from archive.bounds import Rate
from archive.grants import Grant
from storage import accounts, provider, vouched
from storage.database import Connection
from storage.database import connection as lending
from storage.provider import Provider, Terms
from storage.sessions import Limits
from tests.roles import acting, connection
from tests.services import Service
from tests.web.browsing import Browser
from tests.web.rogue_provider import (
    CLIENT,
    ELLIPTIC,
    FOREIGN,
    PUBLIC,
    SECRET,
    SIGNING,
    Rogue,
    by_secret,
    rogue_provider,
    signed,
    unsigned,
)
from tests.web.test_sign_in import entries, locked, stop_clock
from tests.web.test_upload import problem
from web import doors, limits, operations, retrieval
from web.sign_in_pages import SIGN_IN, SignIn

GRANTS = tuple(
    map(
        Grant.from_text,
        ("leads = supervisor", "north = supervisor queues:north|south", "audit = auditor"),
    )
)


@dataclass(slots=True)
class Site:
    """Doors where people sign in by a provider."""

    service: Service
    rogue: Rogue
    retrieval: str
    operations: str

    def browser(self) -> Browser:
        return Browser(self.service, self.retrieval)

    async def leave(self, browser: Browser, to: str = "") -> dict[str, str]:
        """Go to the provider; what the browser was sent with."""
        answer = await browser.get("/sign-in/provider?" + urlencode({"to": to}))
        assert answer.status == 303, await answer.text()
        sent = parse_qs(urlsplit(answer.headers["Location"]).query)
        asked = {name: text for name, (text,) in sent.items()}
        self.rogue.nonce, self.rogue.challenge = asked["nonce"], asked["code_challenge"]
        return asked

    async def enter(
        self, browser: Browser, to: str = "", code: str = "code", **changed: str
    ) -> aiohttp.ClientResponse:
        """Sign in: go there and come back."""
        asked = await self.leave(browser, to)
        query = urlencode({"code": code, "state": asked["state"], **changed})
        # The provider's site sends the browser back.
        return await browser.get(f"/sign-in/back?{query}", Sec_Fetch_Site="cross-site", Origin="")


def terms(issuer: str, **changed: Any) -> Terms:
    usual: dict[str, Any] = {
        "issuer": issuer,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "algorithms": frozenset({"RS256", "ES256"}),
        "scopes": "openid profile",
        "groups_claim": "groups",
        "grants": GRANTS,
    }
    return Terms(**(usual | changed))


async def door(stack: AsyncExitStack, service: Service, part: Any, ways: SignIn) -> str:
    """One of the doors for people: `part` is its module."""
    role = part.__name__.rpartition(".")[2]
    app = doors.build(acting(service.vault, role), "", part.routes())
    app[SIGN_IN] = ways
    runner = doors.runner(app, 5)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def site(service: Service) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        rogue = await stack.enter_async_context(rogue_provider())
        asked = Provider(terms(rogue.address))
        stack.push_async_callback(asked.close)
        ways = SignIn(Limits(), local=False, provider=asked)
        yield Site(
            service,
            rogue,
            await door(stack, service, retrieval, ways),
            await door(stack, service, operations, ways),
        )


async def test_whom_the_provider_vouches_for_is_let_in(site: Site) -> None:
    browser = site.browser()
    asked = await site.leave(browser)
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == site.retrieval + "/sign-in/back"
    answer = await site.enter(browser, to="/v1/recordings?limit=2")
    assert answer.status == 200, await answer.text()
    # The session's cookie is not sent with what another site began: the page goes on by itself.
    assert 'http-equiv="refresh" content="0; url=/v1/recordings?limit=2"' in await answer.text()
    assert browser.cookies.keys() == {"__Host-session"}
    assert (await browser.get("/v1/recordings")).status == 200
    again = site.browser()
    assert (await site.enter(again, code="2")).status == 200
    told = [one for one in await entries(site.service) if one[1] != "searched"]
    person = told[1][0]
    assert [(actor, act) for actor, act, _ in told] == [
        ("system", "account.added"),
        (person, "signed_in"),
        (person, "signed_in"),
    ]
    assert "anna" not in str(told)
    async with connection(site.service.vault.pool) as lent:
        (row,) = await accounts.every(lent)
        assert "subject-1" not in str(await lent.fetch("SELECT * FROM account"))
    assert (row.name, row.provider, row.level) == ("anna", True, "supervisor")


async def test_groups_are_rights_and_change_with_each_sign_in(site: Site) -> None:
    browser, rogue = site.browser(), site.rogue
    rogue.claims["groups"] = ["north", "elsewhere"]
    assert (await site.enter(browser, code="1")).status == 200
    async with connection(site.service.vault.pool) as lent:
        (row,) = await accounts.every(lent)
    assert (row.level, row.queues) == ("supervisor", ("north", "south"))
    rogue.claims["groups"] = "audit"
    assert (await site.enter(browser, code="2")).status == 200
    await problem(await browser.get("/v1/recordings"), 403, "forbidden")
    browser.door = site.operations
    assert (await browser.get("/v1/expiry")).status == 200
    for groups in ([], None, "leads ", [["leads"]], {"leads": True}, 7):
        rogue.claims["groups"] = groups
        answer = await site.enter(Browser(site.service, site.operations), code=f"3{groups}")
        assert answer.status == 403
        assert "__Host-session" not in str(answer.headers)
    # Who has no rights any more is signed out everywhere else, too.
    await problem(await browser.get("/v1/expiry"), 401, "unauthenticated")
    acts = [act for _, act, _ in await entries(site.service)]
    assert acts.count("account.changed") == 1


async def test_who_is_locked_here_stays_out(site: Site) -> None:
    browser = site.browser()
    assert (await site.enter(browser)).status == 200
    await locked(site.service, "anna")
    await problem(await browser.get("/v1/recordings"), 401, "unauthenticated")
    answer = await site.enter(browser, code="2")
    assert answer.status == 403
    assert "__Host-session" not in str(answer.headers)
    refused = [facts for _, act, facts in await entries(site.service) if act == "sign_in.refused"]
    assert len(refused) == 1
    assert refused[0]["account"].startswith("person-")


@pytest.mark.parametrize(("subject", "same"), [("i\nanna", True), ("i\nother", False)])
async def test_two_first_sign_ins_at_once_are_two_sessions(
    service: Service, subject: str, same: bool
) -> None:
    """Of one person, or of two of the same name: neither fails."""
    vault = service.vault

    async def first(lent: Connection, who: str) -> str | None:
        return await vouched.account_of(lent, vault.ring, who, "anna", GRANTS[0])

    async def waits() -> bool:
        async with connection(vault.pool) as lent:
            return bool(
                await lent.fetchval(
                    "SELECT true FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND query LIKE 'INSERT INTO account%' AND datname = current_database()"
                )
            )

    async def second() -> str | None:
        async with lending(vault.sign_in) as lent, lent.transaction():
            return await first(lent, subject)

    async with lending(vault.sign_in) as lent:
        async with lent.transaction():
            one = await first(lent, "i\nanna")
            other = asyncio.create_task(second())
            while not other.done() and not await waits():
                await asyncio.sleep(0.01)
    assert ((await other) == one) is same
    async with connection(vault.pool) as lent:
        assert len(await accounts.every(lent)) == (1 if same else 2)


async def test_another_of_the_same_name_is_another(site: Site) -> None:
    assert (await site.enter(site.browser(), code="1")).status == 200
    site.rogue.claims |= {"sub": "subject-2", "groups": ["audit"]}
    assert (await site.enter(site.browser(), code="2")).status == 200
    async with connection(site.service.vault.pool) as lent:
        first, second = await accounts.every(lent)
    assert (first.name, first.level, second.level) == ("anna", "supervisor", "auditor")
    assert second.name == second.id


NOW = int(time.time())
HS256 = {"alg": "HS256"}

ROGUES: dict[str, dict[str, Any]] = {
    "none": {"header": {"alg": "none"}, "sign": unsigned},
    "None": {"header": {"alg": "None"}, "sign": unsigned},
    "none without a key": {"header": {"alg": "none", "kid": None}, "sign": unsigned},
    "unsigned RS256": {"sign": unsigned},
    "no algorithm": {"header": {"alg": None}, "sign": unsigned},
    "HS256 under the public key": {
        "header": HS256,
        "sign": lambda claims, header: by_secret(claims, header, PUBLIC),
    },
    "HS256 under the public key, nameless": {
        "header": {**HS256, "kid": None},
        "sign": lambda claims, header: by_secret(claims, header, PUBLIC),
    },
    "HS256 under the client's secret": {
        "header": HS256,
        "sign": lambda claims, header: by_secret(claims, header, SECRET.encode()),
    },
    "an algorithm that is not allowed": {"header": {"alg": "RS512"}},
    "another key's algorithm": {
        "header": {"alg": "ES256", "kid": "one"},
        "sign": lambda claims, header: signed(header, claims, ELLIPTIC),
    },
    "a foreign key under the same name": {
        "sign": lambda claims, header: signed(header, claims, FOREIGN),
    },
    "a foreign key with another name": {
        "header": {"kid": "three"},
        "sign": lambda claims, header: signed(header, claims, FOREIGN),
    },
    "a key within the token": {
        "header": {"kid": None, "jwk": FOREIGN.as_dict(private=False)},
        "sign": lambda claims, header: signed(header, claims, FOREIGN),
    },
    "a part that is critical": {"header": {"crit": ["exp"], "exp": 1}, "sign": unsigned},
    "changed after it was signed": {
        "sign": lambda claims, header: _changed(signed(header, claims)),
    },
    "no token at all": {"token": {"access_token": "x"}},
    "a list": {"token": ["id_token"]},
    "a number": {"token": {"id_token": 7}},
    "a text": {"sign": lambda claims, header: "x.y.z"},
    "claims that are a list": {"sign": lambda claims, header: signed(header, [claims])},  # type: ignore[arg-type]
    "another audience": {"claims": {"aud": "another"}},
    "another audience besides": {"claims": {"aud": [CLIENT, "another"]}},
    "no audience": {"claims": {"aud": None}},
    "an empty audience": {"claims": {"aud": []}},
    "given to another": {"claims": {"azp": "another"}},
    "another issuer": {"claims": {"iss": "https://login.example.fi"}},
    "an issuer with a slash more": {"slash": True},
    "no issuer": {"claims": {"iss": None}},
    "over": {"claims": {"iat": NOW - 300, "exp": NOW - 120}},
    "no end": {"claims": {"exp": None}},
    "an end that is a text": {"claims": {"exp": "tomorrow"}},
    "old": {"claims": {"iat": NOW - 3600}},
    "made tomorrow": {"claims": {"iat": NOW + 86400, "exp": NOW + 90000}},
    "not yet": {"claims": {"nbf": NOW + 86400}},
    "never made": {"claims": {"iat": None}},
    "made when it is true": {"claims": {"iat": True}},
    "no nonce": {"claims": {"nonce": None}},
    "another nonce": {"claims": {"nonce": "another"}},
    "a nonce that is a list": {"claims": {"nonce": ["x"]}},
    "no subject": {"claims": {"sub": None}},
    "an empty subject": {"claims": {"sub": ""}},
    "a subject that is a number": {"claims": {"sub": 1}},
}


def _changed(token: str) -> str:
    head, body, tail = token.split(".")
    return ".".join([head, body[:-2] + ("AA" if body[-2:] != "AA" else "BB"), tail])


@pytest.mark.parametrize("how", ROGUES)
async def test_a_word_that_is_not_right_in_every_part_lets_nobody_in(site: Site, how: str) -> None:
    rogue, wrong = site.rogue, dict(ROGUES[how])
    if token := wrong.pop("token", None):
        rogue.token = web.json_response(token)
    if wrong.pop("slash", False):
        wrong["claims"] = {"iss": rogue.address + "/"}
    for name, value in wrong.items():
        setattr(rogue, name, value)
    browser = site.browser()
    answer = await site.enter(browser)
    assert answer.status == 403, await answer.text()
    assert browser.cookies == {}
    assert "token" in rogue.asked
    async with connection(site.service.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM account") == 0
        assert await lent.fetchval("SELECT count(*) FROM session") == 0


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"acr": "phr", "amr": ["pwd", "hwk"]}, 200),
        ({"acr": "mfa", "amr": ["hwk", 7]}, 200),
        ({"acr": "0", "amr": ["hwk"]}, 403),
        ({"amr": ["hwk"]}, 403),
        ({"acr": ["phr"], "amr": ["hwk"]}, 403),
        ({"acr": "phr", "amr": ["pwd"]}, 403),
        ({"acr": "phr", "amr": "hwk"}, 403),
        ({"acr": "phr"}, 403),
    ],
)
async def test_the_provider_asks_as_strongly_as_the_configuration_wants(
    site: Site, said: dict[str, Any], status: int
) -> None:
    async with AsyncExitStack() as stack:
        wanted = terms(site.rogue.address, acr=("phr", "mfa"), amr=("hwk", "swk"))
        asked = Provider(wanted)
        stack.push_async_callback(asked.close)
        ways = SignIn(Limits(), local=False, provider=asked)
        strict = replace(site, retrieval=await door(stack, site.service, retrieval, ways))
        assert (await strict.leave(strict.browser()))["acr_values"] == "phr mfa"
        site.rogue.claims |= said
        assert (await strict.enter(strict.browser())).status == status
    # Where nothing is wanted nothing is asked for.
    assert "acr_values" not in await site.leave(site.browser())


async def test_an_answer_counts_once_in_its_browser_and_soon(site: Site) -> None:
    browser = site.browser()
    asked = await site.leave(browser)
    flow = dict(browser.cookies)
    back = "/sign-in/back?" + urlencode({"code": "a", "state": asked["state"]})
    # In another browser, which began nothing, or something else.
    other = site.browser()
    assert (await other.get(back)).status == 403
    await site.leave(other)
    site.rogue.nonce, site.rogue.challenge = asked["nonce"], asked["code_challenge"]
    assert (await other.get(back)).status == 403
    for state in ("", "x", asked["state"] + "x", asked["state"][:-1], "\N{SNOWMAN}"):
        browser.cookies = dict(flow)
        query = urlencode({"code": "a", "state": state})
        assert (await browser.get(f"/sign-in/back?{query}")).status == 403
    browser.cookies = dict(flow)
    assert (await browser.get(back)).status == 200
    # The same again: the provider knows the code, and if it does not care, we do.
    browser.cookies = dict(flow)
    assert (await browser.get(back)).status == 403
    site.rogue.codes.clear()
    browser.cookies = dict(flow)
    assert (await browser.get(back)).status == 403
    # What the browser holds cannot be changed: not where to go on to, not when it was begun.
    asked = await site.leave(browser)
    chance, begun, to = browser.cookies["__Host-flow"].split(".")
    for changed in (f"{chance}.{int(begun) + 1}.{to}", f"{chance}.{begun}.L2E", "x", f"..{to}"):
        browser.cookies = {"__Host-flow": changed}
        query = urlencode({"code": "b", "state": asked["state"]})
        assert (await browser.get(f"/sign-in/back?{query}")).status == 403
    asked = await site.leave(browser)
    await stop_clock(site.service, minutes=11)
    query = urlencode({"code": "c", "state": asked["state"]})
    assert (await browser.get(f"/sign-in/back?{query}")).status == 403


async def test_a_code_of_another_sign_in_is_no_use(site: Site) -> None:
    """The attacker's own code, planted into the victim's: the provider holds it against PKCE."""
    victim = site.browser()
    asked = await site.leave(victim)
    await site.leave(site.browser())  # the attacker's, with a challenge of its own
    query = urlencode({"code": "attacker's", "state": asked["state"]})
    assert (await victim.get(f"/sign-in/back?{query}")).status == 403


async def test_the_provider_may_refuse(site: Site) -> None:
    answer = await site.enter(site.browser(), code="", error="access_denied")
    assert answer.status == 403
    answer = await site.browser().get("/sign-in/back?code=a&code=b&state=c")
    await problem(answer, 400, "malformed")


async def test_refused_ways_back_run_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an entry in the database, and may be a question to the provider."""
    monkeypatch.setattr(limits, "WRONG_SESSIONS", Rate.from_text("3/h"))
    asked = Provider(terms(site.rogue.address))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asked.close)
        ways = SignIn(Limits(), local=False, provider=asked)
        browser = Browser(site.service, await door(stack, site.service, retrieval, ways))
        answers = [(await browser.get("/sign-in/back?code=a&state=b")).status for _ in range(5)]
    assert answers == [403] * 3 + [429] * 2


async def test_keys_that_the_provider_changes_are_fetched_and_not_too_often(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    rogue = site.rogue
    assert (await site.enter(site.browser(), code="1")).status == 200
    assert rogue.asked.count("keys") == 1
    fresh = RSAKey.generate_key(2048, {"kid": "fresh"})
    rogue.keys = [fresh]
    rogue.header = {"kid": "fresh"}
    rogue.sign = lambda claims, header: signed(header, claims, fresh)
    assert (await site.enter(site.browser(), code="2")).status == 200
    assert rogue.asked.count("keys") == 2
    # Keys that nobody has: the provider is asked no more than once a while.
    rogue.header = {"kid": "unheard of"}
    for number in range(3):
        assert (await site.enter(site.browser(), code=f"3{number}")).status == 403
    assert rogue.asked.count("keys") == 2
    monkeypatch.setattr(provider, "PAUSE", 0)
    assert (await site.enter(site.browser(), code="4")).status == 403
    assert rogue.asked.count("keys") == 3
    # What was withdrawn does not count.
    rogue.header, rogue.sign = {"kid": "one"}, None
    assert (await site.enter(site.browser(), code="5")).status == 403


async def test_a_key_that_is_for_something_else_is_not_taken(site: Site) -> None:
    for extra in ({"use": "enc"}, {"alg": "RS384"}):
        site.rogue.keys = [SIGNING.as_dict(private=False) | extra, {"kty": "RSA"}, {"kty": "x"}]
        site.rogue.keys.append({"kty": "oct", "k": "AAAA", "kid": "one"})
        assert (await site.enter(site.browser(), code=str(extra))).status == 403


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://login.example.fi"},
        {"token_endpoint": "http://login.example.fi/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": None},
        {"jwks_uri": "https://user@login.example.fi/"},
    ],
)
async def test_a_provider_that_points_elsewhere_is_not_followed(
    site: Site, discovery: dict[str, Any]
) -> None:
    site.rogue.discovery = discovery
    answer = await site.browser().get("/sign-in/provider")
    assert answer.status == 403
    assert "Location" not in answer.headers


def test_a_provider_that_is_elsewhere_names_no_address_here() -> None:
    assert provider.may_be_asked("https://login.example.fi/realm")
    assert provider.may_be_asked("http://127.0.0.1:8000")
    for wrong in ("http://login.example.fi", "https://", "https://a@b", "ftp://127.0.0.1", ""):
        assert not provider.may_be_asked(wrong)
    with pytest.raises(provider.UnauthenticatedError):
        provider._checked("http://127.0.0.1/token", "https://login.example.fi")


async def test_a_provider_that_is_away_or_fails_lets_nobody_in(site: Site) -> None:
    browser = site.browser()
    await site.leave(browser)
    site.rogue.token = web.Response(status=502)
    await problem(await site.enter(browser), 503, "unavailable")
    for odd in (
        web.Response(status=302, headers={"Location": "/token_endpoint"}),
        web.Response(text="<html>"),
        web.Response(text="[" * 100_000),
    ):
        site.rogue.token = odd
        assert (await site.enter(browser)).status == 403
    site.rogue.token = web.Response(body=b" " * (2**20 + 10))
    await problem(await site.enter(browser), 503, "unavailable")


async def test_there_are_no_passwords_where_a_provider_is_asked(site: Site) -> None:
    page = await (await site.browser().get("/sign-in?to=/x", Accept_Language="en")).text()
    assert 'href="/sign-in/provider?to=/x"' in page
    assert "<form" not in page
    await problem(await site.browser().enter("anna", "a password"), 404, "not-found")
    stranger = Browser(site.service, site.service.retrieval)
    await problem(await stranger.get("/sign-in/provider"), 404, "not-found")
    await problem(await stranger.get("/sign-in/back"), 404, "not-found")
