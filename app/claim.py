"""Who may use a `data_dir`: one process at a time, held by a lock that ends with the process.

The locked file says who holds it and, once a service is ready, where its servers are, so that
commands join them instead of being turned away. A command that started the servers for itself is
not joined, since it stops them when it is done: the next one waits for its end.
"""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 30.0
"""Seconds to wait for a command to end, or for a service to become ready."""


class AlreadyRunningError(Exception):
    """Another process uses this data_dir. The message names it."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where the servers of the running service are; None for what is not embedded."""

    postgres: str | None
    endpoint: str | None
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)


class Claim:
    """The lock on a data_dir, until `release` or the end of the process.

    No other process gets the open file: it is closed on exec.
    """

    def __init__(self, opened: int, role: str) -> None:
        self._opened = opened
        self._role = role
        self._write(None)

    def publish(self, found: Found) -> None:
        """Let commands join the servers."""
        self._write(asdict(found))

    def release(self) -> None:
        """Let others have the data_dir."""
        os.ftruncate(self._opened, 0)
        os.close(self._opened)

    def _write(self, ready: Mapping[str, Any] | None) -> None:
        text = json.dumps({"pid": os.getpid(), "role": self._role, "ready": ready}).encode()
        os.ftruncate(self._opened, 0)
        os.pwrite(self._opened, text, 0)


async def take(file: Path, *, join: bool) -> Claim | Found:
    """Take the lock; with `join`, be a command that takes the running service's servers instead.

    Raises AlreadyRunningError if a service holds it that is not to be joined, or anybody for longer
    than PATIENCE.
    """
    until = time.monotonic() + PATIENCE
    while True:
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Claim(opened, "command" if join else "service")
        except BlockingIOError:
            holder = _read(opened)
            os.close(opened)
        except BaseException:
            os.close(opened)
            raise
        service = holder.get("role") == "service"
        if join and service and holder["ready"] and _is_alive(holder["pid"]):
            return Found(**holder["ready"])
        if (service and not join) or time.monotonic() > until:
            raise AlreadyRunningError(_refusal(file, holder))
        await asyncio.sleep(0.1)


def _read(opened: int) -> dict[str, Any]:
    with suppress(ValueError):  # just being written
        holder = json.loads(os.pread(opened, 65536, 0))
        if isinstance(holder, dict) and holder.keys() >= {"pid", "role", "ready"}:
            return holder
    return {}


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _refusal(file: Path, holder: Mapping[str, Any]) -> str:
    who = f"process {holder['pid']}" if holder else "another process"
    return (
        f"{file.parent} is in use by {who}: stop it first. Another archive needs another"
        " [server] data_dir"
    )
