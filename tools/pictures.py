"""Pictures of the pages for the documents: the service with its sample calls, seen by Chromium.

    .venv/bin/python tools/pictures.py [FOLDER]

starts a service of its own in a temporary directory, and writes into `docs/pictures/`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal
from urllib.request import Request, urlopen

import av
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
CHROMIUM = "/usr/bin/chromium"


@contextmanager
def service() -> Iterator[dict[str, str]]:
    """A service with the samples; gives what it printed: addresses of doors, keys by level."""
    with tempfile.TemporaryDirectory() as folder:
        ours = {"ARCHIVE_SERVER_DATA_DIR": folder, "PYTHONUNBUFFERED": "1"}
        ours |= {f"ARCHIVE_DOORS_{door}": "127.0.0.1:0" for door in ("INGEST", "RETRIEVAL")}
        ours["ARCHIVE_DOORS_OPERATIONS"] = "127.0.0.1:0"
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve", "--samples"],
            cwd=ROOT,
            env=os.environ | ours,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            told: dict[str, str] = {}
            for line in process.stdout or ():
                if match := re.fullmatch(r"\s*(\w+)\s+(http\S+|cra_\S+)\s*", line):
                    told[match[1]] = match[2]
                if "admin" in told:
                    break
            yield told
        finally:
            process.terminate()
            process.wait()


def opened(browser: Browser, token: str, theme: Literal["dark", "light"], lang: str) -> Page:
    """A page of a browser that belongs to whoever has this key."""
    context = browser.new_context(
        viewport={"width": 1180, "height": 860},
        color_scheme=theme,
        locale=lang,
        extra_http_headers={"Authorization": f"Bearer {token}"},
    )
    return context.new_page()


def shrink(path: Path) -> None:
    """Keep 256 colours: a third of the size, and no difference to see."""
    with av.open(str(path)) as source:
        frame = next(source.decode(video=0))
    graph = av.filter.Graph()
    start = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, 1)
    )
    split, palette = graph.add("split"), graph.add("palettegen", "max_colors=256")
    use, end = graph.add("paletteuse", "dither=none"), graph.add("buffersink")
    start.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(end)
    graph.configure()
    frame.pts = 0
    graph.push(frame)
    graph.push(None)
    made = graph.pull()
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = made.width, made.height, "pal8"
    encoder.time_base = Fraction(1, 1)
    packets = [*encoder.encode(made), *encoder.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


def main(folder: Path) -> None:
    """Take them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with service() as told, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        door, key = told["retrieval"], told["supervisor"]
        asked = Request(  # noqa: S310 - our own door
            f"{door}/v1/recordings?customer=C-1003", headers={"Authorization": f"Bearer {key}"}
        )
        with urlopen(asked) as answer:  # noqa: S310
            call = json.load(answer)["items"][0]["id"]
        page = opened(browser, key, "dark", "sv")
        page.goto(f"{door}/")
        page.screenshot(path=folder / "search-dark.png")
        page = opened(browser, key, "light", "en")
        page.goto(f"{door}/recordings/{call}?t=0:09")
        page.locator(".talk").wait_for()
        page.wait_for_function("document.querySelector('.slider > div')")
        page.screenshot(path=folder / "recording-light.png")
        page = opened(browser, told["auditor"], "light", "en")
        page.goto(f"{told['operations']}/")
        page.screenshot(path=folder / "expiry-light.png")
        page = opened(browser, told["auditor"], "dark", "sv")
        page.goto(f"{told['operations']}/ledger")
        page.screenshot(path=folder / "ledger-dark.png")
        browser.close()
    for path in folder.glob("*.png"):
        shrink(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/pictures")
