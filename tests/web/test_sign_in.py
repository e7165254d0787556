"""People sign in: with a password and a code, slowly if they guess, into a session that is new."""

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import argon2
import pytest

from archive.access import Level
from archive.sign_in import OF_A_NAME, OF_AN_ADDRESS
from storage import accounts, passwords, tree, tries
from tests.archive.test_sign_in import ELSEWHERE
from tests.roles import connection
from tests.services import Service
from tests.web.browsing import OWN, Browser, account, code_of, hidden, signed_in
from tests.web.test_leaks import dump
from tests.web.test_upload import problem


async def locked(service: Service, name: str) -> None:
    async with connection(service.vault.pool) as lent:
        await accounts.lock(lent, name)


async def stop_clock(service: Service, **by: float) -> None:
    """Let the archive's clock stand still, so much after now or after where it stood."""
    async with connection(service.vault.pool) as lent:
        now = await lent.fetchval("SELECT archive_now()") + timedelta(**by)
        await lent.execute(
            "CREATE OR REPLACE FUNCTION archive_now() RETURNS timestamptz LANGUAGE sql VOLATILE"
            f" AS $$SELECT timestamptz '{now.isoformat()}'$$"
        )


async def entries(service: Service) -> list[tuple[str, str, Any]]:
    """The ledger's actors, acts and facts, without what the keys of the tests are told of."""
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT actor, act, facts FROM ledger ORDER BY position")
    return [tuple(row) for row in rows if row["act"] != "key.added"]


async def test_an_account_is_set_up_by_its_owner_and_signs_in(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "archive")
    browser = Browser(service, service.retrieval)
    first = await account(service.vault, "Anna.Needlesworth")
    answer = await browser.enter("anna.needlesworth", first, to="/v1/recordings")
    assert answer.status == 303
    assert answer.headers["Location"] == "/sign-in/setup?to=%2Fv1%2Frecordings"
    assert browser.cookies.keys() == {"__Host-setup"}
    await problem(await browser.get("/v1/recordings"), 401, "unauthenticated")
    planted = Browser(service, service.retrieval)
    planted.cookies = {"__Host-session": browser.cookies["__Host-setup"]}
    await problem(await planted.get("/v1/recordings"), 401, "unauthenticated")

    answer = await browser.set_up()
    assert answer.status == 303
    assert browser.cookies.keys() == {"__Host-session", "__Host-known"}
    (cookie,) = (text for text in browser.set_cookies if text.startswith("__Host-session="))
    said = {part.strip() for part in cookie.split(";")[1:]}
    assert said == {"HttpOnly", "Path=/", "SameSite=Strict", "Secure"}
    assert (await browser.get("/v1/recordings")).status == 200

    again = Browser(service, service.retrieval)
    code = await code_of(service.vault, browser.secret, 1)
    answer = await again.enter("ANNA.needlesworth ", OWN, code, "/v1/recordings?limit=1")
    assert (answer.status, answer.headers["Location"]) == (303, "/v1/recordings?limit=1")
    assert again.session != browser.session
    assert (await again.get("/v1/recordings")).status == 200
    # The first password is no more.
    assert (
        await Browser(service, service.retrieval).enter("anna.needlesworth", first)
    ).status == 403

    told = await entries(service)
    (person,) = {facts["account"] for _, act, facts in told if act == "account.added"}
    assert [(actor, act) for actor, act, _ in told if act != "searched"] == [
        ("system", "account.added"),
        (person, "account.set_up"),
        (person, "signed_in"),
        (person, "signed_in"),
        ("system", "sign_in.refused"),
    ]
    assert {actor for actor, act, _ in told if act == "searched"} == {person}
    assert "eedlesworth" not in str(told).lower() + caplog.text.lower()
    assert service.retrieval.split("//")[1].split(":")[0] not in str(told), "no address either"


async def test_nothing_that_opens_is_in_the_database(service: Service) -> None:
    browser = await signed_in(service)
    text = await dump(service)
    assert "anna" in text, "the name is what a person is called by, here alone"
    for secret in (browser.session, browser.secret, OWN):
        assert secret not in text
        assert secret.encode().hex() not in text


