"""The main pages look as they did: coarse pictures of them, kept in `pictures/`, are compared.

A picture has one gray for 16 x 16 dots. Letters are blocks, so that no machine's fonts count; the
clocks stand still; and what is made by chance is made alike. A browser that draws a little
differently passes; what moved, grew, came or went is noticed. After a page was changed on purpose

    PICTURES=keep .venv/bin/python -m pytest tests/pages/test_pictures.py

keeps what it looks like now; the pictures that differed are in `build/pictures/`.
"""

import io
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import asyncpg
import av
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from storage import clocks, schema
from tests.pages import blocks
from tests.pages.conftest import Opener
from tests.pages.test_auditing import choose
from tests.postgres import Postgres
from tests.services import Faulty, Service, open_service, open_vault, stop_clock, stopped_at
from tests.sounds import tone
from tests.stores.servers import Server
from tests.web.test_exports import asked
from tests.web.test_listen import upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEPT = Path(__file__).parent / "pictures"
DIFFERED = Path(__file__).parents[2] / "build/pictures"

NOW = datetime(2027, 3, 10, 10, tzinfo=UTC)
ONCE = NOW - timedelta(days=3)

CELL = 16
FAINT, FEW = 24, 5
"""Grays that two cells may differ by, and how many cells of a picture may differ by more."""

VIEWS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1104, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1104, "height": 800}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 352, "height": 800}},
}

PAGES = ("ledger", "expiry", "certificate", "search", "recording", "exports", "sign-in")
"""In this order: what a page leaves on the ledger is not on the ledger's own picture."""

ALIKE = """() => {
  // Keys, roots and ids are another chance each time, and lines break within them.
  for (const each of document.querySelectorAll("code, .entries .quiet"))
    each.textContent = each.textContent.replace(/\\S/g, "x");
}"""

OWN = (
    " input[type=date], input[type=file], select, audio, progress, meter { opacity: 0 !important; }"
)
"""What each browser draws in its own way keeps its place, and is not seen."""


@dataclass(frozen=True)
class Picture:
    """Grays, row by row."""

    width: int
    grays: bytes

    @property
    def height(self) -> int:
        return len(self.grays) // self.width

    @classmethod
    def read(cls, png: bytes, cell: int = 1) -> "Picture":
        """A PNG, with one gray for so many dots across and down."""
        with av.open(io.BytesIO(png), format="png_pipe") as source:
            frame = next(source.decode(video=0))
        width, height = frame.width // cell, frame.height // cell
        small = frame.reformat(width, height, "gray", interpolation="AREA")
        plane = small.planes[0]
        rows, step = bytes(plane), plane.line_size
        return cls(width, b"".join(rows[at * step : at * step + width] for at in range(height)))

    def png(self) -> bytes:
        """The same as a file."""
        frame = av.VideoFrame(self.width, self.height, "gray")
        plane = frame.planes[0]
        rows = [self.grays[at : at + self.width] for at in range(0, len(self.grays), self.width)]
        plane.update(b"".join(row.ljust(plane.line_size, b"\0") for row in rows))
        encoder: Any = av.CodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt = self.width, self.height, "gray"
        encoder.time_base = Fraction(1, 1)
        return b"".join(bytes(part) for part in [*encoder.encode(frame), *encoder.encode(None)])

    def differing(self, other: "Picture") -> int:
        """How many cells differ by more than what a browser may draw differently; the rows that
        only one of them has count whole, but for one.
        """
        common = min(len(self.grays), len(other.grays))
        pairs = zip(self.grays[:common], other.grays[:common], strict=True)
        rows = abs(self.height - other.height)
        return sum(abs(one - two) > FAINT for one, two in pairs) + max(0, rows - 1) * self.width


@pytest_asyncio.fixture(loop_scope="session")
async def service(
    postgres: Postgres, rclone_server: Server, tmp_path: Path, monkeypatch: Any
) -> AsyncIterator[Service]:
    """Doors whose clocks stand still, and a few calls."""
    moment = ONCE

    async def clock() -> datetime:
        return moment

    monkeypatch.setattr(clocks, "service_now", lambda: moment)
    url = await postgres.fresh_database(schema.migrate)
    lent = await asyncpg.connect(url)
    await lent.execute(stopped_at(ONCE))
    await lent.close()
    store = await rclone_server.connect()
    still: Any = Faulty(store, clock=clock)
    async with open_vault(url, still, tmp_path) as vault, open_service(vault) as opened:
        await _before(opened)
        moment = NOW
        await stop_clock(vault, NOW)
        await _now(opened)
        yield opened
    await store.close()


async def _before(service: Service) -> None:
    old = (ONCE + timedelta(hours=1)).replace(year=ONCE.year - 1)
    await upload(service, "old", started_at=old.isoformat())


