"""`archive watch` draining a directory, beside what the door takes from the load client."""

import asyncio
import os
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import audio
from bench.report import Figure
from bench.stack import ROOT, Service, Stack
from bench.uploads import alternate, archive_puts

SIZE = 200_000
"""Bytes of a file."""

AT_ONCE = 8
COUNT, ALL = 2000, 10_000
"""Files of a round; and of all rounds, at the least."""


async def drain(stack: Stack, service: Service) -> list[Figure]:
    """Files a second, from the start of the command until the last one is removed."""

    async def watched() -> float:
        folder = stack.folder / f"drop-{uuid.uuid4()}"
        _fill(folder, audio.call(stack.folder, SIZE), COUNT)
        with stack.client.meter.during("watch", COUNT):
            seconds = await _watch(stack, service, folder)
        if left := list(folder.iterdir()):
            raise RuntimeError(f"{len(left)} files were not taken")
        return COUNT / seconds

    async def sent() -> float:
        done = await archive_puts(stack, service, SIZE, COUNT, AT_ONCE, by_name=True)
        return COUNT / float(done["seconds"])

    await archive_puts(stack, service, SIZE, 100, AT_ONCE)
    ours, bare = await alternate(-(-ALL // COUNT), watched, sent)
    name = f"files of 200 kB drained by `archive watch`, {AT_ONCE} at once / the load client"
    return [Figure.ratio_of(name, "files/s", ours, bare, least=0.8)]


def _fill(folder: Path, call: Path, count: int) -> None:
    folder.mkdir()
    began = int((datetime.now(UTC) - timedelta(hours=1)).timestamp())
    body = call.read_bytes()
    mark = uuid.uuid4().int % 10**9
    for number in range(count):
        name = f"in-0800012345-0401{number:06}-20261124-093000-{began}.{mark}{number}.wav"
        (folder / name).write_bytes(body)


async def _watch(stack: Stack, service: Service, folder: Path) -> float:
    words = ["watch", str(folder), "--call-type", "customer_service", "--once", "--quiet", "0"]
    words += ["--parallel", str(AT_ONCE), "--delete-after", "--state", str(stack.folder / "state")]
    environment = {
        **os.environ,
        "ARCHIVE_URL": service.ingest,
        "ARCHIVE_TOKEN": service.tokens["uploader"],
    }
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", *words),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise RuntimeError("the watcher did not drain the directory")
    return time.perf_counter() - began
