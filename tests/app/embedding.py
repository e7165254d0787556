"""A service that is nothing but its embedded servers, in a process of its own that a test may kill.

Run as a script with a data_dir it starts them, prints where they are as one line of JSON, and stops
them on SIGTERM.
"""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from app.child import leftovers, mark_of
from app.embedded import Embedded

STARTED: "list[subprocess.Popen[str]]" = []
"""Every service that this process has launched, for a test that fails to leave none behind."""


async def serve(data_dir: Path) -> None:
    """Be the service."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Embedded(data_dir, want_postgres=True, want_s3=True) as servers:
        assert servers.postgres and servers.store
        facts = {
            "database_url": servers.database_url,
            "endpoint": servers.endpoint,
            "access_key": servers.access_key,
            "secret_key": servers.secret_key,
            "postgres": servers.postgres.pid,
            "store": servers.store.pid,
        }
        print(json.dumps(facts), flush=True)
        await stop.wait()


@dataclass(slots=True)
class Running:
    """The process of such a service, and what it printed."""

    data_dir: Path
    process: "subprocess.Popen[str]"
    facts: dict[str, Any]
    seconds: float

    def kill(self, *names: str) -> None:
        """kill -9 of "service", "postgres" (the postmaster), "store" or "backend"."""
        pids = {
            "service": [self.process.pid],
            "postgres": [self.facts["postgres"]],
            "store": [self.facts["store"]],
            "backend": backends(self.data_dir),
        }
        for name in names:
            assert pids[name], name
            for pid in pids[name]:
                with suppress(ProcessLookupError):  # a backend whose client has just left
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> int:
        """End it as a system does; returns its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def start(data_dir: Path, *before: str, python: str = sys.executable, loop: str = "") -> Running:
    """Start a service and wait until it is ready; `before` is a command that runs it."""
    began = time.monotonic()
    process = launch(data_dir, *before, python=python, loop=loop)
    assert process.stdout
    with process.stdout:
        line = process.stdout.readline()
    if not line:
        process.wait()
        raise RuntimeError(said(data_dir))
    return Running(data_dir, process, json.loads(line), time.monotonic() - began)


def launch(
    data_dir: Path, *before: str, python: str = sys.executable, loop: str = ""
) -> "subprocess.Popen[str]":
    """Start a service and do not wait."""
    environment = {**os.environ, "ARCHIVE_TEST_SECRET": "hidden", "LOOP": loop}
    if python != sys.executable:  # another Python, which has this one's packages and programs
        environment["PYTHONPATH"] = str(Path(asyncpg.__file__).parents[1])
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with data_dir.with_name("said").open("a") as said:
        process = subprocess.Popen(
            [*before, python, __file__, str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
            cwd="/",
        )
    STARTED.append(process)
    return process


def said(data_dir: Path) -> str:
    """What the services on this folder logged."""
    return data_dir.with_name("said").read_text()


def backends(data_dir: Path) -> list[int]:
    """PostgreSQL's processes that serve a client."""
    mark = mark_of(data_dir / "postgres")
    found = []
    for pid in leftovers(mark):
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_text()
            if re.search(rf"{mark}: archive archive \[local\]", line):
                found.append(pid)
    return found


def alive(data_dir: Path) -> list[int]:
    """Every process of the embedded servers of this folder."""
    folders = [each for each in (data_dir / "postgres", data_dir / "objects") if each.exists()]
    return [pid for folder in folders for pid in leftovers(mark_of(folder))]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    if os.environ["LOOP"] == "uvloop":
        import uvloop

        uvloop.run(serve(Path(sys.argv[1])))
    else:
        asyncio.run(serve(Path(sys.argv[1])))
