"""The form of a redaction: times there and back, and what it makes without a script."""

import re
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.access import Level
from archive.redaction import Span
from storage import playback
from tests.services import Service
from tests.sounds import tone
from tests.web.browsing import Browser, hidden, signed_in
from tests.web.test_listen import upload
from tests.web.test_reasons import asking
from tests.web.test_redaction import loudest, redacted
from web import marking

__all__ = ["asking"]


@given(st.integers(0, 12 * 3600 * 1000))
def test_a_time_is_read_as_it_was_written(at: int) -> None:
    assert marking.milliseconds(marking.clock(at)) == at


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("0", 0), ("75", 75_000), ("1:15", 75_000), (" 1:15.5 ", 75_500), ("1:15,25", 75_250),
        ("1:00:00.001", 3_600_001), ("", None), ("x", None), ("1:2:3:4", None), ("-1", None),
        ("1.2345", None),
    ],
)  # fmt: skip
def test_times_are_read_as_people_write_them(text: str, at: int | None) -> None:
    assert marking.milliseconds(text) == at


def test_rows_become_parts() -> None:
    form = {"from-0": "0:01", "to-0": "0:02.5", "from-3": "9", "to-3": "oops", "lane-3": "1"}
    assert marking.raw(marking.parts(form)) == [
        {"start": 1000, "stop": 2500},
        {"start": 9000, "stop": None, "channel": 1},
    ]
    assert marking.query([Span(1, 2), Span(3, 4, 1)]) == "1-2,3-4@1"


async def test_without_a_script_parts_are_heard_before_and_made_silent(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4, channels=2))
    browser = await signed_in(service)
    page = await _page(browser, identifier)
    assert page.count('name="from-') == 4, "three rows, and the one that a script makes more of"
    fields = {"from-0": "0:01.2", "to-0": "0:02", "lane-0": "1", "reason": ""}
    status, page = await _send(browser, identifier, {**fields, "do": "hear"})
    assert status == 200
    heard = re.search(r'<audio class="tried"[^>]* src="([^"]+)"', page)
    assert heard
    assert heard[1].endswith("/audio?format=wav&amp;silent=1200-2000@1")
    assert (await service.get(heard[1].replace("&amp;", "&"))).status == 200
    status, page = await _send(browser, identifier, {**fields, "do": "save"})
    assert status == 400
    assert "Say in a line why." in page
    assert 'value="0:01.2"' in page, "what was typed is not lost"
    status, page = await _send(
        browser, identifier, {**fields, "to-0": "0:01", "reason": "card", "do": "save"}
    )
    assert (status, "Each part begins" in page) == (422, True)
    status, _ = await _send(browser, identifier, {**fields, "reason": "<card>", "do": "save"})
    assert status == 303
    page = await _page(browser, identifier)
    assert "You hear a redacted copy." in page
    assert "0:01.200\u20130:02" in page
    assert "&lt;card&gt;" in page
    status, page = await _send(
        browser, identifier, {"from-0": "3", "to-0": "4", "reason": "x", "do": "save"}
    )
    assert (status, "What is silent stays so" in page) == (403, True)
    assert "Hear the original" not in page
    assert "Let everybody hear" not in page


async def test_a_form_that_was_loaded_before_undoes_nothing_that_was_made_silent_since(
    service: Service,
) -> None:
    """Neither by parts of its own, nor when they were heard before, nor by the original."""
    identifier = await upload(service, "c1", tone(4))
    officer = await signed_in(service, "paula", Level.PRIVACY)
    page = await _page(officer, identifier)
    early = {"csrf": hidden(page, "csrf"), "copy": hidden(page, "copy"), "reason": "mine"}
    mine = {**early, "from-0": "0:01", "to-0": "0:02"}
    await redacted(service, identifier, [{"start": 3000, "stop": 3500}])
    standing = [{"start": 3000, "stop": 3500}]
    path = f"/recordings/{identifier}/redaction"

    status, page = await _post(officer, path, {**mine, "do": "save"})
    assert (status, "Somebody else has just changed it" in page) == (409, True)
    assert 'value="0:01"' in page, "what was typed is not lost"
    assert "Load the page again" in page
    status, page = await _post(officer, path, {**mine, "do": "hear"})
    assert status == 200
    heard = {**mine, "copy": hidden(page, "copy"), "do": "save"}
    assert (await _post(officer, path, heard))[0] == 409
    assert await _standing(service, identifier) == standing

    page = await _page(officer, identifier)
    early["copy"] = hidden(page, "copy")
    more = [*standing, {"start": 3700, "stop": 3800}]
    await redacted(service, identifier, more)
    status, page = await _post(officer, f"{path}/withdrawal", early)
    assert (status, "Somebody else has just changed it" in page) == (409, True)
    assert await _standing(service, identifier) == more

    page = await _page(officer, identifier)
    now = {**early, "copy": hidden(page, "copy")}
    assert (await _post(officer, f"{path}/withdrawal", {**now, "reason": ""}))[0] == 400
    assert (await _post(officer, f"{path}/withdrawal", now))[0] == 303
    assert (await _post(officer, f"{path}/withdrawal", now))[0] == 409
    assert (await service.get(f"/v1{path}")).status == 404


