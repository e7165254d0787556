"""One's own account: where one is signed in, ending that from afar, and another password."""

from typing import Any

import pytest

from archive.access import Level
from archive.sign_in import OF_A_NAME
from tests.services import Service
from tests.web.browsing import OWN, Browser, code_of, signed_in
from tests.web.test_sign_in import entries, stop_clock
from tests.web.test_upload import problem

NEW = "an entirely different sentence"


async def second(service: Service, first: Browser, name: str = "anna", steps: int = 1) -> Browser:
    """Another browser of the same person."""
    other = Browser(service, first.door)
    answer = await other.enter(name, OWN, await code_of(service.vault, first.secret, steps))
    assert answer.status == 303
    return other


async def held(browser: Browser) -> list[dict[str, Any]]:
    answer = await browser.get("/v1/sessions")
    assert answer.status == 200, await answer.text()
    return list((await answer.json())["items"])


async def change(browser: Browser, old: str, new: str, again: str = "", **more: str) -> Any:
    """Send the form; the status and the page."""
    fields = {"csrf": await browser.token(), "password": old, "new": new, "again": again or new}
    answer = await browser.ask("POST", "/account", {**fields, **more}, Accept_Language="en")
    return answer.status, await answer.text()


async def test_one_sees_ones_own_sessions_and_ends_them(service: Service) -> None:
    anna = await signed_in(service)
    bo = await signed_in(service, "bo")
    other = await second(service, anna)
    found = await held(anna)
    assert [each["this"] for each in found] == [False, True], "the latest first"
    assert [each["this"] for each in await held(other)] == [True, False]
    assert anna.session not in str(found)
    (his,) = await held(bo)
    sent = {"X_CSRF_Token": await anna.token()}
    for named in (his["id"], "x", found[0]["id"][:-1], "%25"):
        await problem(await anna.ask("DELETE", f"/v1/sessions/{named}", **sent), 404, "not-found")
    answer = await anna.ask("DELETE", f"/v1/sessions/{found[0]['id']}")
    await problem(answer, 403, "forbidden")
    answer = await anna.ask("DELETE", f"/v1/sessions/{found[0]['id']}", **sent)
    assert answer.status == 204
    await problem(await other.get("/v1/sessions"), 401, "unauthenticated")
    assert len(await held(bo)) == 1
    assert [act for _, act, _ in await entries(service)].count("signed_out") == 1
    # A key is signed in nowhere.
    answer = await service.get("/v1/sessions")
    assert await answer.json() == {"items": []}


@pytest.mark.parametrize(("language", "word"), [("fi", "Oma tili"), ("sv", "Ditt"), ("en", "Your")])
async def test_the_page_ends_one_without_a_script(
    service: Service, language: str, word: str
) -> None:
    anna = await signed_in(service, level=Level.AUDITOR)
    other = await second(service, anna)
    page = await (await anna.get("/account", Accept_Language=language)).text()
    assert word in page
    assert page.count("/account/sessions") == 1
    assert page.count('type="password"') == 3
    named = page.split('name="session" value="')[1].split('"')[0]
    fields = {"csrf": await anna.token("/account"), "session": named}
    await problem(
        await anna.ask("POST", "/account/sessions", {**fields, "csrf": "x"}), 403, "forbidden"
    )
    answer = await anna.ask("POST", "/account/sessions", fields)
    assert (answer.status, answer.headers["Location"]) == (303, "/account")
    await problem(await other.get("/v1/expiry"), 401, "unauthenticated")
    assert (await anna.get("/account")).status == 200


async def test_one_changes_ones_own_password_and_is_signed_out_elsewhere(
    service: Service,
) -> None:
    anna = await signed_in(service)
    other = await second(service, anna)
    for old, new, again, said in (
        ("not hers at all", NEW, "", "now is wrong"),
        (OWN, NEW, NEW + "x", "not the same"),
        (OWN, "too short", "", "less than 12"),
        (OWN, "passwordpassword", "", "guessed soon"),
        (OWN, OWN, "", "that you have."),
    ):
        status, page = await change(anna, old, new, again)
        assert (status, said in page) == (422, True), said
    assert (await other.get("/v1/recordings")).status == 200
    status, page = await change(anna, OWN, NEW)
    assert (status, "is changed" in page) == (200, True)
    assert (await anna.get("/v1/recordings")).status == 200, "here one stays"
    await problem(await other.get("/v1/recordings"), 401, "unauthenticated")
    await stop_clock(service, minutes=2)  # a code counts once
    for password, expected in ((OWN, 403), (NEW, 303)):
        code = await code_of(service.vault, anna.secret)
        fresh = Browser(service, service.retrieval)
        assert (await fresh.enter("anna", password, code)).status == expected
    told = await entries(service)
    assert [act for _, act, _ in told].count("account.password") == 1
    assert NEW not in str(told)


async def test_whoever_finds_a_session_open_guesses_slowly(service: Service) -> None:
    anna = await signed_in(service)
    await stop_clock(service)
    for _ in range(OF_A_NAME.free):
        assert (await change(anna, "not hers at all", NEW))[0] == 422
    status, page = await change(anna, OWN, NEW)
    assert (status, "too often" in page) == (429, True)
    await stop_clock(service, seconds=2)
    assert (await change(anna, OWN, NEW))[0] == 200


async def test_a_key_has_no_password(service: Service) -> None:
    answer = await service.get("/account")
    page = await answer.text()
    assert answer.status == 200
    assert 'type="password"' not in page
    answer = await service.session.post(
        f"{service.retrieval}/account",
        data={"password": OWN, "new": NEW, "again": NEW},
        headers=service._login("supervisor"),
    )
    await problem(answer, 404, "not-found")
