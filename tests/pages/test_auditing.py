"""An auditor's path, in a browser: what expires, the nights, the ledger, and whether a certificate
holds; with a script and without one."""

import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from archive.access import Level
from storage import accounts
from tests.jobs.test_expiry import a_year_ago
from tests.pages.conftest import PATIENCE, Opener, Seen
from tests.pages.test_everyone import barriers
from tests.roles import connection
from tests.services import Service
from tests.web.test_listen import upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

PASSWORD = "a password of one's own"


async def erased(service: Service, monkeypatch: Any) -> str:
    """A recording whose year is over and whose day is closed."""
    identifier = await upload(service, "a", started_at=a_year_ago(seconds=20), agent="Anna")
    await upload(service, "b", call_type="contract")
    await service.turn_all_clocks(timedelta(days=2), monkeypatch)
    await service.night()
    return identifier


async def choose(page: Page, content: bytes) -> None:
    """Choose a file, and send it."""
    file = {"name": "certificate.json", "mimeType": "application/json", "buffer": content}
    await page.get_by_label("Drop the file of a certificate here").set_input_files([file])  # type: ignore[list-item]
    await page.get_by_role("button", name="Check it").click()


async def drop(page: Page, content: bytes) -> None:
    """Drop a file beside the field, as a hand does."""
    transfer = await page.evaluate_handle(
        "text => { const held = new DataTransfer();"
        " held.items.add(new File([text], 'certificate.json', {type: 'application/json'}));"
        " return held; }",
        content.decode(),
    )
    for kind in ("dragenter", "dragover"):
        await page.dispatch_event("h1", kind, {"dataTransfer": transfer})
    await expect(page.locator("form.drop[data-over]")).to_be_visible()
    await page.dispatch_event("h1", "drop", {"dataTransfer": transfer})


@asynccontextmanager
async def signed_in(service: Service, chromium: Browser, **more: Any) -> AsyncIterator[Page]:
    """A page of an auditor who has signed in."""
    async with connection(service.vault.pool) as lent:
        await accounts.add(lent, service.vault.ring, "au", Level.AUDITOR, own_password=PASSWORD)
    context = await chromium.new_context(base_url=service.operations, locale="en-GB", **more)
    context.set_default_timeout(PATIENCE)
    page = await context.new_page()
    await page.goto("/sign-in?to=/")
    await page.fill("#name", "au")
    await page.fill("#password", PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    yield page
    await context.close()


@pytest.mark.timeout(300)  # many pages, on whatever machine
@pytest.mark.parametrize("script", [True, False])
async def test_an_auditors_path(
    service: Service, chromium: Browser, monkeypatch: Any, script: bool
) -> None:
    identifier = await erased(service, monkeypatch)
    async with signed_in(service, chromium, java_script_enabled=script) as page:
        content = await found(page, identifier)
        await checked(page, content, service, identifier, script=script)


async def found(page: Page, identifier: str) -> bytes:
    """Look at the calendar, the night and the ledger; the certificate that it leads to."""

    # The calendar: the one call that is kept, on its day.
    await page.get_by_role("link", name="1 falls due").first.click()
    await expect(page.locator("#day")).to_contain_text("Contract")
    await expect(page.locator("#day")).to_contain_text("1 falls due")

    # The night: what it erased, and that its day is closed.
    night = page.get_by_role("region", name="The last nights").locator("tbody tr")
    await expect(night).to_have_count(1)
    for place, text in ((0, "1"), (1, "0"), (3, "\u2013")):
        await expect(night.locator("td").nth(place)).to_have_text(text)

    # The ledger: all about the recording that was erased.
    await page.get_by_role("link", name="Search the ledger").click()
    await page.get_by_label("Act", exact=True).select_option(label="Recording erased")
    await page.get_by_role("button", name="Search", exact=True).click()
    row = page.locator(".entries tbody tr")
    await expect(row).to_have_count(1)
    assert "act=erased" in page.url
    await page.get_by_role("link", name="All about recording").click()
    await expect(page.locator(".entries tbody tr")).to_have_count(2)
    await expect(page.locator(".entries")).to_contain_text("Recording taken in")
    await expect(page.get_by_label("Id of a recording")).to_have_value(identifier)
    async with page.expect_download() as waited:
        await page.get_by_role("link", name="as a file").click()
    return Path(await (await waited.value).path()).read_bytes()


async def checked(
    page: Page, content: bytes, service: Service, identifier: str, *, script: bool
) -> None:
    """The certificate holds, and one that was changed does not."""
    await page.get_by_role("link", name="Check a certificate").click()
    await (drop if script else choose)(page, content)
    verdict = page.locator("#verdict")
    await expect(verdict).to_contain_text("The certificate holds")
    await expect(verdict.locator("li.held")).to_have_count(9)
    await expect(verdict).to_contain_text(identifier)
    await expect(verdict).to_contain_text(str(service.vault.signer.verifier))
    if script:
        await expect(verdict).to_be_focused()
    changed = copy.deepcopy(json.loads(content))
    changed["entries"][1]["entry"]["at"] = "2027-01-01T00:00:00.000000Z"
    await choose(page, json.dumps(changed).encode())
    await expect(verdict).to_contain_text("The certificate does not hold")
    await expect(verdict.locator("li.failed")).to_contain_text("Recording erased")
    await expect(verdict.locator("li.held")).to_have_count(2)


async def test_a_search_goes_on_to_older_entries(
    service: Service, enter: Opener, monkeypatch: Any
) -> None:
    monkeypatch.setattr("web.ledger_pages.PAGE", 2)
    for call in ("a", "b", "c"):
        await upload(service, call)
    page = await enter("/ledger?act=stored", "auditor", "operations", java_script_enabled=False)
    rows = page.locator(".entries tbody tr")
    await expect(rows).to_have_count(2)
    await page.get_by_role("link", name="Older entries").click()
    await expect(rows).to_have_count(1)
    await expect(page.get_by_label("Act", exact=True)).to_have_value("stored")
    await expect(page.locator(".further")).to_contain_text("These are all.")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_answer_about_a_certificate_has_a_barrier_or_needs_scrolling_to_the_side(
    service: Service, enter: Opener, seen: Seen, monkeypatch: Any, theme: str
) -> None:
    identifier = await erased(service, monkeypatch)
    true = await (await service.operate(f"/v1/certificates/{identifier}")).json()
    changed = {**true, "entries": true["entries"][:1]}
    page = await enter(
        "/certificate", "auditor", "operations", color_scheme=theme,
        viewport={"width": 320, "height": 600},
    )  # fmt: skip
    for raw, words in (
        (true, "The certificate holds"),
        (changed, "The certificate does not hold"),
        ({}, "This cannot be read as a certificate"),
    ):
        await choose(page, json.dumps(raw).encode())
        await expect(page.locator("#verdict")).to_contain_text(words)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        assert seen.refused == []
        assert await barriers(page) == [], words
        seen.refused.clear()  # axe tries styles of its own
