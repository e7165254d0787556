"""A supervisor makes a number that was spoken silent, in a browser; privacy hears it and takes it
back.
"""

import asyncio
import json
from datetime import timedelta

import pytest
from playwright.async_api import Browser, Page, expect

from archive.access import Level
from storage import accounts
from tests.pages.conftest import PATIENCE, Opener, Seen
from tests.pages.test_everyone import AXE
from tests.pages.test_finding import sign_in
from tests.pages.test_hearing import ready, until
from tests.roles import connection
from tests.services import Service
from tests.sounds import tone
from tests.web.browsing import OWN
from tests.web.test_listen import upload
from tests.web.test_redaction import loudest, one, redacted

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def marking(page: Page) -> None:
    await ready(page)
    await page.get_by_text("Make parts of it silent").click()
    await expect(page.get_by_text("No part is marked yet.")).to_be_visible()


async def spans(service: Service, identifier: str) -> list[dict[str, int]]:
    answer = await service.get(one(identifier, "/redaction"))
    found: list[dict[str, int]] = (await answer.json())["spans"]
    return found


async def test_parts_are_marked_by_mouse_and_keys_heard_before_and_made_silent(
    service: Service, enter: Opener
) -> None:
    identifier = await upload(service, "a", tone(60, channels=2))
    page = await enter(f"/recordings/{identifier}")
    await marking(page)
    await page.get_by_role("button", name="Mark on the picture").click()
    box = await page.locator(".shade").bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + box["width"] * 0.25, y)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.4, y)
    await page.mouse.move(box["x"] + box["width"] * 0.5, y)
    await page.mouse.up()
    await expect(page.locator(".part")).to_have_count(1)
    await expect(page.locator(".cut")).to_have_count(1)
    await page.get_by_role("button", name="Mark on the picture").click()
    slider = page.get_by_role("slider", name="Place in the recording")
    await slider.press("Home")
    await slider.press("ArrowRight")
    await page.keyboard.press("i")
    await slider.press("ArrowRight")
    await page.keyboard.press("o")
    await expect(page.locator(".part")).to_have_count(2)
    await expect(page.locator(".redact .told")).to_contain_text("0:05\u20130:10")
    first, second = page.locator(".part").first, page.locator(".part").nth(1)
    await first.get_by_label("From").fill("0:15.5")
    await first.get_by_label("To").fill("0:20")
    await first.get_by_label("Side").select_option("1")
    await expect(page.locator(".cut[data-lane='1']")).to_have_count(1)

    await page.get_by_role("button", name="Hear it before").click()
    await until(page, "audio.currentSrc.includes('silent=15500-20000@1,5000-10000')")
    await until(page, "audio.currentTime > 3.2")
    await page.get_by_role("button", name="Hear it as it is").click()
    await until(page, "!audio.currentSrc.includes('silent')")

    await second.get_by_role("button", name="Take this part out").click()
    await expect(page.locator(".part")).to_have_count(1)
    await page.get_by_label("Why is it made silent?").fill("a card number")
    await page.get_by_role("button", name="Make it silent for everybody").click()
    await expect(page.get_by_text("You hear a redacted copy.")).to_be_visible()
    await expect(page.locator(".silent")).to_contain_text("0:15.500\u20130:20")
    await expect(page.locator(".silent")).to_contain_text("a card number")
    assert await spans(service, identifier) == [{"start": 15500, "stop": 20000, "channel": 1}]
    await ready(page)
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.currentTime > 0.3")
    await expect(page.get_by_role("link", name="Hear the original")).to_have_count(0)

    # What stands cannot be taken out by whoever may not hear it.
    await page.get_by_text("Make parts of it silent").click()
    await page.locator(".part").first.get_by_label("To").fill("0:16")
    await page.get_by_label("Why is it made silent?").fill("less")
    await page.get_by_role("button", name="Make it silent for everybody").click()
    await expect(
        page.get_by_role("alert").filter(has_text="What is silent stays so")
    ).to_be_visible()


async def test_privacy_hears_the_original_when_asked_and_takes_it_back(
    service: Service, enter: Opener
) -> None:
    identifier = await upload(service, "a", tone(20))
    await redacted(service, identifier, [{"start": 5000, "stop": 9000}])
    page = await enter(f"/recordings/{identifier}", "privacy")
    await ready(page)
    await expect(page.locator(".cut")).to_have_count(1)
    await page.get_by_role("link", name="Hear the original").click()
    await expect(page.get_by_text("You hear the original.")).to_be_visible()
    await ready(page)
    await page.get_by_role("link", name="Link from here").click()
    await expect(page.locator(".said")).not_to_be_empty()
    assert page.url.endswith(f"/recordings/{identifier}?t=0:00&version=original")
    await page.reload()
    await ready(page)
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.currentTime > 0.3 && audio.currentSrc.includes('version=original')")
    await page.get_by_text("Make parts of it silent").click()
    await page.get_by_label("Why is the original to be heard again?").fill("it was a mistake")
    await page.get_by_role("button", name="Let everybody hear the original").click()
    await ready(page)
    await expect(page.locator(".silent")).to_have_count(0)
    assert (await service.get(one(identifier, "/redaction"))).status == 404


