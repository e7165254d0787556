"""A real browser before the real doors: Debian's Chromium, driven by Playwright.

It is started once, and belongs to one event loop; so do the doors of these tests.
"""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from storage import schema
from storage.vault import Vault
from tests.postgres import Postgres
from tests.services import Service, open_service, open_vault
from tests.stores.servers import Server

PATIENCE = 30_000  # ms; what is waited for comes at once where nobody else uses the machine
expect.set_options(timeout=PATIENCE)

Opener = Callable[..., Awaitable[Page]]


@dataclass
class Seen:
    """What must never be seen, of every page of a test."""

    elsewhere: list[str]
    refused: list[str]
    broken: list[str]


@pytest_asyncio.fixture(loop_scope="session")
async def vault(postgres: Postgres, rclone_server: Server, tmp_path: Path) -> AsyncIterator[Vault]:
    """A vault of this test alone, on the loop that the browser is on."""
    url = await postgres.fresh_database(schema.migrate)
    store = await rclone_server.connect()
    async with open_vault(url, store, tmp_path) as opened:
        yield opened
    await store.close()


@pytest_asyncio.fixture(loop_scope="session")
async def service(vault: Vault) -> AsyncIterator[Service]:
    """The doors over it."""
    async with open_service(vault) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The browser. Autoplay is allowed: a test has no hand that could touch."""
    path = shutil.which("chromium")
    if path is None:
        say = "needs Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(say)
        pytest.skip(say)
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        await browser.close()


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Fails the test when a page went elsewhere, hit its own policy, or threw."""
    kept = Seen([], [], [])
    yield kept
    assert kept == Seen([], [], [])


@pytest_asyncio.fixture(loop_scope="session")
async def enter(chromium: Browser, service: Service, seen: Seen) -> AsyncIterator[Opener]:
    """Opens a page of a door as whoever has the key of a level."""

    async def enter(
        path: str = "/",
        level: str = "supervisor",
        door: str = "retrieval",
        at: Service | None = None,
        **more: Any,
    ) -> Page:
        where = at or service
        base = getattr(where, door)
        options = {"locale": "en-GB", "viewport": {"width": 1100, "height": 800}, **more}
        token = where.tokens.get(level, level)
        context = await chromium.new_context(
            base_url=base, extra_http_headers={"Authorization": f"Bearer {token}"}, **options
        )
        context.set_default_timeout(PATIENCE)
        page = await context.new_page()
        page.on("pageerror", lambda error: seen.broken.append(str(error)))
        page.on("console", lambda said: _note(seen, said.text))
        page.on(
            "request",
            lambda asked: asked.url.startswith(base) or seen.elsewhere.append(asked.url),
        )
        await page.goto(path)
        return page

    yield enter
    for context in chromium.contexts:
        await context.close()


def _note(seen: Seen, text: str) -> None:
    if "Content Security Policy" in text:
        seen.refused.append(text)
