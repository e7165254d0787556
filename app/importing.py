"""`archive import`: an old archive is handed over, once and whole, or what of it would be is told.

It can be broken off anywhere and started again: what was sent is remembered, and what is sent twice
is answered with the same receipt. What the archive refuses, a call past its year among it, is
listed with the reason, and stays where it is. Nothing is ever removed.
"""

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp
from tqdm import tqdm

from app import delivery
from app.delivery import FileError
from app.folder import ChangedError
from app.import_sources import Item, Source
from app.journal import REFUSED, SENT, Journal
from app.remote import AwayError, Patience, RefusedError, Remote, printable
from archive import filenames, sidecar
from archive.errors import ArchiveError, InvalidError
from archive.recording import Call, CallType
from archive.retention import Period, Policy
from archive.sidecar import Rules, UnclearError
from storage.audio import formats

_MISSES = 3
"""Items in a row that found no archive, before the import is broken off."""

_EVERY = 60.0
"""Seconds between two lines that say how far it is, where nobody looks at a bar."""

POLICY = Policy(ZoneInfo("Europe/Helsinki"), {kind: Period(years=1) for kind in CallType})
"""What a dry run judges by: the archive's own default."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How an import is done. `retry_for` in seconds, for each item."""

    rules: Rules
    retry_for: float
    parallel: int
    dry_run: bool


Act = Callable[[Item], Awaitable[None]]


class Import:
    """One import. `counts` says what became of items, `reasons` why some were refused."""

    def __init__(self, source: Source, journal: Journal, manner: Manner, *, as_json: bool) -> None:
        self._source = source
        self._journal = journal
        self._manner = manner
        self._as_json = as_json
        self._bar = tqdm(disable=True)
        self._told = self._began = time.monotonic()
        self._total = 0
        self._calls = sqlite3.connect("", isolation_level=None)  # on disk, unnamed
        self._calls.execute("CREATE TABLE call (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.stopped: str | None = None

    async def run(self, remote: Remote | None) -> None:
        """Go through the source: count first, so that the time left can be told."""
        async with aclosing(self._source.items()) as items:
            async for _ in items:
                self._total += 1
        shown = sys.stderr.isatty() and not self._as_json
        with tqdm(total=self._total, unit=" files", leave=False, disable=not shown) as self._bar:
            if remote is None:
                await self._work(self._judge)
                return
            async with remote.session() as session:
                await self._work(_Sender(self, session, remote).send)

    async def _work(self, act: Act) -> None:
        async with aclosing(self._source.items()) as items:
            turn = asyncio.Lock()

            async def work() -> None:
                while self.stopped is None:
                    async with turn:
                        item = await anext(items, None)
                    if item is None:
                        return
                    if not self._is_known(item):
                        await act(item)
                    self._done()

            async with asyncio.TaskGroup() as group:
                for _ in range(self._manner.parallel):
                    group.create_task(work())

    def _is_known(self, item: Item) -> bool:
        told = self._journal.told(item.key)
        if told is None or told[0] != item.stamp:
            return False
        if told[1] == SENT:
            self.counts["sent before"] += 1
        else:
            self.refuse(item, told[2], remember=False)
        return True

    def _done(self) -> None:
        self._bar.update()
        now, done = time.monotonic(), sum(self.counts.values())
        if self._bar.disable and not self._as_json and now - self._told >= _EVERY:
            self._told = now
            left = round((now - self._began) / done * (self._total - done))
            text = f"{done:,} of {self._total:,}, about {left // 60} min {left % 60} s left"
            print(f"archive: {text}", file=sys.stderr)

    def refuse(self, item: Item, why: str, *, remember: bool = True) -> None:
        """List it with the reason."""
        if remember and not self._manner.dry_run:
            self._journal.note(item.key, item.stamp, REFUSED, why)
        self.counts["refused"] += 1
        self.reasons[why] += 1
        facts = {"file": item.path, "status": "refused", "reason": why}
        text = json.dumps(facts) if self._as_json else f"refused  {item.path}  {why}"
        self._bar.write(text if self._as_json else printable(text), file=sys.stdout)

    def sent(self, item: Item, *, new: bool) -> None:
        """The archive holds it."""
        self._journal.note(item.key, item.stamp, SENT)
        self.counts["sent" if new else "already"] += 1

    async def describe(self, item: Item) -> dict[str, str]:
        """The fields of its call. Raises UnclearError."""
        return sidecar.describe(self._manner.rules, item.name, await self._source.beside(item))

    async def deliver(
        self, session: aiohttp.ClientSession, remote: Remote, item: Item, fields: dict[str, str]
    ) -> delivery.Stored:
        """Hand it over."""
        call_id, patience = fields.pop("call_id"), Patience(self._manner.retry_for)
        kind = filenames.media_type(item.name) or filenames.OCTETS
        async with self._source.opened(item) as fd:
            path = Path(f"/proc/self/fd/{fd}")
            there = await asyncio.to_thread(
                delivery.measure, remote.url, path, call_id, fields, kind
            )
            return await delivery.hand_over(session, remote, there, patience, lambda _: None)

    async def _judge(self, item: Item) -> None:
        """What the archive would say, as far as it can be told from here."""
        try:
            fields = await self.describe(item)
            Call.from_fields(fields, POLICY, datetime.now(UTC))
            async with self._source.opened(item) as fd:
                size, head = os.fstat(fd).st_size, os.pread(fd, formats.HEAD, 0)
            formats.recognise(head, size, filenames.media_type(item.name))
            self._calls.execute("INSERT INTO call VALUES (?)", (fields["call_id"],))
        except (UnclearError, ChangedError, PermissionError) as error:
            self.refuse(item, _plain(error))
        except InvalidError as error:
            self.refuse(item, "; ".join(f"{key} {why}" for key, why in error.errors.items()))
        except ArchiveError as error:
            self.refuse(item, error.detail)
        except sqlite3.IntegrityError:
            self.refuse(item, "another file is the same call")
        else:
            self.counts["would be sent"] += 1


class _Sender:
    """Sends item after item; too many in a row that find no archive break the import off."""

    def __init__(self, whole: Import, session: aiohttp.ClientSession, remote: Remote) -> None:
        self._whole = whole
        self._session = session
        self._remote = remote
        self._misses = 0

    async def send(self, item: Item) -> None:
        whole = self._whole
        try:
            fields = await whole.describe(item)
            stored = await whole.deliver(self._session, self._remote, item, fields)
        except (UnclearError, ChangedError, FileError, PermissionError) as error:
            # May be mended beside it: looked at again by the next run.
            whole.refuse(item, _plain(error), remember=False)
        except RefusedError as error:
            why = " ".join(error.problem.lines())
            if error.problem.status in delivery.OF_THE_RECORDING:
                whole.refuse(item, why)
            else:
                whole.stopped = why
        except AwayError as error:
            self._misses += 1
            whole.counts["not sent"] += 1
            if self._misses >= _MISSES:
                whole.stopped = str(error)
        else:
            self._misses = 0
            whole.sent(item, new=stored.new)


def _plain(error: Exception) -> str:
    return "it may not be read" if isinstance(error, PermissionError) else str(error)
