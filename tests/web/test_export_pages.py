"""The pages of exports as they leave the door, without a browser."""

import io
import zipfile
from datetime import timedelta

import pytest

from archive import export
from archive.access import Level
from storage import export_making, four_eyes
from tests.jobs.test_expiry import a_year_ago
from tests.services import Service
from tests.web.browsing import Browser, hidden, signed_in
from tests.web.test_exports import asked, entries, several
from tests.web.test_listen import upload

WHY = "Complaint 4711"


async def text(browser: Browser, path: str) -> str:
    answer = await browser.get(path, Accept="text/html", Accept_Language="en")
    assert answer.status == 200, path
    return await answer.text()


async def test_chosen_calls_become_a_file_that_is_fetched(service: Service) -> None:
    ids = await several(service, 2)
    browser = await signed_in(service)
    page = await text(browser, "/")
    for one in ids:
        assert f'name="call.{one}"' in page
    token = hidden(page, "csrf")
    form = {"csrf": token, "reason": WHY, **{f"call.{one}": "on" for one in ids}}
    answer = await browser.ask("POST", "/exports", {**form, "csrf": "x"})
    assert answer.status == 403
    answer = await browser.ask("POST", "/exports", form)
    address = answer.headers["Location"]
    assert answer.status == 303
    page = await text(browser, address)
    assert 'data-stage="queued" data-busy' in page
    assert "2 calls" in page
    assert WHY in page
    assert await export_making.run(service.vault)
    page = await text(browser, address)
    assert 'data-stage="ready"' in page
    assert f'href="{address}/file"' in page
    part = await browser.get("/exports", Accept="text/html", X_Part="list")
    assert "<html" not in await part.text()
    head = await browser.ask("HEAD", f"{address}/file")
    assert (head.status, await entries(service, "exported")) == (200, [])
    answer = await browser.get(f"{address}/file")
    archive = zipfile.ZipFile(io.BytesIO(await answer.read()))
    assert f"{ids[0]}.wav" in archive.namelist()
    assert "Nobody has heard it yet." not in await text(browser, f"/recordings/{ids[0]}")
    answer = await browser.ask("POST", f"{address}/end", {"csrf": token})
    assert answer.status == 303
    assert 'data-stage="over"' in await text(browser, address)
    gone = await browser.get(f"{address}/file", Accept="text/html", Accept_Language="en")
    assert gone.status == 410
    told = await gone.text()
    assert 'data-kind="over"' in told
    assert "This recording is erased" not in told


async def test_a_call_that_ends_within_minutes_is_not_told_as_erased(service: Service) -> None:
    one = await upload(service, "a", started_at=a_year_ago(seconds=300))
    browser = await signed_in(service)
    form = {"csrf": await browser.token("/"), "reason": WHY, f"call.{one}": "on"}
    answer = await browser.ask("POST", "/exports", form, Accept="text/html")
    assert (answer.status, 'data-kind="over"' in await answer.text()) == (410, True)
    await service.turn_clock(timedelta(seconds=310))
    answer = await browser.get(f"/recordings/{one}", Accept="text/html")
    assert (answer.status, 'data-kind="gone"' in await answer.text()) == (410, True)


async def test_a_form_without_a_call_or_a_reason_makes_none(service: Service) -> None:
    [one] = await several(service, 1)
    browser = await signed_in(service)
    token = hidden(await text(browser, "/"), "csrf")
    answer = await browser.ask("POST", "/exports", {"csrf": token, "reason": WHY})
    assert answer.headers["Location"] == "/exports?none="
    assert 'role="alert"' in await text(browser, "/exports?none=")
    for reason in ("", " ", "x" * 501):
        form = {"csrf": token, "reason": reason, f"call.{one}": "on"}
        assert (await browser.ask("POST", "/exports", form)).status == 400
    longest = {"csrf": token, "reason": "\u20ac" * 500, f"call.{one}": "on"}
    longest |= {f"call.{one[:-4]}{number:04}": "on" for number in range(export.MOST - 1)}
    assert (await browser.ask("POST", "/exports", longest)).status == 404, "it is read, and refused"
    more = {**longest, "call.one-more": "on"}
    answer = await browser.ask("POST", "/exports", more, Accept="text/html")
    assert (answer.status, 'data-kind="large"' in await answer.text()) == (413, True)
    assert await entries(service, "export.asked") == []


async def test_a_second_person_is_shown_what_waits_and_agrees(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ALONE", 1)
    ids = await several(service, 2)
    browser = Browser(service, service.retrieval)
    asker = service.tokens["supervisor"]
    answer = await service.session.post(
        f"{service.retrieval}/exports",
        data={"reason": WHY, **{f"call.{one}": "on" for one in ids}},
        headers={"Authorization": f"Bearer {asker}"},
        allow_redirects=False,
    )
    address = answer.headers["Location"]
    waits = await browser.get(
        f"{address}/file", Authorization=f"Bearer {asker}", Accept="text/html"
    )
    assert (waits.status, 'data-kind="refused"' in await waits.text()) == (403, True)
    officer = {"Authorization": f"Bearer {service.tokens['privacy']}", "Accept_Language": "en"}
    page = await (await browser.get("/exports", **officer)).text()
    assert WHY in page
    assert f'action="{address}/agree"' in page
    assert f'action="{address}/end"' not in page
    mine = await (await browser.get(address, Authorization=f"Bearer {asker}")).text()
    assert f'action="{address}/agree"' not in mine
    answer = await browser.ask("POST", f"{address}/agree", {"x": ""}, **officer)
    assert (answer.status, answer.headers["Location"]) == (303, "/exports")
    assert (await browser.get(address, **officer)).status == 404, "it is none of theirs"
    assert await export_making.run(service.vault)


async def test_what_nobody_agreed_to_within_a_day_is_offered_no_more(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ALONE", 1)
    address = f"/exports/{await asked(service, await several(service, 2))}"
    browser = Browser(service, service.retrieval)

    async def seen(path: str, level: str) -> str:
        key = {"Authorization": f"Bearer {service.tokens[level]}", "Accept_Language": "en"}
        return await (await browser.get(path, Accept="text/html", **key)).text()

    await service.turn_clock(four_eyes.WAIT - timedelta(seconds=60))
    assert f'action="{address}/agree"' in await seen("/exports", "privacy")
    assert f"<code>{address}</code>" in await seen(address, "supervisor")
    await service.turn_clock(four_eyes.WAIT + timedelta(seconds=30))
    assert "/agree" not in await seen("/exports", "privacy")
    assert 'data-kind="missing"' in await seen(address, "privacy")
    mine = await seen(address, "supervisor")
    assert "Nobody agreed to it within a day." in mine
    assert f"<code>{address}</code>" not in mine, "nobody is to be sent to it"
    assert f'action="{address}/end"' in mine


async def test_an_account_of_another_level_has_no_exports(service: Service) -> None:
    browser = await signed_in(service, "eve", Level.AUDITOR)
    browser.door = service.retrieval
    answer = await browser.get("/exports", Accept="text/html")
    assert (answer.status, 'data-kind="forbidden"' in await answer.text()) == (403, True)
