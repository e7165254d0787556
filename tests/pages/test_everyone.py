"""The pages are for everyone: without a script, in either theme, narrow, enlarged, any letters."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from archive.access import Level
from storage import accounts
from tests.pages.conftest import Opener, Seen
from tests.roles import connection
from tests.services import Service
from tests.sounds import tone
from tests.web.test_exports import asked
from tests.web.test_listen import upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = Path(__file__).parents[2] / "frontend/node_modules/axe-core/axe.min.js"

LONG_NAME = "Wolfeschlegelsteinhausenbergerdorff-von-Äyräpää-Öhman-Ruotsalainen"
RIGHT_TO_LEFT = "فاطمة الزهراء \u202eبنت محمد"


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_page_has_a_barrier_that_axe_finds(
    service: Service, enter: Opener, seen: Seen, theme: str
) -> None:
    identifier = await upload(service, "a", tone(3, channels=2), agent="Anna", direction="inbound")
    await service.night()
    await asked(service, [identifier])
    for path, level, door, awaited in (
        ("/exports", "supervisor", "retrieval", ".export progress"),
        ("/", "supervisor", "retrieval", "table.calls"),
        (f"/recordings/{identifier}", "supervisor", "retrieval", ".talk"),
        ("/recordings/none", "supervisor", "retrieval", ".notice"),
        ("/", "auditor", "operations", ".months"),
        ("/ledger", "auditor", "operations", ".entries"),
        ("/ledger?recording=x&from=x", "auditor", "operations", ".fault >> nth=0"),
        ("/certificate", "auditor", "operations", "form.drop"),
    ):
        page = await enter(path, level, door, color_scheme=theme)
        await expect(page.locator(awaited)).to_be_visible()
        await page.get_by_text("Settings", exact=True).click()
        assert seen.refused == []
        assert await barriers(page) == [], path
        seen.refused.clear()  # axe tries styles of its own
        await page.context.close()


async def barriers(page: Page) -> list[Any]:
    """What axe finds on a page."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run({resultTypes: ['violations']})")
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_ones_own_account_has_no_barrier_either(
    service: Service, chromium: Browser, theme: str
) -> None:
    async with connection(service.vault.pool) as lent:
        await accounts.add(
            lent, service.vault.ring, "anna", Level.SUPERVISOR, own_password=LONG_NAME
        )
    for _ in range(2):
        context = await chromium.new_context(
            base_url=service.retrieval, locale="en-GB", color_scheme=theme
        )
        page = await context.new_page()
        await page.goto("/sign-in?to=/account")
        assert await barriers(page) == []
        await page.fill("#name", "anna")
        await page.fill("#password", LONG_NAME)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    assert await barriers(page) == []
    await page.get_by_role("button", name="End this one").click()
    await expect(page.locator("main li")).to_have_count(1)
    for each in chromium.contexts:
        await each.close()


@pytest.mark.parametrize(("width", "zoom"), [(320, 1), (1280, 4)])
async def test_nothing_needs_scrolling_to_the_side(
    service: Service, enter: Opener, width: int, zoom: int
) -> None:
    identifier = await upload(
        service, LONG_NAME * 2, tone(2, channels=2), agent=RIGHT_TO_LEFT, queue=LONG_NAME,
        customer=LONG_NAME, caller=LONG_NAME, callee=RIGHT_TO_LEFT,
    )  # fmt: skip
    # An enlarged page is a narrower one, with as many more of the device's dots for each of its.
    view = {"viewport": {"width": width // zoom, "height": 600}, "device_scale_factor": zoom}
    await asked(service, [identifier])
    for path, level, door in (
        ("/", "supervisor", "retrieval"),
        ("/exports", "supervisor", "retrieval"),
        (f"/recordings/{identifier}", "supervisor", "retrieval"),
        ("/", "auditor", "operations"),
        ("/ledger", "auditor", "operations"),
        ("/ledger?recording=x", "auditor", "operations"),
        ("/certificate", "auditor", "operations"),
    ):
        page = await enter(path, level, door, **view)
        await page.wait_for_load_state("networkidle")
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width // zoom, path
        await page.context.close()


async def test_a_name_from_right_to_left_keeps_to_its_place(
    service: Service, enter: Opener
) -> None:
    await upload(service, "a", agent=RIGHT_TO_LEFT, caller=LONG_NAME)
    page = await enter()
    row = page.locator("#found tbody tr")
    await expect(row).to_contain_text("0:01")
    await expect(row.locator("td[data-name=Agent] bdi")).to_have_text(RIGHT_TO_LEFT)


async def test_without_a_script_calls_are_found_and_played(service: Service, enter: Opener) -> None:
    await upload(service, "a", customer="C-1")
    identifier = await upload(service, "b", customer="C-2")
    page = await enter(java_script_enabled=False)
    await page.fill("#text", "customer:C-2")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#found tbody tr")).to_have_count(1)
    await page.locator("#found tbody a").click()
    audio = page.locator("audio[controls]")
    await expect(audio).to_be_visible()
    await expect(page.locator(".controls:visible")).to_have_count(0)
    source = await audio.locator("source").first.get_attribute("src")
    assert source == f"/v1/recordings/{identifier}/audio"
    answer = await page.request.get(source)
    assert answer.status == 200