@pytest.mark.parametrize("start", ["99:00", "0:04"])
async def test_a_part_behind_the_end_is_told_as_that(
    service: Service, enter: Opener, start: str
) -> None:
    identifier = await upload(service, "a", tone(4))
    page = await enter(f"/recordings/{identifier}")
    await marking(page)
    await page.keyboard.press("i")
    await page.locator(".slider").press("End")
    await page.keyboard.press("o")
    part = page.locator(".part").first
    await expect(page.locator(".cut")).to_have_count(1)
    await part.get_by_label("From").fill(start)
    await part.get_by_label("To").fill("99:10")
    await expect(page.locator(".cut")).to_have_count(0)
    await page.get_by_role("button", name="Hear it before").click()
    await expect(
        page.get_by_role("alert").filter(has_text="Each part begins within the recording")
    ).to_be_visible()
    await expect(page.locator(".part").first.get_by_label("From")).to_have_value(start)


async def test_privacy_hears_before_what_everybody_will_hear(
    service: Service, enter: Opener
) -> None:
    """A part that is moved: what was silent and is marked no more sounds before it is kept."""
    identifier = await upload(service, "a", tone(4))
    await redacted(service, identifier, [{"start": 1000, "stop": 2000}])
    page = await enter(f"/recordings/{identifier}", "privacy")
    await ready(page)
    await page.get_by_text("Make parts of it silent").click()
    part = page.locator(".part").first
    await part.get_by_label("From").fill("0:01.5")
    await part.get_by_label("To").fill("0:02.5")
    await page.get_by_role("button", name="Hear it before").click()
    await until(page, "audio.currentSrc.includes('silent=1500-2500') && audio.currentTime > 0.1")
    source = await page.locator("audio").evaluate("audio => audio.currentSrc")
    assert "version=original" in source
    content = await (await service.get(source, "privacy")).read()
    assert loudest(content, 1.01, 1.49) > 0
    assert loudest(content, 1.51, 2.49) == 0


async def test_without_a_script_the_form_does_it(service: Service, enter: Opener) -> None:
    identifier = await upload(service, "a", tone(4))
    page = await enter(f"/recordings/{identifier}", java_script_enabled=False)
    await page.get_by_text("Make parts of it silent").click()
    row = page.locator(".part").first
    await row.get_by_label("From").fill("1.2")
    await row.get_by_label("To").fill("0:02,4")
    await page.get_by_role("button", name="Hear it before").click()
    source = await page.locator("audio.tried").get_attribute("src")
    assert source == f"/v1/recordings/{identifier}/audio?format=wav&silent=1200-2400"
    await page.get_by_label("Why is it made silent?").fill("a card number")
    await page.get_by_role("button", name="Make it silent for everybody").click()
    await expect(page.get_by_text("You hear a redacted copy.")).to_be_visible()
    assert await spans(service, identifier) == [{"start": 1200, "stop": 2400}]


@pytest.mark.parametrize(("idle", "pause"), [(15, 10), (4, 2)])  # minutes
async def test_who_marks_what_is_loaded_stays_signed_in_and_who_looks_away_does_not(
    service: Service, chromium: Browser, idle: int, pause: int
) -> None:
    identifier = await upload(service, "a", tone(20))
    async with connection(service.vault.pool) as lent:
        await accounts.add(lent, service.vault.ring, "anna", Level.SUPERVISOR, own_password=OWN)
    context = await chromium.new_context(base_url=service.retrieval, locale="en-GB")
    context.set_default_timeout(PATIENCE)
    page = await sign_in(context)
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE session SET idle = $1", timedelta(minutes=idle))
    await page.clock.install()
    await page.goto(f"/recordings/{identifier}")
    await marking(page)
    heads: list[str] = []
    page.on("request", lambda asked: asked.method == "HEAD" and heads.append(asked.url))
    away = timedelta(minutes=pause)

    await service.turn_clock(away)
    await page.clock.fast_forward(pause * 60_000)
    await asyncio.sleep(1)
    assert heads == [], "a page that is only open uses nothing"
    slider = page.get_by_role("slider", name="Place in the recording")
    await slider.press("i")
    await slider.press("ArrowRight")
    await slider.press("o")
    async with asyncio.timeout(PATIENCE / 1000):
        while not await touched(service, away):
            await asyncio.sleep(0.05)
    assert len(heads) == 1, "once in a minute at the most"

    await service.turn_clock(2 * away)
    await page.get_by_label("Why is it made silent?").fill("a card number")
    await page.get_by_role("button", name="Make it silent for everybody").click()
    await expect(page.get_by_text("You hear a redacted copy.")).to_be_visible()
    assert await spans(service, identifier) == [{"start": 0, "stop": 5000}]
    await context.close()


async def touched(service: Service, since: timedelta) -> bool:
    """Whether a session was used once the clock was turned."""
    async with connection(service.vault.pool) as lent:
        return bool(
            await lent.fetchval(
                "SELECT count(*) FROM session WHERE seen_at > clock_timestamp() + $1::interval / 2",
                since,
            )
        )


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_marking_has_no_barrier_that_axe_finds(
    service: Service, enter: Opener, seen: Seen, theme: str
) -> None:
    identifier = await upload(service, "a", tone(20, channels=2))
    await redacted(service, identifier, [{"start": 5000, "stop": 9000}])
    page = await enter(f"/recordings/{identifier}", "privacy", color_scheme=theme)
    await ready(page)
    await page.get_by_text("Make parts of it silent").click()
    await page.get_by_role("button", name="Mark on the picture").click()
    assert seen.refused == []
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run({resultTypes: ['violations']})")
    barriers = [
        (each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]
    ]
    assert barriers == [], json.dumps(barriers)
    seen.refused.clear()  # axe tries styles of its own
    await page.set_viewport_size({"width": 320, "height": 600})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
