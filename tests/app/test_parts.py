"""The parts of the service as processes of their own: on servers that are joined, and on others."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from storage.objects import ObjectStore
from storage.vault import Vault
from tests.app.child_service import Child, House
from tests.roles import login
from tests.services import open_service
from tests.sounds import tone
from tests.stores.servers import Server
from tests.web.test_upload import query

PARTS = ("jobs", "ingest", "retrieval", "operations")
NEEDED = {
    "jobs": ("jobs", "sequencer"),
    "ingest": ("ingest",),
    "retrieval": ("retrieval", "sequencer", "sign_in"),
    "operations": ("operations", "sequencer", "sign_in"),
}
"""The logins that each part has to know: never the owner's."""


@dataclass(slots=True)
class Parts:
    """Processes that were started, each with its own log."""

    folder: Path
    started: list[Child] = field(default_factory=list)

    def start(self, environment: dict[str, str], *words: str) -> Child:
        log = self.folder / f"{len(self.started)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", *words],
                env=environment,
                stdout=out,
                stderr=out,
            )
        self.started.append(Child(process, log))
        return self.started[-1]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path)
    yield parts
    for child in parts.started:
        child.kill()
        assert "Traceback" not in child.said()


def address(child: Child, door: str) -> str:
    words = (line.split() for line in child.said().splitlines())
    return next(line[1] for line in words if len(line) == 2 and line[0] == door)


async def ready(child: Child) -> Child:
    until = asyncio.get_running_loop().time() + 60
    while "ready\n" not in child.said():
        assert child.process.poll() is None, child.said()
        assert asyncio.get_running_loop().time() < until, child.said()
        await asyncio.sleep(0.05)
    return child


async def ended(child: Child) -> int:
    os.kill(child.process.pid, signal.SIGTERM)
    return await asyncio.to_thread(child.process.wait, 60)


async def test_each_part_works_alone_and_without_the_owners_login(
    database_url: str,
    rclone_server: Server,
    rclone_store: ObjectStore,
    vault: Vault,
    tmp_path: Path,
    parts: Parts,
) -> None:
    """A call goes in at one process, is heard at another, told of at a third."""
    bucket = rclone_store._bucket._path.removeprefix("/")
    house = House(database_url, rclone_server, bucket, tmp_path)
    doors: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(open_service(vault))
        migrated = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "app", "migrate"],
            env=house.environment("owner"),
            capture_output=True,
            text=True,
        )
        assert migrated.stdout == "up to date; every role has its rights\n", migrated.stderr
        for part in PARTS:
            environment = {
                name: value
                for name, value in house.environment(part).items()
                if not name.startswith("ARCHIVE_DATABASE_")
            }
            environment["ARCHIVE_DATABASE_URL"] = ""
            environment["ARCHIVE_DOORS_RETRIEVAL_URL"] = "http://calls.example.fi"
            for role in NEEDED[part]:
                environment[f"ARCHIVE_DATABASE_{role.upper()}_LOGIN"] = login(database_url, role)
            child = await ready(parts.start(environment, "--only", part))
            told = [line.split()[0] for line in child.said().splitlines() if "http://" in line]
            assert told == ([] if part == "jobs" else [part])
            assert "owner" not in child.said()
            if part != "jobs":
                doors[part] = address(child, part)
        session = await stack.enter_async_context(aiohttp.ClientSession())

        def bearer(level: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {service.tokens[level]}"}

        sent, call = tone(2), query()
        for status in (201, 200):
            answer = await session.put(
                f"{doors['ingest']}/v1/recordings/c",
                params=call,
                data=sent,
                headers=bearer("uploader"),
            )
            assert answer.status == status, await answer.text()
        assert answer.headers["Location"].startswith("http://calls.example.fi/v1/recordings/")
        identifier = (await answer.json())["id"]
        heard = await session.get(
            f"{doors['retrieval']}/v1/recordings/{identifier}/audio", headers=bearer("supervisor")
        )
        assert await heard.read() == sent
        page = await session.get(
            f"{doors['operations']}/v1/ledger", params={"limit": 1000}, headers=bearer("auditor")
        )
        acts = [item["act"] for item in (await page.json())["items"]]
        assert {"stored", "listened"} <= set(acts)
        assert (await session.get(f"{doors['operations']}/readyz")).status in (200, 503)
    for child in parts.started:
        assert await ended(child) == 0


async def test_embedded_servers_are_the_jobs_and_the_doors_join_them(
    tmp_path: Path, parts: Parts
) -> None:
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("ARCHIVE_")},
        "ARCHIVE_SERVER_DATA_DIR": str(tmp_path / "data"),
        **{
            f"ARCHIVE_DOORS_{door}": "127.0.0.1:0" for door in ("INGEST", "RETRIEVAL", "OPERATIONS")
        },
    }
    early = parts.start(environment, "--only", "ingest")
    assert await asyncio.to_thread(early.process.wait, 60) == 1
    assert "start that first" in early.said()
    jobs = await ready(parts.start(environment, "--only", "jobs"))
    both = await ready(parts.start(environment, "--only", "ingest", "--only", "operations"))
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"{address(both, 'operations')}/readyz")
        assert (await answer.json())["checks"]["database"] == "ok"
    assert await ended(both) == 0
    assert await ended(jobs) == 0
