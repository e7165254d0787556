"""What a watcher remembers of files, so that it does not send again what was sent or refused.

The archive knows every call it holds, and a file that is sent twice is answered with the receipt it
had: what is lost of this memory costs a transfer and nothing else. No name stands in it, since a
name may tell of a person: a file is known by a hash of its path.
"""

import sqlite3
import time
from pathlib import Path

SENT, REFUSED, UNCLEAR = "sent", "refused", "unclear"

_KEPT = 400 * 86400
"""Seconds after which a file is forgotten: no call is kept, or worth a question, for so long."""


class Journal:
    """A small database, written by one watcher at a time."""

    def __init__(self, path: Path) -> None:
        # Durable against the end of a process, not of the machine: no more is asked of it.
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = OFF")
        self._sql.execute(
            "CREATE TABLE IF NOT EXISTS file (key BLOB PRIMARY KEY, stamp TEXT NOT NULL,"
            " fate TEXT NOT NULL, why TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID"
        )

    def begin(self) -> None:
        """Begin to watch: what could not be understood may be by now, with the rules of today."""
        self._sql.execute(
            "DELETE FROM file WHERE fate = ? OR at < ?", (UNCLEAR, int(time.time()) - _KEPT)
        )

    def close(self) -> None:
        self._sql.close()

    def fate(self, key: bytes, stamp: str) -> str | None:
        """What became of a file, if it is the one that this was written down of."""
        known = self.told(key)
        return known[1] if known and known[0] == stamp else None

    def told(self, key: bytes) -> tuple[str, str, str] | None:
        """Stamp, fate and reason of the last file of this path."""
        found = self._sql.execute("SELECT stamp, fate, why FROM file WHERE key = ?", (key,))
        row: tuple[str, str, str] | None = found.fetchone()
        return row

    def note(self, key: bytes, stamp: str, fate: str, why: str = "") -> None:
        self._sql.execute(
            "INSERT OR REPLACE INTO file (key, stamp, fate, why, at) VALUES (?, ?, ?, ?, ?)",
            (key, stamp, fate, why, int(time.time())),
        )

    def forget(self, key: bytes) -> None:
        self._sql.execute("DELETE FROM file WHERE key = ?", (key,))

    def ask_again(self) -> None:
        """Forget what was refused."""
        self._sql.execute("DELETE FROM file WHERE fate = ?", (REFUSED,))
