"""Telephone systems that deliver: each has one call after the other, and hands it over in its own
way, with its own program where there is one, whatever the archive does meanwhile.

They are as patient as they come. What each makes of an archive that is away stands in
docs/telephony/, and one of them gives up: its calls have to show in the gap report. Those that send
by HTTP: `torture.senders`.
"""

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import aiohttp
from aiohttp import web

from tests.landing.conftest import Site
from tests.web.vendors import Vendor
from torture.load import audio
from torture.nursery import ROOT

SHORT = 200
"""Frames of a call."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds: between two calls of a system; and before what failed is sent again, at first and at
    the most.
    """

    calls: float
    first: float
    most: float

    @classmethod
    def of(cls, away: float) -> "Pauses":
        """An hour of absence means 400 calls of a system, sent again after 5 s to a minute."""
        return cls(max(1.0, away / 400), max(0.2, away / 720), max(2.0, away / 60))

    def again(self, tries: int) -> float:
        """How long to wait after so many tries."""
        return min(self.first * 2 ** min(tries, 20), self.most)


@dataclass(frozen=True, slots=True)
class Yard:
    """What all systems have: the ingest door, a key for each source, a host that has recordings
    and what lies there, a landing bucket, a folder, and when their first call began. What goes on
    in the background is `work`; what fails there ends everything.
    """

    ingest: str
    tokens: Mapping[str, str]
    host: Vendor
    lying: dict[str, bytes]
    site: Site
    folder: Path
    began: datetime
    pauses: Pauses
    session: aiohttp.ClientSession
    work: asyncio.TaskGroup
    over: threading.Event = field(default_factory=threading.Event)

    def start(self, number: int) -> datetime:
        """When a call began."""
        return self.began + timedelta(seconds=number)

    def unique(self, number: int) -> str:
        """The call's id, as Asterisk makes it: when it began, and a number."""
        return f"{int(self.start(number).timestamp())}.{number}"

    def place(self, name: str) -> Path:
        """A folder for one system."""
        place = self.folder / name
        place.mkdir()
        return place

    def serve(self, request: web.Request) -> web.Response:
        """What the host does: it has a recording until that is deleted there."""
        name = request.path.removesuffix(".wav")
        if name not in self.lying:
            return web.Response(status=404)
        if request.method == "DELETE":
            del self.lying[name]
            return web.Response(status=204)
        return web.Response(body=self.lying[name], content_type="audio/x-wav")

    async def command(self, source: str, *words: str) -> asyncio.subprocess.Process:
        """Start `archive` as the client of a source."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ARCHIVE_")},
            "ARCHIVE_URL": self.ingest,
            "ARCHIVE_TOKEN": self.tokens[source],
        }
        with (self.folder / f"{source}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app", *words),
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )


@dataclass(slots=True)
class System:
    """One system. `offer` hands a call over, or begins to, and returns the call's id there.

    `every`: how many pauses lie between two calls; `left`: what is still lying with it.
    """

    source: str
    offer: Callable[[int], Awaitable[str]]
    left: Callable[[], list[str]]
    frames: int = SHORT
    every: float = 1
    offered: dict[str, int] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    sending: set[asyncio.Task[None]] = field(default_factory=set)

    def later(self, yard: Yard, work: Coroutine[None, None, None]) -> None:
        """Let the sending go on in the background."""
        task = yard.work.create_task(work)
        self.sending.add(task)
        task.add_done_callback(self.sending.discard)

    def audio(self, number: int) -> bytes:
        """What was said."""
        return audio(number, self.frames)


def files(folder: Path) -> list[str]:
    """What lies in a folder, by names that begin with its own."""
    return [str(file.relative_to(folder.parent)) for file in folder.rglob("*") if file.is_file()]


@asynccontextmanager
async def freepbx(yard: Yard) -> AsyncIterator[System]:
    """Files with a sidecar appear in a directory, and `archive watch` hands them over."""
    drop = yard.place("freepbx")

    async def offer(number: int) -> str:
        day = drop / f"{number % 3}"
        day.mkdir(exist_ok=True)
        name = f"in-0800012345-0401{number:06}-20261124-093000-{yard.unique(number)}"
        body = system.audio(number)
        with (day / f"{name}.wav").open("wb", buffering=0) as file:
            file.write(body[:100])
            await asyncio.sleep(0.05)
            file.write(body[100:])
        (day / f"{name}.json").write_text(json.dumps({"agent": f"agent {number % 7}"}))
        return yard.unique(number)

    system = System("freepbx", offer, lambda: files(drop))
    words = ("--sidecar", "{stem}.json", "--map", "agent=agent", "--call-type", "other")
    words += ("--quiet", "1", "--delete-after", "--state", str(yard.folder / "watched"))
    watcher = await yard.command("freepbx", "watch", str(drop), *words)
    try:
        yield system
        watcher.terminate()
        if await watcher.wait():
            raise RuntimeError("the watcher did not end well")
    finally:
        if watcher.returncode is None:
            watcher.kill()
            await watcher.wait()


@asynccontextmanager
async def genesys(yard: Yard) -> AsyncIterator[System]:
    """Recordings, each with its metadata, are written to a bucket, by minio's client and rclone."""
    folder = yard.place("genesys")

    async def offer(number: int) -> str:
        recording, moment = str(UUID(int=number)), yard.start(number)
        written = moment.strftime("%Y-%m-%dT%H:%M:%S.000+0000")
        said = {"recordingId": recording, "startTime": written, "initialDirection": "INBOUND"}
        side = json.dumps(said).encode()
        key = f"o/year=2026/month=11/day=24/hour=7/conversation_id={number}/{recording}.wav"
        for name, content in ((key, system.audio(number)), (f"{key}_metadata.json", side)):
            if number % 2:
                await yard.site.put(name, content)
            else:
                file = folder / "written"
                file.write_bytes(content)
                await yard.site.rclone(file, name)
                file.unlink()
        return recording

    system = System("genesys", offer, lambda: files(folder), every=1.5)
    yield system


@asynccontextmanager
async def asterisk(yard: Yard) -> AsyncIterator[System]:
    """`archive upload` after each call, which spools while the archive is away."""
    folder, spool = yard.place("asterisk"), yard.place("spool")
    always = ("--spool", str(spool), "--retry-for", "0")

    async def offer(number: int) -> str:
        unique = yard.unique(number)
        file = folder / f"{unique}.wav"
        file.write_bytes(system.audio(number))
        words = ("--call-type", "other", "--started-at", f"@{unique}", "--call-id", unique)
        process = await yard.command("asterisk", "upload", str(file), *words, *always)
        if await process.wait():
            raise RuntimeError("`archive upload` neither delivered nor spooled")
        file.unlink()
        return unique

    def left() -> list[str]:
        return [name for name in (*files(folder), *files(spool)) if name != "spool/lock"]

    system = System("asterisk", offer, left, every=3)
    yield system


async def flush(yard: Yard) -> None:
    """What a timer does on Asterisk's machine."""
    words = ("upload", "--flush", "--spool", str(yard.folder / "spool"), "--retry-for", "60")
    process = await yard.command("asterisk", *words)
    await process.wait()
