"""A supervisor takes calls out of the archive, in a browser: a file of them, and a list."""

import asyncio
import csv
import json
import zipfile
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from archive import export
from storage import export_making
from tests.pages.conftest import Opener
from tests.services import Service
from tests.web.test_exports import asked
from tests.web.test_listen import ago, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

WHY = "Complaint 4711"


async def chosen(page: Page, count: int) -> None:
    """Tick the first calls of the list, and say why."""
    boxes = page.locator("#found tbody input[type=checkbox]")
    for number in range(count):
        await boxes.nth(number).check()
    await page.get_by_text("Take calls out of the archive").click()
    await page.get_by_label("Why?").fill(WHY)


async def test_ticked_calls_are_exported_and_downloaded(
    service: Service, enter: Opener, monkeypatch: Any
) -> None:
    monkeypatch.setattr("web.finding.PAGE", 2)
    ids = [await upload(service, f"c{n}", started_at=ago(hours=5 - n)) for n in range(3)]
    page = await enter()
    await page.locator("#found tbody input[type=checkbox]").first.check()
    await page.get_by_role("link", name="Older calls").click()
    await expect(page.locator("#found tbody tr")).to_have_count(3)
    await expect(page.locator("#found tbody input:checked")).to_have_count(1)
    await page.locator("#found tbody input[type=checkbox]").nth(2).check()
    await page.get_by_text("Take calls out of the archive").click()
    await page.get_by_label("Why?").fill(WHY)
    await page.get_by_role("button", name="Export the chosen calls").click()
    await expect(page.locator(".export")).to_contain_text("2 calls")
    await expect(page.get_by_role("progressbar")).to_be_visible()
    await export_making.run(service.vault)
    async with page.expect_download() as waited:
        await page.get_by_role("link", name="Download").click()  # it comes without a reload
    path = await (await waited.value).path()
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert archive.testzip() is None
    assert {each["id"] for each in manifest["recordings"]} == {ids[0], ids[2]}
    assert manifest["reason"] == WHY
    await page.get_by_role("button", name="Erase it now").click()
    await expect(page.locator(".export")).to_contain_text("ended before its time")


async def test_without_a_script_it_takes_a_reload(service: Service, enter: Opener) -> None:
    await upload(service, "a")
    page = await enter(java_script_enabled=False)
    await chosen(page, 1)
    await page.get_by_role("button", name="Export the chosen calls").click()
    await expect(page.locator(".export")).to_contain_text("Will be made in a moment")
    await export_making.run(service.vault)
    await page.get_by_role("link", name="Look again").click()
    await expect(page.get_by_role("link", name="Download")).to_be_visible()
    await expect(page.locator(".export")).to_contain_text("Will be erased")


async def test_the_list_is_saved_as_it_is_shown(service: Service, enter: Opener) -> None:
    await upload(service, "a", customer="C-1")
    await upload(service, "b", customer="C-2")
    page = await enter()
    await page.fill("#text", "customer:C-2")
    await expect(page.locator("#found tbody tr")).to_have_count(1)
    await page.get_by_text("Take calls out of the archive").click()
    await page.get_by_label("Why?").fill(WHY)
    async with page.expect_download() as waited:
        await page.get_by_role("button", name="Save the list as CSV").click()
    path = await (await waited.value).path()
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["customer"] for row in rows] == ["C-2"]


async def test_many_calls_wait_for_a_second_person(
    service: Service, enter: Opener, monkeypatch: Any
) -> None:
    monkeypatch.setattr(export, "ALONE", 1)
    for call in ("a", "b"):
        await upload(service, call)
    page = await enter()
    await chosen(page, 2)
    await page.get_by_role("button", name="Export the chosen calls").click()
    await expect(page.locator(".export")).to_contain_text("Waits for a second person")
    officer = await enter(page.url, "privacy")
    await expect(officer.locator(".export")).to_contain_text(WHY)
    await officer.get_by_role("button", name="Agree to this export").click()
    await page.reload()
    await expect(page.locator(".export")).to_contain_text("Will be made in a moment")


async def test_one_call_is_exported_from_its_own_page(service: Service, enter: Opener) -> None:
    identifier = await upload(service, "a")
    page = await enter(f"/recordings/{identifier}")
    await page.locator("summary", has_text="Export this call").click()
    await page.get_by_label("Why?").fill(WHY)
    await page.get_by_role("button", name="Export this call").click()
    await expect(page.locator(".export")).to_contain_text("1 call")


async def making(service: Service, enter: Opener) -> Page:
    """The page of exports, while one is being made."""
    await asked(service, [await upload(service, "a")])
    page = await enter("/exports")
    await expect(page.get_by_role("progressbar")).to_be_visible()
    return page


async def test_what_has_the_focus_keeps_it_while_an_export_is_made(
    service: Service, enter: Opener
) -> None:
    page = await making(service, enter)
    looks: list[str] = []
    page.on("response", lambda answer: looks.append(answer.url))
    erase = page.get_by_role("button", name="Erase it now")
    await erase.focus()
    await page.locator("#exports").evaluate(
        "list => { window.replaced = 0;"
        " new MutationObserver(() => window.replaced++).observe(list, {childList: true}); }"
    )
    async with asyncio.timeout(30):
        while len(looks) < 3:  # then the answers to two were brought onto the page
            await asyncio.sleep(0.1)
    await expect(erase).to_be_focused()
    assert await page.evaluate("window.replaced") == 0, "what is the same stays as it is"
    await expect(page.get_by_role("status").filter(has_text="call")).to_have_count(0)
    await export_making.run(service.vault)
    await expect(page.get_by_role("link", name="Download")).to_be_visible()
    await expect(erase).to_be_focused()
    await expect(page.get_by_role("status").filter(has_text="1 call: Ready")).to_have_count(1)


async def test_a_look_that_fails_is_followed_by_another(service: Service, enter: Opener) -> None:
    page = await making(service, enter)
    failing = iter((503, 429))

    async def refuse(route: Route) -> None:
        status = next(failing, None)
        if status is None:
            await route.continue_()
        else:
            await route.fulfill(status=status)

    await page.route("**/exports", refuse)
    await export_making.run(service.vault)
    await expect(page.get_by_role("link", name="Download")).to_be_visible()
    assert next(failing, None) is None
    await expect(page.locator(".told")).to_be_empty()


@pytest.mark.parametrize(
    ("status", "said"), [(401, "load the page again"), (404, "not brought up to date any more")]
)
async def test_what_ends_the_looking_is_told(
    service: Service, enter: Opener, status: int, said: str
) -> None:
    page = await making(service, enter)
    await page.route("**/exports", lambda route: route.fulfill(status=status))
    await expect(page.get_by_role("status").filter(has_text=said)).to_be_visible()
