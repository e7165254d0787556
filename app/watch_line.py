"""What a watcher tells of its work: one line that moves for a person, few lines for a log.

A file's name may hold a number or a name. It is shown on a terminal, with `--list` and with
`--json`, which somebody has asked for, and never in a log.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping

from tqdm import tqdm

from app.backlog import Backlog, Ready
from app.remote import printable

_EVERY = 60.0
"""Seconds between two lines of a log that only say how far it is."""


class Line:
    """The one place where a watcher writes."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._shown = sys.stderr.isatty() and not as_json
        self._bar = tqdm(
            unit=" files", dynamic_ncols=True, leave=False, disable=not self._shown, smoothing=0.1
        )
        self._bytes = 0
        self._began = time.monotonic()
        self._told = 0.0
        self._last = ""
        self._stopped: str | None = None
        self._overdue: set[bytes] = set()
        self._kept = 0

    def close(self) -> None:
        self._bar.close()

    def looked(self, backlog: Backlog, wait: float) -> None:
        """The directory was looked at."""
        self._kept = backlog.quieting + len(backlog.lacking) + len(backlog.orphans)
        self._bar.total = self._bar.n + len(backlog.ready)
        self._bar.refresh()
        overdue = backlog.overdue(wait)
        if fresh := [seen for seen in overdue if seen.key not in self._overdue]:
            self._say(
                f"{len(fresh)} files wait in vain for what belongs to them: --list names them"
            )
            for seen in fresh if self._shown else ():
                self._say(f"  {seen.path}")
        self._overdue = {seen.key for seen in overdue}

    def moved(self, count: int) -> None:
        """Bytes were sent."""
        self._bytes += count

    def one(self, ready: Ready, fate: str, facts: Mapping[str, object]) -> None:
        """A file came to its end."""
        self._bar.update()
        rate = self._bytes / 1e6 / max(time.monotonic() - self._began, 0.001)
        self._bar.set_postfix_str(f"{rate:.1f} MB/s", refresh=False)
        if self._as_json:
            more = {"receipt": facts} if "id" in facts else dict(facts)
            print(json.dumps({"file": ready.audio.path, "status": fate, **more}), flush=True)
        elif "reason" in facts:
            name = f": {ready.audio.path}" if self._shown else ", --list names it"
            self._say(f"{fate}{name}: {facts['reason']}")

    def sent(self, counts: Counter[str], stopped: str | None) -> None:
        """All that could be sent was; `stopped` says why not."""
        if stopped != self._stopped:
            self._say(f"stopped: {stopped}" if stopped else "it goes on")
            self._stopped = stopped
        text = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        text = f"{text or 'nothing sent yet'}, waiting {self._kept}"
        due = time.monotonic() - self._told >= _EVERY
        if not self._shown and not self._as_json and due and text != self._last:
            self._say(text)
            self._told, self._last = time.monotonic(), text

    def _say(self, text: str) -> None:
        self._bar.write(f"archive: {printable(text)}", file=sys.stderr)