async def _now(service: Service) -> None:
    await service.night()
    sound = tone(20, channels=2)
    for number, (kind, agent) in enumerate(
        [
            ("contract", "Anna"),
            ("fault_report", "Bo"),
            ("customer_service", "Cecilia"),
            ("other", ""),
        ]
    ):
        await upload(
            service, f"call-{number}", sound, call_type=kind, direction="inbound",
            started_at=(NOW - timedelta(hours=5 + 30 * number)).isoformat(),
            caller=f"+35840123456{number}", callee="+358 9 1234567",
            **({"agent": agent, "customer": f"C-{number}"} if agent else {}),
        )  # fmt: skip


async def opened(service: Service, enter: Opener, name: str, view: str) -> Page:
    """One of the pages, ready to be pictured."""
    rows = [each for each in await service.rows() if each["state"] == "stored"]
    newest = str(max(rows, key=lambda each: each["started_at"])["id"])
    gone = next(str(each["id"]) for each in await service.rows() if each["state"] == "erased")
    if name == "exports":
        await asked(service, [newest])
    path, level, door, awaited = {
        "search": ("/", "supervisor", "retrieval", "table.calls"),
        "recording": (f"/recordings/{newest}", "supervisor", "retrieval", ".talk"),
        "exports": ("/exports", "supervisor", "retrieval", ".export"),
        "expiry": ("/", "auditor", "operations", ".months"),
        "ledger": ("/ledger", "auditor", "operations", ".entries"),
        "certificate": ("/certificate", "auditor", "operations", "form.drop"),
        "sign-in": ("/sign-in", "supervisor", "retrieval", "form"),
    }[name]
    page = await enter(path, level, door, bypass_csp=True, **VIEWS[view])
    await expect(page.locator(awaited).first).to_be_visible()
    if name == "recording":
        await page.wait_for_function("document.querySelector('.slider > div')")
    if name == "certificate":
        file = await (await service.operate(f"/v1/certificates/{gone}")).read()
        await choose(page, file)
        await expect(page.locator("#verdict li.held").first).to_be_visible()
    await page.add_style_tag(content=blocks.style() + OWN)
    await page.evaluate(ALIKE)
    return page


async def picture(page: Page) -> Picture:
    """What a page looks like, coarsely."""
    await page.evaluate("document.fonts.load('16px Blocks').then(() => document.fonts.ready)")
    assert await page.evaluate("document.fonts.check('16px Blocks')")
    await page.evaluate("document.activeElement?.blur()")
    whole = await page.screenshot(full_page=True, animations="disabled", caret="hide")
    return Picture.read(whole, CELL)


@pytest.mark.timeout(900)  # several pages, on whatever machine
@pytest.mark.parametrize("view", VIEWS)
async def test_the_pages_look_as_they_did(service: Service, enter: Opener, view: str) -> None:
    changed = {}
    for name in PAGES:
        page = await opened(service, enter, name, view)
        found, path = await picture(page), KEPT / f"{name}-{view}.png"
        if os.environ.get("PICTURES") == "keep":
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(found.png())
        kept = Picture.read(path.read_bytes())
        assert kept.width == found.width == VIEWS[view]["viewport"]["width"] // CELL
        if (cells := kept.differing(found)) > FEW:
            changed[name] = cells
            DIFFERED.mkdir(parents=True, exist_ok=True)
            (DIFFERED / path.name).write_bytes(found.png())
        await page.context.close()
    assert changed == {}, f"cells that differ; what is there now is in {DIFFERED.name}/"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("search", ".chips { display: none !important; }"),
        ("search", ".box button { visibility: hidden !important; }"),
        ("recording", ".player { position: relative; left: 12px; }"),
        ("expiry", ".figures { grid-template-columns: 1fr !important; }"),
        ("ledger", ".filter { margin-block-start: 2.25rem !important; }"),
        ("certificate", ".steps .held b { color: transparent !important; }"),
        ("sign-in", "form button { visibility: hidden !important; }"),
    ],
)
async def test_what_moved_or_went_is_noticed(
    service: Service, enter: Opener, name: str, change: str
) -> None:
    page = await opened(service, enter, name, "light")
    before = await picture(page)
    assert before.differing(await picture(page)) == 0, "nothing changed"
    await page.add_style_tag(content=change)
    assert before.differing(await picture(page)) > FEW


async def test_a_picture_is_read_as_it_was_kept() -> None:
    grays = bytes(range(0, 250, 2))
    made = Picture(25, grays)
    assert Picture.read(made.png()) == made
    assert made.differing(Picture(25, grays[:100])) == 0
    assert made.differing(Picture(25, grays[:75])) == 25
    assert made.differing(Picture(25, bytes(125))) == sum(gray > FAINT for gray in grays)
