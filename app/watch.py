"""`archive watch DIR`: what appears in a directory is handed over, for as long as it runs.

The directory is the spool: while the archive is away the files wait where they lie, and nothing is
copied. The archive knows every call it holds, so that two watchers, a crash at any moment or a lost
memory cost a second transfer and nothing else. A file is removed only with `--delete-after`, after
the archive's receipt has named the digest of exactly the bytes that were read here, and only if it
is still what was sent. What the archive will never take stays, and is named by `--list`.
"""

import asyncio
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from app import delivery
from app.backlog import Backlog, Ready, Sorter
from app.delivery import FileError, Stored
from app.folder import ChangedError, Folder, is_being_written
from app.journal import REFUSED, SENT, UNCLEAR, Journal
from app.remote import AwayError, Patience, Problem, RefusedError, Remote
from app.spooler import Delivery
from app.watch_line import Line
from archive import filenames, sidecar
from archive.sidecar import Rules, UnclearError

_DAMAGED = 400
_TRIES = 3
"""How often a file whose bytes did not arrive as they were read is sent before it is refused."""

_MISSES = 3
"""Files in a row that found no archive, before the others are not tried."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
"""Seconds between two looks while the archive is away."""

_SHARE = 5
"""The time between two looks at the directory, at the least, in times that a look takes."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a directory is watched; times in seconds."""

    rules: Rules
    quiet: float
    sidecar_wait: float
    retry_for: float
    parallel: int
    delete_after: bool
    once: bool


class Watch:
    """One watcher of one directory. `counts` says what became of files since the start."""

    def __init__(
        self, remote: Remote, folder: Folder, journal: Journal, manner: Manner, line: Line
    ) -> None:
        self._remote = remote
        self._folder = folder
        self._journal = journal
        self._manner = manner
        self._line = line
        self._sorter = Sorter(
            folder, journal, manner.rules, manner.quiet, delete_after=manner.delete_after
        )
        self._ending = asyncio.Event()
        self._damaged: Counter[bytes] = Counter()
        self._misses = 0
        self._stopped: str | None = None
        self._pause = _SHORTEST_PAUSE
        self.counts: Counter[str] = Counter()

    def end(self) -> None:
        """Finish what is being sent, and come to an end."""
        self._ending.set()

    async def run(self) -> Backlog:
        """Watch until it is ended; with `once`, until nothing is left that could be sent.

        Returns the last look at the directory.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.end)
        try:
            async with self._remote.session() as session:
                while True:
                    began = time.monotonic()
                    backlog = await asyncio.to_thread(self._sorter.look)
                    took = time.monotonic() - began
                    self._line.looked(backlog, self._manner.sidecar_wait)
                    await self._send(session, backlog)
                    self._line.sent(self.counts, self._stopped)
                    if self._is_over(backlog):
                        return backlog
                    await self._rest(backlog, took)
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    @property
    def stopped(self) -> str | None:
        """Why nothing could be sent last; None while all is well."""
        return self._stopped

    def _is_over(self, backlog: Backlog) -> bool:
        if self._ending.is_set():
            return True
        left = backlog.quieting or backlog.more or backlog.ready
        return self._manner.once and (self._stopped is not None or not left)

    async def _rest(self, backlog: Backlog, took: float) -> None:
        if self._stopped is not None:
            pause = self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        elif backlog.more:
            return
        else:
            self._pause = _SHORTEST_PAUSE
            pause = max(0.1, min(self._manner.quiet / 4, 2.0), took * _SHARE)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), pause)

    async def _send(self, session: aiohttp.ClientSession, backlog: Backlog) -> None:
        self._stopped, self._misses = None, 0
        left = iter(backlog.ready)

        async def work() -> None:
            for ready in left:
                if self._ending.is_set() or self._stopped is not None:
                    return
                await self._one(session, ready)

        await asyncio.gather(*(work() for _ in range(self._manner.parallel)))

    async def _one(self, session: aiohttp.ClientSession, ready: Ready) -> None:
        try:
            with self._folder.opened(ready.audio.path) as fd:
                if is_being_written(fd):
                    return
                item = await asyncio.to_thread(self._measured, ready, fd)
                patience = Patience(self._manner.retry_for)
                stored = await delivery.hand_over(
                    session, self._remote, item, patience, self._line.moved
                )
                self._took(ready, stored)
        except UnclearError as error:
            self._settle(ready, UNCLEAR, str(error))
        except PermissionError:
            self._settle(ready, UNCLEAR, "it may not be read")
        except RefusedError as error:
            self._refused(ready, error.problem)
        except AwayError as error:
            self._misses += 1
            if self._misses >= _MISSES or self._manner.once:
                self._stopped = str(error)
        except (ChangedError, FileError):
            # It is looked at again, and sent when it is quiet.
            self.counts["changed"] += 1

    def _measured(self, ready: Ready, fd: int) -> Delivery:
        """What is to be sent (blocking): the file that is open, whatever its name names by now."""
        rules, name = self._manner.rules, ready.audio.name
        beside = sidecar.read(ready.side.name, self._content(ready)) if ready.side else {}
        fields = sidecar.describe(rules, name, beside)
        call_id = fields.pop("call_id")
        kind = filenames.media_type(name) or filenames.OCTETS
        path = Path(f"/proc/self/fd/{fd}")
        item = delivery.measure(self._remote.url, path, call_id, fields, kind)
        if self._folder.look(ready.audio.path) != ready.audio:
            raise ChangedError("it changed while it was read")
        return item

    def _content(self, ready: Ready) -> bytes:
        assert ready.side is not None
        with self._folder.opened(ready.side.path) as fd, open(fd, "rb", closefd=False) as file:
            return file.read(sidecar.MOST + 1)

    def _took(self, ready: Ready, stored: Stored) -> None:
        self._misses = 0
        self.counts["sent" if stored.new else "already"] += 1
        self._line.one(ready, "stored" if stored.new else "already", stored.receipt)
        if not self._manner.delete_after:
            self._journal.note(ready.audio.key, ready.stamp, SENT)
            return
        if ready.side:
            self._journal.note(ready.side.key, ready.side.stamp, SENT)
        if self._folder.remove(ready.audio):
            self._journal.forget(ready.audio.key)
            if ready.side and self._folder.remove(ready.side):
                self._journal.forget(ready.side.key)

    def _refused(self, ready: Ready, problem: Problem) -> None:
        if problem.status not in delivery.OF_THE_RECORDING:
            # About the key or the address: no file is to blame.
            self._stopped = " ".join(problem.lines())
            return
        self._misses = 0
        if problem.status == _DAMAGED:
            self._damaged[ready.audio.key] += 1
            if self._damaged[ready.audio.key] < _TRIES:
                return
        self._settle(ready, REFUSED, " ".join(problem.lines()))

    def _settle(self, ready: Ready, fate: str, why: str) -> None:
        """Send it no more, as long as it does not change."""
        self._damaged.pop(ready.audio.key, None)
        self._journal.note(ready.audio.key, ready.stamp, fate, why)
        self.counts[fate] += 1
        self._line.one(ready, fate, {"reason": why})
