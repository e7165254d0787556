"""`archive import` of a CSV whose rows are all taken in: its memory, beside that of a tenth of it.

Each row is a call of its own with a recording of a twentieth of a second, sent and stored like any
other; the rows name one file, and their calls started on the days of an old archive: rclone becomes
slow where tens of thousands expire on one day. What is told is the peak of the command's own
process.
"""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import audio
from bench.report import Figure
from bench.stack import ROOT, Service, Stack, peak

ROWS = 10_000
SIZE = 844
"""Bytes of a recording."""

AT_ONCE = 8
DAYS = 300


async def imports(stack: Stack, service: Service) -> list[Figure]:
    """MB at the peak, and rows a second."""
    few = max(1, ROWS // 10)
    (small, _), (large, seconds) = [
        await asyncio.to_thread(_import, stack.folder, service, count) for count in (few, ROWS)
    ]
    print(f"  {ROWS:,} rows in {seconds:.0f} s, {ROWS / seconds:.1f} a second", flush=True)
    name = f"peak memory of importing {ROWS:,} / {few:,} rows"
    return [Figure.ratio_of(name, "MB", [large], [small], most=1.2)]


def _import(folder: Path, service: Service, count: int) -> tuple[float, float]:
    """The command's peak in MB, and its seconds. Raises RuntimeError unless all was taken in."""
    call = audio.call(folder, SIZE)
    table = folder / f"calls-{uuid.uuid4()}.csv"
    now = datetime.now(UTC)
    with table.open("w") as out:
        out.write("file,call_id,started_at,call_type,agent\n")
        for number in range(count):
            started = (now - timedelta(days=number % DAYS, hours=1)).isoformat()
            row = (call.name, uuid.uuid4(), started, "customer_service", f"agent-{number % 500}")
            out.write(",".join(map(str, row)) + "\n")
    words = ["import", str(table), "--parallel", str(AT_ONCE)]
    words += ["--state", str(folder / f"state-{table.stem}")]
    environment = {
        **os.environ,
        "ARCHIVE_URL": service.ingest,
        "ARCHIVE_TOKEN": service.tokens["uploader"],
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    most = 0.0
    # What the system tells at the end has in it what this process had when it made that one.
    while process.poll() is None:
        with suppress(RuntimeError):  # it has just ended
            most = peak(process.pid)
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError("not every row was taken in")
    table.unlink()
    return most, seconds
