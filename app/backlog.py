"""What of a watched directory can be sent now, and what waits for what.

An audio is ready when it is quiet and so is what lies beside it, if something has to. One without
its sidecar, a sidecar without its audio, and an empty file wait, and after a while are told of;
they stay where they are, since what was not understood is never thrown away.
"""

import heapq
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.folder import Folder, Quiet, Seen
from app.journal import SENT, Journal
from archive import filenames
from archive.sidecar import Rules

MOST = 1000
"""Files that are sent before the directory is looked at again, oldest first."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An audio that can be sent, with the file beside it."""

    audio: Seen
    side: Seen | None

    @property
    def stamp(self) -> str:
        """Changes when either of them does."""
        return f"{self.audio.stamp}/{self.side.stamp if self.side else ''}"


@dataclass(slots=True)
class Backlog:
    """One look at the directory.

    `quieting`: written to a moment ago. `lacking`: audio without a sidecar, or empty; `orphans`:
    sidecars without audio; both with the seconds for which that has been so. `settled`: refused or
    not understood before, and not changed since; `others`: no audio by their names.
    """

    ready: list[Ready] = field(default_factory=list)
    more: bool = False
    quieting: int = 0
    lacking: list[tuple[Seen, float]] = field(default_factory=list)
    orphans: list[tuple[Seen, float]] = field(default_factory=list)
    settled: list[Seen] = field(default_factory=list)
    others: list[Seen] = field(default_factory=list)

    def overdue(self, wait: float) -> list[Seen]:
        """What has waited for longer than that for what belongs to it."""
        return [seen for seen, since in (*self.lacking, *self.orphans) if since >= wait]


class Sorter:
    """Looks at a directory again and again (blocking), and remembers since when files are quiet."""

    def __init__(
        self, folder: Folder, journal: Journal, rules: Rules, quiet: float, *, delete_after: bool
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._rules = rules
        self._quiet = quiet
        self._delete_after = delete_after
        self._since = Quiet()

    def look(self) -> Backlog:
        """Look once at everything."""
        self._since.begin()
        backlog, now = Backlog(), time.monotonic()
        expected: set[str] = set()
        sidecars: list[Seen] = []
        ready = heapq.nsmallest(
            MOST + 1,
            self._sorted(backlog, now, expected, sidecars),
            key=lambda each: each.audio.changed,
        )
        backlog.ready, backlog.more = ready[:MOST], len(ready) > MOST
        for seen in sidecars:
            if seen.path not in expected:
                self._orphan(backlog, seen, now)
        return backlog

    def _sorted(
        self, backlog: Backlog, now: float, expected: set[str], sidecars: list[Seen]
    ) -> Iterator[Ready]:
        pattern = self._rules.sidecars
        for seen in self._folder.files():
            if pattern and pattern.fullmatch(seen.name):
                sidecars.append(seen)
            elif filenames.media_type(seen.name) is None:
                backlog.others.append(seen)
            else:
                beside = self._rules.sidecar_of(seen.name)
                path = beside and os.path.normpath(seen.beside(beside))
                if path:
                    expected.add(path)
                if ready := self._judged(backlog, seen, path, now):
                    yield ready

    def _judged(self, backlog: Backlog, seen: Seen, path: str | None, now: float) -> Ready | None:
        side = self._folder.look(path) if path else None
        ready = Ready(seen, side)
        if fate := self._journal.fate(seen.key, ready.stamp):
            if fate != SENT:
                backlog.settled.append(seen)
                return None
            if not self._delete_after:
                return None
        since = self._since.for_how_long(seen, now)
        if seen.size == 0 or (path and side is None):
            backlog.lacking.append((seen, since))
        elif min(since, self._since.for_how_long(side, now) if side else since) < self._quiet:
            backlog.quieting += 1
        else:
            return ready
        return None

    def _orphan(self, backlog: Backlog, seen: Seen, now: float) -> None:
        if self._delete_after and self._journal.fate(seen.key, seen.stamp) == SENT:
            # Its audio was sent and removed, and a crash came before this was.
            if self._folder.remove(seen):
                self._journal.forget(seen.key)
            return
        backlog.orphans.append((seen, self._since.for_how_long(seen, now)))