async def test_what_is_refused_once_the_hour_of_a_reason_is_over_is_told_and_keeps_its_marks(
    asking: Service,
) -> None:
    identifier = await upload(asking, "c1", tone(4), call_type="contract")
    path, browser = f"/recordings/{identifier}", Browser(asking, asking.retrieval)
    key = {"Authorization": f"Bearer {asking.tokens['supervisor']}", "Accept_Language": "en"}
    answer = await browser.ask("POST", f"{path}/reasons", {"reason": "a complaint"}, **key)
    assert answer.status == 303
    await asking.turn_clock(timedelta(minutes=61))
    page = await (await browser.get(path, **key)).text()
    assert "Why do you listen?" in page
    form = {"copy": str(UUID(int=1)), "from-0": "0:01", "to-0": "0:02", "reason": "x", "do": "save"}
    answer = await browser.ask("POST", f"{path}/redaction", form, **key)
    page = await answer.text()
    assert (answer.status, "Somebody else has just changed it" in page) == (409, True)
    assert 'value="0:01"' in page, "what was typed is not lost"
    assert (await asking.get(f"/v1{path}/audio")).status == 403, "it is not heard all the same"


async def test_what_is_too_long_for_a_copy_is_told_as_that(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await upload(service, "c1", tone(4))
    monkeypatch.setattr(playback, "wav_size", lambda audio: None)
    form = {"from-0": "0:01", "to-0": "0:02", "reason": "card", "do": "save"}
    status, page = await _send(await signed_in(service), identifier, form)
    assert (status, "It is too long for a copy." in page) == (413, True)
    assert 'value="0:01"' in page, "what was typed is not lost"


async def test_who_may_hear_the_original_hears_before_what_would_be_kept(
    service: Service,
) -> None:
    """What was silent until now sounds in it again, as it will for everybody."""
    identifier = await upload(service, "c1", tone(4))
    await redacted(service, identifier, [{"start": 1000, "stop": 2000}])
    moved = {"from-0": "1.5", "to-0": "2.5", "reason": "x", "do": "hear"}
    officer = await signed_in(service, "paula", Level.PRIVACY)
    _, page = await _send(officer, identifier, moved)
    heard = re.search(r'<audio class="tried"[^>]* src="([^"]+)"', page)
    assert heard
    assert heard[1].endswith("&amp;version=original")
    answer = await service.get(heard[1].replace("&amp;", "&"), "privacy")
    content = await answer.read()
    assert loudest(content, 1.01, 1.49) > 0
    assert loudest(content, 1.51, 2.49) == 0
    _, page = await _send(await signed_in(service), identifier, moved)
    assert "version=original" not in page


async def test_a_form_of_an_ended_session_leads_back_to_its_page(service: Service) -> None:
    identifier = await upload(service, "c1", tone(1))
    browser = await signed_in(service)
    token = await browser.token(f"/recordings/{identifier}")
    await service.turn_clock(timedelta(minutes=16))
    for path, back in (
        (f"/recordings/{identifier}/redaction", f"/recordings/{identifier}"),
        (f"/exports/{identifier}/end", f"/exports/{identifier}"),
        ("/account/sessions", "/account"),
        ("/search", "/"),
        ("/exports", "/"),
    ):
        await _led_back(browser, path, token, back)


async def test_the_form_of_a_certificate_of_an_ended_session_leads_back_to_its_page(
    service: Service,
) -> None:
    browser = await signed_in(service, "aud", Level.AUDITOR)
    token = await browser.token("/certificate")
    await service.turn_clock(timedelta(minutes=16))
    await _led_back(browser, "/certificate", token, "/certificate")


async def _led_back(browser: Browser, path: str, token: str, back: str) -> None:
    answer = await browser.ask("POST", path, {"csrf": token}, Accept="text/html")
    assert (answer.status, f'href="/sign-in?to={back}"' in await answer.text()) == (401, True)


async def _standing(service: Service, identifier: str) -> list[dict[str, int]]:
    answer = await service.get(f"/v1/recordings/{identifier}/redaction")
    found: list[dict[str, int]] = (await answer.json())["spans"]
    return found


async def _page(browser: Browser, identifier: str) -> str:
    answer = await browser.get(f"/recordings/{identifier}", Accept_Language="en")
    assert answer.status == 200
    return await answer.text()


async def _send(browser: Browser, identifier: str, fields: dict[str, str]) -> tuple[int, str]:
    page = await _page(browser, identifier)
    form = {**fields, **{name: hidden(page, name) for name in ("csrf", "copy")}}
    return await _post(browser, f"/recordings/{identifier}/redaction", form)


async def _post(browser: Browser, path: str, form: dict[str, str]) -> tuple[int, str]:
    answer = await browser.ask("POST", path, form, Accept_Language="en")
    return answer.status, await answer.text()
