"""A supervisor finds a call, in a browser."""

import re
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from archive.access import Level
from storage import accounts
from tests.pages.conftest import PATIENCE, Opener
from tests.roles import connection
from tests.services import Service
from tests.web.browsing import OWN
from tests.web.test_listen import ago, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_supervisor_finds_a_call_by_keys_alone(service: Service, enter: Opener) -> None:
    one = await upload(service, "a", caller="+358401234567", started_at=ago(hours=3))
    await upload(service, "b", caller="+358409999999", started_at=ago(hours=2))
    page = await enter()
    rows = page.locator("#found tbody tr")
    await expect(rows).to_have_count(2)
    await page.keyboard.press("/")
    await page.keyboard.type("4567")
    await expect(rows).to_have_count(1)
    await expect(page.locator(".understood")).to_contain_text("4567")
    await expect(page).to_have_url(re.compile(r"/\?q="))
    assert "4567" not in page.url
    kept = page.url
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/recordings/{one}"))
    await page.go_back()
    await expect(page.locator("#text")).to_have_value("4567")
    colleague = await enter(kept, "privacy")
    await expect(colleague.locator("#found tbody tr")).to_have_count(1)
    await page.keyboard.press("/")
    await page.keyboard.press("Delete")
    await expect(rows).to_have_count(2)


async def test_what_a_search_found_is_told_to_who_hears_a_page(
    service: Service, enter: Opener
) -> None:
    await upload(service, "a", caller="+358401234567", started_at=ago(hours=3))
    await upload(service, "b", caller="+358409999999", started_at=ago(hours=2))
    page = await enter()
    told = page.get_by_role("status").filter(has_text=re.compile("call", re.IGNORECASE))
    await expect(told).to_have_count(0)
    await page.fill("#text", "4567")
    await expect(told).to_have_text("1 call, newest first")
    await page.fill("#text", "4568")
    await expect(told).to_have_text("No call is found.")
    await page.fill("#text", "")
    await expect(told).to_have_text("2 calls, newest first")


async def test_chips_narrow_what_is_found(service: Service, enter: Opener) -> None:
    await upload(service, "a", call_type="contract", started_at=ago(days=40))
    await upload(service, "b", call_type="other", direction="inbound", started_at=ago(minutes=2))
    page = await enter()
    rows = page.locator("#found tbody tr")
    await page.locator(".search").get_by_label("Contract").check()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("Contract")
    await page.locator(".search").get_by_label("Inbound").check()
    await expect(page.locator(".nothing")).to_be_visible()
    await page.locator(".search").get_by_label("Contract").uncheck()
    await expect(rows).to_have_count(1)
    await page.get_by_label("Days of your own").check()
    await page.get_by_label("From").fill("2020-01-01")
    await page.get_by_label("to", exact=True).fill("2020-01-02")
    await expect(page.locator(".nothing")).to_be_visible()
    await page.reload()
    await expect(page.locator(".nothing")).to_be_visible()
    await expect(page.locator(".search").get_by_label("Inbound")).to_be_checked()


async def test_older_calls_come_as_one_goes_down(
    service: Service, enter: Opener, monkeypatch: Any
) -> None:
    monkeypatch.setattr("web.finding.PAGE", 3)
    for number in range(8):
        await upload(service, f"c{number}", started_at=ago(hours=9 - number))
    page = await enter()
    rows = page.locator("#found tbody tr")
    await expect(rows).to_have_count(3)
    await page.get_by_role("link", name="Older calls").click()
    await expect(rows).to_have_count(8)
    await expect(page.locator(".further")).to_have_text("These are all.")
    links = await page.locator("#found tbody a").evaluate_all("all => all.map(a => a.href)")
    assert len(set(links)) == 8


async def test_language_colours_and_columns_are_chosen(service: Service, enter: Opener) -> None:
    await upload(service, "a", queue="viat")
    page = await enter()
    await page.get_by_text("Settings").click()
    await page.get_by_label("Svenska").check()
    await page.get_by_label("Dark").check()
    await page.get_by_label("Queue").check()
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("html")).to_have_attribute("lang", "sv")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(page.get_by_role("columnheader", name="Kö")).to_be_visible()
    await expect(page.locator("#found")).to_contain_text("viat")
    await expect(page.locator("body")).to_have_css("color", "rgb(236, 234, 229)")


async def test_a_search_says_when_the_archive_is_away(service: Service, enter: Opener) -> None:
    page = await enter()
    await page.route("**/search", lambda route: route.abort())
    await page.fill("#text", "4567")
    await expect(page.locator(".told")).to_contain_text("cannot be reached")
    await page.unroute("**/search")
    await service.revoke("supervisor")
    await page.fill("#text", "45678")
    await expect(page.locator(".told")).to_contain_text("session has ended")
    await page.reload()
    await expect(page.get_by_role("heading")).to_have_text("You are not signed in")


async def test_a_search_of_a_page_that_another_session_loaded_says_so(
    service: Service, chromium: Browser
) -> None:
    async with connection(service.vault.pool) as lent:
        await accounts.add(lent, service.vault.ring, "anna", Level.SUPERVISOR, own_password=OWN)
    context = await chromium.new_context(base_url=service.retrieval, locale="en-GB")
    context.set_default_timeout(PATIENCE)
    first, second = await sign_in(context), await sign_in(context)
    await first.fill("#text", "4567")
    await expect(first.locator(".told")).to_contain_text("load the page again")
    await second.fill("#text", "4567")
    await expect(second.locator(".nothing")).to_be_visible()
    await expect(second.locator(".told")).to_be_empty()
    # Without a script, the page of the error says the same.
    await first.evaluate("document.querySelector('form.search').submit()")
    await expect(first.get_by_role("heading", level=1)).to_contain_text("older than your session")
    await context.close()


async def sign_in(context: BrowserContext) -> Page:
    """One more page, on which somebody signed in anew."""
    page = await context.new_page()
    await context.clear_cookies()
    await page.goto("/sign-in?to=/")
    await page.fill("#name", "anna")
    await page.fill("#password", OWN)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("searchbox")).to_be_visible()
    return page


@pytest.mark.parametrize(
    ("status", "said"),
    [(410, "good for a day"), (429, "Wait a moment"), (503, "cannot be reached")],
)
async def test_what_keeps_older_calls_away_is_told_as_what_it_is(
    service: Service, enter: Opener, monkeypatch: Any, status: int, said: str
) -> None:
    monkeypatch.setattr("web.finding.PAGE", 1)
    for call in ("a", "b"):
        await upload(service, call)
    page = await enter()
    await page.route("**/?q=*", lambda route: route.fulfill(status=status))
    await page.get_by_role("link", name="Older calls").click()
    await expect(page.locator(".told")).to_contain_text(said)
