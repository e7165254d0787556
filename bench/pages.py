"""What a person waits for, in Chromium: results, sound, a seek; and pages beside the API's answers.

Times are taken within the page, from the key or the click to what is seen or heard. A search starts
with Enter: while somebody types it starts 180 ms after the last key. The sound goes nowhere, as in
any browser without a loudspeaker. Chromium shares the machine with what it asks.
"""

import json
import random
import shutil
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import Any

from playwright.async_api import Page, async_playwright

from bench import fill, search, uploads
from bench.report import Figure
from bench.stack import Service, Stack

SEARCHES, PLAYS, SEEKS = 300, 60, 60
ROUNDS, EACH = 5, 100

_SEARCH = """async (form, text) => {
  const found = document.querySelector("#found");
  form.querySelector("#text").value = text;
  const began = performance.now();
  const came = new Promise((done) => new MutationObserver(done).observe(found, {childList: true}));
  form.requestSubmit();
  await came;
  await new Promise(requestAnimationFrame);
  await new Promise((done) => setTimeout(done));
  if (document.querySelector(".told").textContent) throw new Error("the search failed");
  return performance.now() - began;
}"""

_PLAY = """async (player) => {
  const audio = player.querySelector("audio");
  const began = performance.now();
  player.querySelector("button.play").click();
  while (audio.paused || audio.currentTime === 0) await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""

_SEEK = """async (player, part) => {
  const audio = player.querySelector("audio");
  const to = audio.duration * part;
  const began = performance.now();
  audio.currentTime = to;
  while (audio.seeking || audio.currentTime <= to) await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


async def measure(stack: Stack) -> list[Figure]:
    """The 95th percentiles, in milliseconds, and pages a second."""
    name, database = await fill.year(stack, search.LARGE)
    async with stack.service(name, database) as service:
        ours = await _upload(stack, service, uploads.SMALL, PLAYS)
        large = await _upload(stack, service, uploads.LARGE, 1)
        return [
            *await _in_browser(service, ours, large[0]),
            *await _pages(stack, service, ours),
        ]


async def _upload(stack: Stack, service: Service, size: int, count: int) -> list[str]:
    done = await uploads.archive_puts(stack, service, size, count, 2, keep=True)
    return [json.loads(answer)["id"] for answer in done["answers"]]


async def _in_browser(service: Service, ours: Sequence[str], large: str) -> list[Figure]:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        page = await browser.new_page(
            base_url=service.retrieval, extra_http_headers=service.login("privacy")
        )
        searches = await _searches(page)
        plays = [await _play(page, each) for each in ours]
        await _play(page, large)
        player = page.locator(".player")
        seeks = [await player.evaluate(_SEEK, random.uniform(0, 0.99)) for _ in range(SEEKS)]
        await browser.close()
    return [
        _p95("results shown in the browser, 1,000,000 recordings", searches, 150),
        _p95("from the click to the sound of a 1 MB call", plays, 200),
        _p95("from a seek to the sound, 100 MB call", seeks, 200),
    ]


async def _searches(page: Page) -> list[float]:
    """What people type: a number, its last digits, an agent, a customer, a contract, a day."""
    dice, today = random.Random(), datetime.now(UTC).date()
    asked: list[Callable[[int], str]] = [
        fill.number_of,
        lambda customer: fill.number_of(customer)[-dice.randint(4, 7) :],
        lambda customer: f"agent-{customer % fill.AGENTS}",
        lambda customer: f"customer-{customer}",
        lambda customer: f"contract-{customer}",
        lambda customer: (today - timedelta(days=1 + customer % 350)).isoformat(),
    ]
    await page.goto("/")
    form = page.locator("form.search")
    found = []
    for number in range(SEARCHES + len(asked)):
        text = asked[number % len(asked)](dice.randrange(search.LARGE // fill.CALLS_A_CUSTOMER))
        found.append(float(await form.evaluate(_SEARCH, text)))
    return found[len(asked) :]


async def _play(page: Page, identifier: str) -> float:
    await page.goto(f"/recordings/{identifier}")
    await page.locator(".talk").wait_for()
    return float(await page.locator(".player").evaluate(_PLAY))


def _p95(figure: str, values: Sequence[float], most: float) -> Figure:
    value = quantiles(values, n=20, method="inclusive")[18]
    return Figure(f"{figure}, p95", round(value, 1), "ms", None, None, f"<= {most:g} ms",
                  value <= most)  # fmt: skip


async def _pages(stack: Stack, service: Service, ours: Sequence[str]) -> list[Figure]:
    """The list and a recording, as pages and as the API has them, 8 at once."""
    figures = []
    for what, page, answer in (
        ("the list", ["/"], ["/v1/recordings"]),
        (
            "a recording",
            [f"/recordings/{each}" for each in ours],
            [f"/v1/recordings/{each}" for each in ours],
        ),
    ):
        pages, answers = await uploads.alternate(
            ROUNDS, _asking(stack, service, page), _asking(stack, service, answer)
        )
        figures.append(
            Figure.beside_limit(f"{what} as a page / by the API, 8 at once", "/s", pages, answers)
        )
    return figures


def _asking(stack: Stack, service: Service, paths: Sequence[str]) -> Callable[[], Awaitable[float]]:
    async def ask() -> float:
        urls = [f"{service.retrieval}{paths[number % len(paths)]}" for number in range(EACH)]
        done: dict[str, Any] = await stack.client.run(
            "GET", urls, side=paths[0], headers=service.login("privacy"), at_once=8
        )
        return EACH / float(done["seconds"])

    return ask