async def test_a_code_is_accepted_once_and_none_before_it(service: Service) -> None:
    await stop_clock(service)
    browser = await signed_in(service)
    for steps, status in ((0, 403), (-1, 403), (1, 303), (1, 403), (0, 403)):
        code = await code_of(service.vault, browser.secret, steps)
        answer = await Browser(service, service.retrieval).enter("anna", OWN, code)
        assert answer.status == status, steps


@pytest.mark.parametrize("change", ["reset", "locked"])
async def test_a_password_that_was_right_a_moment_ago_opens_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The account is reset while it is looked at: the former first password would set it up."""
    first = await account(service.vault, "bo")
    matches = passwords.matches

    async def matched(*args: Any) -> bool:
        found = await matches(*args)
        async with connection(service.vault.pool) as lent:
            if change == "reset":
                await accounts.reset(lent, service.vault.ring, "bo")
            else:
                await accounts.lock(lent, "bo")
        return found

    monkeypatch.setattr(passwords, "matches", matched)
    browser = Browser(service, service.retrieval)
    assert (await browser.enter("bo", first)).status == 403
    assert "__Host-setup" not in browser.cookies
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM session") == 0


async def _expired(service: Service) -> tuple[str, str]:
    first = await account(service.vault, "bo")
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE account SET initial_until = archive_now() WHERE name = 'bo'")
    return "bo", first


@pytest.mark.parametrize("name", ["\0", "anna\0", "\0anna"])
async def test_a_name_that_nobody_can_have_is_a_wrong_one(service: Service, name: str) -> None:
    await signed_in(service)
    browser = Browser(service, service.retrieval)
    assert (await browser.enter(name, OWN, "\0")).status == 403


async def test_nobody_learns_what_was_wrong(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[Any] = []
    real = passwords.matches

    async def counted(*arguments: Any) -> bool:
        stored = arguments[3]
        work.append((str(argon2.extract_parameters(stored)), len(stored)))
        with contextlib.suppress(argon2.exceptions.VerifyMismatchError):
            argon2.PasswordHasher().verify(stored, "x")  # anything else: no work would be done
        return await real(*arguments)

    monkeypatch.setattr(passwords, "matches", counted)
    anna = await signed_in(service)
    await signed_in(service, "cecilia")
    await locked(service, "cecilia")
    work.clear()
    tried = [
        ("nobody", OWN, ""),
        ("", "", ""),
        ("anna", "not hers at all", await code_of(service.vault, anna.secret, 1)),
        ("anna", OWN, "000000x"),
        ("anna", OWN, ""),
        ("cecilia", OWN, ""),
        (*await _expired(service), ""),
        ("x" * 3000, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "١٢٣٤٥٦"),
    ]
    answers = set()
    for name, password, code in tried:
        answer = await Browser(service, service.retrieval).enter(name, password, code)
        answers.add((answer.status, await answer.text(), *sorted(answer.headers)))
        assert "__Host-session" not in str(answer.headers)
    assert {status for status, *_ in answers} == {403}
    assert len(answers) == 1
    assert len(work) == len(tried)
    assert len(set(work)) == 1, "as much work for each"


@pytest.mark.parametrize("name", ["anna", "nobody"])
async def test_guessing_is_slow(service: Service, name: str) -> None:
    anna = await signed_in(service)
    browser = Browser(service, service.retrieval)
    await stop_clock(service)
    for _ in range(OF_A_NAME.free):
        assert (await browser.enter(name, "a wrong password")).status == 403
    code = await code_of(service.vault, anna.secret, 1)
    answer = await browser.enter(name, OWN, code)
    assert answer.status == 429
    assert answer.headers["Retry-After"] == "1"
    assert "1 " in await answer.text()
    await stop_clock(service, seconds=2)
    answer = await browser.enter(name, OWN, await code_of(service.vault, anna.secret, 1))
    assert answer.status == (303 if name == "anna" else 403)
    async with connection(service.vault.pool) as lent:
        failures = await lent.fetch("SELECT failures FROM sign_in_try ORDER BY failures")
    # The address keeps its own count, and so does what was told; the name's is forgiven.
    assert len(failures) == (2 if name == "anna" else 3)
    await service.turn_clock(timedelta(days=2))
    await browser.enter("somebody", "else at all")
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT max(failures) FROM sign_in_try") == 1


async def test_who_guesses_elsewhere_does_not_keep_the_owner_waiting(service: Service) -> None:
    await stop_clock(service)
    anna = await signed_in(service)
    mark = anna.cookies["__Host-known"]
    assert "anna" not in mark

    async def enter(known: str, password: str = OWN, steps: int = 1, name: str = "anna") -> int:
        browser = Browser(service, service.retrieval, {"__Host-known": known})
        code = await code_of(service.vault, anna.secret, steps)
        return (await browser.enter(name, password, code)).status

    stranger = Browser(service, service.retrieval)
    for _ in range(OF_A_NAME.free):
        assert (await stranger.enter("anna", "a wrong password")).status == 403
    assert await enter("") == 429
    other = "0" if mark[-1] != "0" else "1"
    for forged in (
        mark[:-1] + other,
        mark[:-1] + "x",
        mark.replace(".", "x"),
        "",
        "x" * 4000,
        mark[::-1],
    ):
        assert await enter(forged) == 429, "whoever makes a mark up is a stranger"
    assert await enter(mark, name="bo") == 403, "it is of one name"
    # A known browser is no way to guess faster, and does not count for strangers.
    for _ in range(OF_A_NAME.free):
        assert await enter(mark, "a wrong password") == 403
    assert await enter(mark) == 429
    await stop_clock(service, seconds=5)
    assert await enter(mark) == 303
    await stop_clock(service, days=tries.KNOWN_FOR.days)
    for _ in range(OF_A_NAME.free):
        assert (await stranger.enter("anna", "a wrong password")).status == 403
    assert await enter(mark) == 429, "it is good for a while"


async def test_many_guesses_at_once_are_no_way_around(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0

    async def counted(*_: Any) -> bool:
        nonlocal looked
        looked += 1
        return False

    monkeypatch.setattr(passwords, "matches", counted)
    await stop_clock(service)
    browser = Browser(service, service.retrieval)
    guesses = [browser.enter("anna", "a wrong password") for _ in range(passwords.WAITING)]
    answers = sorted([answer.status for answer in await asyncio.gather(*guesses)])
    assert looked == OF_A_NAME.free
    assert answers == [403] * OF_A_NAME.free + [429] * (passwords.WAITING - OF_A_NAME.free)


async def test_an_address_that_tries_many_names_is_slow_too(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wrong(*_: Any) -> bool:
        return False

    monkeypatch.setattr(passwords, "matches", wrong)
    await stop_clock(service)
    browser = Browser(service, service.retrieval)
    for number in range(OF_AN_ADDRESS.free):
        assert (await browser.enter(f"name{number}", "a wrong password")).status == 403
    assert (await browser.enter("another", "a wrong password")).status == 429
    refused = [facts for _, act, facts in await entries(service) if act == "sign_in.refused"]
    assert [one["failures"] for one in refused] == [1, 2, 4, 8, 16], "seldom on the ledger"
    assert {one["account"] for one in refused} == {None}


async def test_signing_in_does_not_take_the_machine_down(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most, go = 0, 0, asyncio.Event()

    async def slow(*_: Any) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await go.wait()
        at_once -= 1
        return False

    monkeypatch.setattr(passwords, "matches", slow)
    browser = Browser(service, service.retrieval)
    room = passwords.AT_ONCE + passwords.WAITING
    held = [asyncio.create_task(browser.enter(f"name{n}", "a wrong one")) for n in range(room)]
    while service.vault.passwords.here < room or at_once < passwords.AT_ONCE:
        await asyncio.sleep(0.01)
    answer = await browser.enter("one too many", "a wrong one")
    await problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"] == "2"
    go.set()
    assert {answer.status for answer in await asyncio.gather(*held)} == {403}
    assert most == passwords.AT_ONCE


async def test_a_session_that_was_planted_is_not_used(service: Service) -> None:
    """Session fixation: what a browser shows before the sign-in never becomes a session."""
    known = await signed_in(service)
    victim = Browser(service, service.retrieval)
    planted = "A" * 43
    victim.cookies = {"__Host-session": planted, "__Host-setup": planted}
    first = await account(service.vault, "bo")
    assert (await victim.enter("bo", first)).status == 303
    assert victim.cookies["__Host-setup"] != planted
    await victim.set_up()
    assert victim.session not in (planted, known.session)
    attacker = Browser(service, service.retrieval, {"__Host-session": planted})
    await problem(await attacker.get("/v1/recordings"), 401, "unauthenticated")
    # The attacker's own living session, planted: the victim gets another, and that one ends.
    victim.cookies = {"__Host-session": known.session}
    code = await code_of(service.vault, victim.secret, 1)
    assert (await victim.enter("bo", OWN, code)).status == 303
    assert victim.session != known.session
    await problem(await known.get("/v1/recordings"), 401, "unauthenticated")
    assert (await victim.get("/v1/recordings")).status == 200


async def test_no_sign_in_leads_elsewhere(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        ring = service.vault.ring
        await accounts.add(lent, ring, "bo", Level.SUPERVISOR, own_password=OWN)
    browser = Browser(service, service.retrieval)
    for to in ELSEWHERE[:16]:
        answer = await browser.enter("bo", OWN, to=to)
        assert (answer.status, answer.headers["Location"]) == (303, "/"), to
        assert '<p><a href="/">' in await (await browser.get(f"/sign-in?to={quote(to)}")).text()


async def test_a_password_that_is_set_up_is_long_typed_twice_and_another(service: Service) -> None:
    browser = Browser(service, service.retrieval)
    first = await account(service.vault, "anna")
    await browser.enter("anna", first)
    page = await (await browser.get("/sign-in/setup", Accept_Language="en")).text()
    token, secret = hidden(page, "csrf"), page.split("<code>")[1].split("</code>")[0]
    code = await code_of(service.vault, secret.replace(" ", ""))
    good = {"csrf": token, "password": OWN, "again": OWN, "code": code}
    for wrong, said in (
        ({"password": "short", "again": "short"}, "less than 12"),
        ({"again": OWN + "x"}, "not the same"),
        ({"password": "anna, anna, anna", "again": "anna, anna, anna"}, "your name"),
        ({"password": "passwordpassword", "again": "passwordpassword"}, "guessed soon"),
        ({"password": first, "again": first}, "another password"),
        ({"code": "000000x"}, "code is wrong"),
    ):
        answer = await browser.ask(
            "POST", "/sign-in/setup", {**good, **wrong}, Accept_Language="en"
        )
        assert answer.status == 422
        page = await answer.text()
        assert said in page
        assert secret in page, "what was read into the application still counts"
    for csrf in ("", "0" * 64, token.swapcase()):
        answer = await browser.ask("POST", "/sign-in/setup", {**good, "csrf": csrf})
        await problem(answer, 403, "forbidden")
    await locked(service, "anna")
    answer = await browser.ask("POST", "/sign-in/setup", good)
    assert (answer.status, answer.headers["Location"]) == (303, "/sign-in")
    assert "__Host-session" not in browser.cookies


@pytest.mark.parametrize("language", ["fi", "sv", "en"])
async def test_the_pages_are_in_three_languages_and_run_no_script(
    service: Service, language: str
) -> None:
    anna = await signed_in(service)
    stranger, newcomer = (Browser(service, service.operations) for _ in range(2))
    await newcomer.enter("bo", await account(service.vault, "bo"))
    wrong = await stranger.enter("<b>x", "y", to="/?<script>", Accept_Language=f"{language},de")
    pages = [
        await anna.get("/sign-in", Accept_Language=f"de,{language};q=0.8"),
        await stranger.get("/sign-in?lang=" + language),
        await newcomer.get("/sign-in/setup", Accept_Language=f"x;q=no,{language}-FI"),
        wrong,
    ]
    for page in pages:
        text = await page.text()
        assert f'<html lang="{language}">' in text
        assert page.headers["Content-Language"] == language
        assert page.headers["Cache-Control"] == "private, no-store"
        # With none at all a browser says of a form of this page's that it comes from nowhere.
        assert page.headers["Referrer-Policy"] == "same-origin"
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; form-action 'self'")
        assert "unsafe" not in policy
        for inline in ("<script", "style=", "<style", "onclick", "javascript:", "<b>"):
            assert inline not in text
    # What was chosen stays, and what a browser refuses is no choice of its.
    refused = await anna.get("/sign-in", Accept_Language="en;q=0")
    assert refused.headers["Content-Language"] == "fi"
    kept = await stranger.get("/sign-in", Accept_Language="de")
    assert kept.headers["Content-Language"] == language
    style = await stranger.get("/sign-in/style.css")
    assert (style.status, style.content_type) == (200, "text/css")
