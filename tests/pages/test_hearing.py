"""A supervisor hears a call, in a browser: the player, its keys, and what it says if it cannot."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from playwright.async_api import Page, expect

from archive.errors import UnavailableError
from tests.pages.conftest import PATIENCE, Opener
from tests.roles import connection
from tests.services import Service
from tests.sounds import tone
from tests.storage import soundfiles
from tests.web.test_listen import ago, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = 600  # s; as stereo 19 MB, more than a browser holds ahead


async def ready(page: Page) -> None:
    await expect(page.locator(".talk")).to_be_visible()


async def time(page: Page) -> float:
    return float(await page.locator("audio").evaluate("audio => audio.currentTime"))


async def until(page: Page, condition: str) -> None:
    """Wait until something holds of the audio element. (Playwright's own way needs an `eval`, which
    the pages' policy forbids.)
    """
    async with asyncio.timeout(PATIENCE / 1000):
        while not await page.locator("audio").evaluate(f"audio => {condition}"):
            await asyncio.sleep(0.05)


async def spans(service: Service) -> list[str]:
    """The ranges that were heard, by the ledger."""
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT facts FROM told WHERE act = 'listened' AND facts->>'format' <> 'waveform'"
            " ORDER BY at"
        )
    return [row["facts"]["range"] for row in rows]


async def test_nothing_is_heard_before_somebody_plays(service: Service, enter: Opener) -> None:
    identifier = await upload(service, "a", tone(20, channels=2))
    page = await enter(f"/recordings/{identifier}?t=0:12")
    await ready(page)
    assert await spans(service) == []
    await expect(page.locator(".now")).to_have_text("0:12")
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.currentTime > 12.3 && audio.currentTime < 19")
    speaks = "output, [role=status], [role=alert], [role=log], [aria-live]:not([aria-live=off])"
    assert await page.locator(".now").evaluate(f"now => now.closest('{speaks}') === null"), (
        "a place that changes each second is not read out each second"
    )
    await expect(page.get_by_role("button", name="Pause")).to_be_visible()
    assert len(await spans(service)) >= 1
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_role("button", name="Play")).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("You", exact=True)).to_be_visible()


async def test_every_key_does_what_it_says(service: Service, enter: Opener) -> None:
    identifier = await upload(service, "a", tone(60, channels=2))
    page = await enter(f"/recordings/{identifier}")
    await ready(page)
    press = page.keyboard.press
    player = page.locator(".player")
    await press("Shift+ArrowRight")
    await press("ArrowRight")
    assert await time(page) == 20
    await press("ArrowLeft")
    assert await time(page) == 15
    await press("a")
    await press("ArrowRight")
    await press("b")
    await expect(page.locator(".span")).to_be_attached()
    await press("Shift+ArrowRight")
    await press(" ")
    await until(page, "!audio.paused && audio.currentTime >= 15 && audio.currentTime <= 20.5")
    await press("k")
    await until(page, "audio.paused")
    await press("c")
    await expect(page.locator(".span")).not_to_be_attached()
    for _ in range(9):
        await press(">")
    assert await page.locator("audio").evaluate("audio => audio.playbackRate") == 2.5
    assert await page.locator("audio").evaluate("audio => audio.preservesPitch")
    for _ in range(9):
        await press("<")
    assert await page.locator("audio").evaluate("audio => audio.playbackRate") == 0.75
    await press("s")
    await expect(page.get_by_role("button", name="Skip silence")).to_have_attribute(
        "aria-pressed", "true"
    )
    await press("1")
    await expect(player).to_have_attribute("data-heard", "0 1")
    await press("1")
    await press("2")
    await expect(player).to_have_attribute("data-heard", "1 0")
    await press("Shift+ArrowLeft")
    await press("l")
    await expect(page.locator(".said")).not_to_be_empty()
    assert page.url.endswith(f"?t=0:{round(await time(page) - 0.5):02}")


async def test_keys_can_be_switched_off_but_a_slider_stays_one(
    service: Service, enter: Opener
) -> None:
    identifier = await upload(service, "a", tone(60))
    page = await enter(f"/recordings/{identifier}")
    await page.get_by_text("Settings", exact=True).click()
    await page.get_by_label("Off").check()
    await page.get_by_role("button", name="Save").click()
    await ready(page)
    for key in ("k", "a", "ArrowRight", "s"):
        await page.keyboard.press(key)
    assert await time(page) == 0
    await expect(page.get_by_role("button", name="Skip silence")).to_have_attribute(
        "aria-pressed", "false"
    )
    slider = page.get_by_role("slider", name="Place in the recording")
    await slider.focus()
    await page.keyboard.press("PageUp")
    await page.keyboard.press("ArrowRight")
    assert await time(page) == 20
    await expect(slider).to_have_attribute("aria-valuetext", "0:20 of 1:00")
    await page.keyboard.press("End")
    assert await time(page) == 60


async def test_silence_is_skipped(service: Service, enter: Opener) -> None:
    pcm = soundfiles.tone(2) + bytes(8000 * 2 * 40) + soundfiles.tone(3)
    identifier = await upload(service, "a", soundfiles.wav(pcm))
    page = await enter(f"/recordings/{identifier}")
    await ready(page)
    await expect(page.locator(".share")).to_contain_text("89%")
    await page.get_by_role("button", name="Skip silence").click()
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.currentTime > 41.5")


async def test_a_page_that_is_hidden_keeps_to_the_loop_and_skips_silence(
    service: Service, enter: Opener
) -> None:
    """A browser draws nothing of a page that nobody sees, and calls for no frame of it."""
    pcm = soundfiles.tone(5) + bytes(8000 * 2 * 60) + soundfiles.tone(5)
    identifier = await upload(service, "a", soundfiles.wav(pcm))
    page = await enter(f"/recordings/{identifier}")
    await ready(page)
    await page.evaluate("window.requestAnimationFrame = () => 0")
    audio = page.locator("audio")
    for place, name in ((1, "a"), (2, "b")):
        await audio.evaluate(f"audio => audio.currentTime = {place}")
        await page.keyboard.press(name)
    await audio.evaluate(
        "audio => audio.addEventListener('timeupdate', () => {"
        " audio.dataset.most = Math.max(audio.dataset.most ?? 0, audio.currentTime);"
        " audio.dataset.turns = Number(audio.dataset.turns ?? 0) + (audio.currentTime < 1.3); })"
    )
    await page.get_by_role("button", name="Play").click()
    await until(page, "Number(audio.dataset.turns) >= 4 && Number(audio.dataset.most) > 1.7")
    await asyncio.sleep(2)
    assert float(await audio.evaluate("audio => audio.dataset.most")) < 3
    await page.keyboard.press("c")
    await page.keyboard.press("s")
    await until(page, "audio.currentTime > 65.5")


async def test_a_seek_loads_what_is_there_and_not_the_rest(service: Service, enter: Opener) -> None:
    identifier = await upload(service, "a", tone(LONG, channels=2))
    page = await enter(f"/recordings/{identifier}")
    await ready(page)
    box = await page.locator(".slider").bounding_box()
    assert box is not None
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.currentTime > 0.1")
    await page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + 30)
    await until(page, "audio.currentTime > 541 && audio.currentTime < 590 && !audio.seeking")
    starts = [int(span.removeprefix("bytes=").partition("-")[0]) for span in await spans(service)]
    size = LONG * 8000 * 4
    assert any(start > size * 0.8 for start in starts)
    assert not any(size * 0.4 < start < size * 0.8 for start in starts)


@pytest.mark.parametrize("kind", ["gsm", "headerless", "g729", "amr"])
async def test_what_no_browser_plays_is_heard_as_a_copy(
    service: Service, enter: Opener, kind: str
) -> None:
    started = {"call_type": "other", "started_at": ago(hours=1)}
    audio, media = {
        "gsm": lambda: ((soundfiles.MEDIA / "speech.gsm").read_bytes() * 9, "audio/GSM;rate=8000"),
        "headerless": lambda: (b"\x55\xd5\x2a\xaa" * 40_000, "audio/PCMA;rate=8000;channels=2"),
        "g729": lambda: (bytes(range(10)) * 2000, "audio/G729;rate=8000"),
        "amr": lambda: (b"#!AMR\n" + (b"\x3c" + bytes(31)) * 1000, "audio/AMR"),
    }[kind]()
    answer = await service.put("a", audio, started, content_type=media)
    assert answer.status == 201, await answer.text()
    page = await enter(f"/recordings/{(await answer.json())['id']}?t=0:01")
    await ready(page)
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.currentTime > 1.2")
    assert "format=wav" in await page.locator("audio").evaluate("audio => audio.currentSrc")


async def test_the_store_is_away_in_mid_listen(
    service: Service, enter: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = await listening(service, enter)

    def get(*place: Any) -> Any:
        raise UnavailableError("The object store does not answer.")

    with monkeypatch.context() as away:
        away.setattr(service.vault.objects, "get", get)
        await page.get_by_role("slider", name="Place in the recording").press("End")
        await page.keyboard.press("PageDown")
        await expect(page.locator(".note")).to_contain_text("cannot be reached just now")
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator(".note")).to_be_hidden()
    await until(page, "!audio.paused && audio.currentTime > 580")


async def test_a_session_that_ends_in_mid_listen(service: Service, enter: Opener) -> None:
    page = await listening(service, enter)
    await service.revoke("supervisor")
    await page.get_by_role("slider", name="Place in the recording").press("End")
    await page.keyboard.press("PageDown")
    await expect(page.locator(".note")).to_contain_text("Your session has ended")
    await page.get_by_role("link", name="Load the page again").click()
    await expect(page.get_by_role("heading")).to_have_text("You are not signed in")


async def test_a_session_that_ends_while_what_is_loaded_plays(
    service: Service, enter: Opener
) -> None:
    identifier = await upload(service, "a", tone(20))
    page = await enter()
    await page.clock.install()
    await page.goto(f"/recordings/{identifier}")
    await ready(page)
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.buffered.length && audio.buffered.end(0) > audio.duration - 0.1")
    before = await spans(service)
    await service.revoke("supervisor")
    await page.clock.fast_forward(5 * 60 * 1000)
    await expect(page.locator(".note")).to_contain_text("Your session has ended")
    assert await page.locator("audio").evaluate("audio => audio.error === null")
    assert await spans(service) == before, "to ask for the head is no listening"


async def test_an_expiry_in_mid_listen_that_the_archive_tells(
    service: Service, enter: Opener
) -> None:
    page = await listening(service, enter)
    await service.turn_clock(timedelta(days=367))
    await page.get_by_role("slider", name="Place in the recording").press("End")
    await page.keyboard.press("PageDown")
    await gone(page)
    await page.reload()
    await expect(page.get_by_role("heading")).to_have_text("This recording is erased")


async def test_an_expiry_in_mid_listen_that_the_page_knows(service: Service, enter: Opener) -> None:
    identifier = await upload(service, "a", tone(LONG, channels=2))
    page = await enter()
    await page.clock.install()
    await page.goto(f"/recordings/{identifier}")
    await expect(page.locator(".countdown")).to_have_text(re.compile(r"in 36\d days"))
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.currentTime > 0.1")
    await page.clock.fast_forward(366 * 24 * 3600 * 1000)
    await gone(page)


async def listening(service: Service, enter: Opener) -> Page:
    identifier = await upload(service, "a", tone(LONG, channels=2))
    page = await enter(f"/recordings/{identifier}")
    await ready(page)
    await page.get_by_role("button", name="Play").click()
    await until(page, "audio.currentTime > 0.1")
    return page


async def gone(page: Page) -> None:
    """Nothing is heard any more, not even what the browser held, and it is said why."""
    await expect(page.locator(".note")).to_contain_text("period of this recording is over")
    await expect(page.get_by_role("link", name="Certificate of the erasure")).to_be_visible()
    await until(
        page, "audio.paused && !audio.currentSrc.includes('#') && !audio.hasAttribute('src')"
    )
    await expect(page.get_by_role("button", name="Play")).to_be_disabled()
    await expect(page.get_by_text("Fault report")).to_have_count(1)
    await expect(page.get_by_text("Call id")).to_have_count(0)
