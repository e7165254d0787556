"""The real service as a child process that a test may kill, over the test's database and store.

Run as a script it is `archive serve`, with the clocks of the machine and of the store set ahead by
`TEST_AHEAD` seconds: the database's is the test's to turn. `TEST_LANDING_REST` are the seconds
between two looks at a landing bucket.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

HERE = Path(__file__)

if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[2]))

from app import cli  # noqa: E402
from jobs import landing  # noqa: E402
from storage import clocks  # noqa: E402
from storage.objects import ObjectStore  # noqa: E402
from storage.roles import RIGHTS  # noqa: E402
from tests import years  # noqa: E402
from tests.roles import login  # noqa: E402
from tests.stores.servers import Server  # noqa: E402

PATIENCE = 60.0
"""Seconds that a service may take to start, or to reach the step at which it dies."""


def main() -> None:
    """Be the service."""
    ahead = timedelta(seconds=float(os.environ["TEST_AHEAD"]))
    real = ObjectStore.clock

    async def clock(store: ObjectStore) -> datetime:
        return await real(store) + ahead

    ObjectStore.clock = clock  # type: ignore[method-assign]
    clocks.service_now = lambda: datetime.fromtimestamp(time.time(), UTC) + ahead
    landing.REST = float(os.environ.get("TEST_LANDING_REST", landing.REST))
    sys.argv = ["archive", "--config", os.environ["TEST_CONFIG"], "serve"]
    cli.main()


class Process(Protocol):
    """What is asked of a service's process, whoever its parent is."""

    pid: int

    def poll(self) -> int | None:
        """How it ended; None while it lives."""

    def wait(self, timeout: float) -> int:
        """Wait for its end."""


@dataclass(slots=True)
class Child:
    """A service that was started: its process and where its doors are."""

    process: Process
    log: Path
    ingest: str = ""
    retrieval: str = ""

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    async def death(self) -> None:
        """Wait until it killed itself at its step."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert self.process.poll() == -signal.SIGKILL, self.said()

    def said(self) -> str:
        """All that it printed and logged."""
        return self.log.read_text()

    async def ready(self) -> "Child":
        """Wait until its doors are open."""
        until = time.monotonic() + PATIENCE
        while "ready\n" not in self.said():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the service did not start: {self.said()}")
            await asyncio.sleep(0.02)
        words = (line.split() for line in self.said().splitlines())
        lines = {line[0]: line[1] for line in words if len(line) == 2}
        self.ingest, self.retrieval = lines["ingest"], lines["retrieval"]
        return self


@dataclass(frozen=True, slots=True)
class House:
    """What all services of a test have in common: database, bucket, and the folder of the ring.

    `more` is put into their environment besides.
    """

    database_url: str
    server: Server
    bucket: str
    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)

    def start(self, name: str = "a", *, crash_at: str = "", ahead: float = 0) -> Child:
        """Start a service with a data_dir of its own; `crash_at` is the step at which it dies."""
        environment = self.environment(name, crash_at=crash_at, ahead=ahead)
        log = self.log(name)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, str(HERE)], env=environment, stdout=out, stderr=out
            )
        return Child(process, log)

    def log(self, name: str) -> Path:
        """A new file for what a service says."""
        return self.folder / f"{name}-{time.monotonic_ns()}.log"

    def environment(self, name: str, *, crash_at: str = "", ahead: float = 0) -> dict[str, str]:
        """What configures a service of this name."""
        root = HERE.parents[2]
        data = self.folder / name
        data.mkdir(exist_ok=True)
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("ARCHIVE_")},
            "TEST_AHEAD": str(ahead + years.CLOCK.ahead.total_seconds()),
            "TEST_CONFIG": str(root / "config.toml"),
            "ARCHIVE_SERVER_DATA_DIR": str(data),
            "ARCHIVE_DOORS_INGEST": "127.0.0.1:0",
            "ARCHIVE_DOORS_RETRIEVAL": "127.0.0.1:0",
            "ARCHIVE_DOORS_OPERATIONS": "127.0.0.1:0",
            "ARCHIVE_ACCESS_RECORDINGS_PER_HOUR": "10000",
            "ARCHIVE_DATABASE_URL": self.database_url,
            **{
                f"ARCHIVE_DATABASE_{role.upper()}_LOGIN": login(self.database_url, role)
                for role in RIGHTS
            },
            "ARCHIVE_OBJECTS_ENDPOINT": self.server.endpoint,
            "ARCHIVE_OBJECTS_BUCKET": self.bucket,
            "ARCHIVE_OBJECTS_ACCESS_KEY": self.server.access_key,
            "ARCHIVE_OBJECTS_SECRET_KEY": self.server.secret_key,
            "ARCHIVE_KEYS_STORE": f"file:{self.folder / 'ring'}",
            "ARCHIVE_KEYS_ROOT_FILE": str(self.folder / "root.key"),
            **({"ARCHIVE_CRASH_AT": crash_at} if crash_at else {}),
            **self.more,
        }


if __name__ == "__main__":
    main()
