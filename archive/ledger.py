"""An entry of the ledger, and its bytes as the tree hashes them.

An entry says who did what and when, to which recording, and what is to be known of it besides
(`facts`). It holds nothing personal: the actor is a key's id, the recording a random one. What
would tell of people is sealed elsewhere, and the entry has the hash of what was sealed, so that the
one can go and the proof stays.

The bytes are the entry as JSON in its one canonical form (RFC 8785): keys in order, no spaces,
UTF-8. Times are UTC to the microsecond. Numbers in facts are whole.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

DEEPEST = 50
"""Levels of an entry's facts, at the most: who reads it may bear fewer than who hashed it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. `position` counts from 0.

    `sealed` is the SHA-256, in hex, of what is sealed of it; the random key and nonce in that are
    its salt.
    """

    position: int
    at: datetime
    actor: str
    act: str
    recording: UUID | None
    facts: Mapping[str, object]
    sealed: str | None = None

    @property
    def text(self) -> bytes:
        """What the tree hashes. Its position is not in it: the tree itself says that."""
        known: dict[str, object] = {
            "act": self.act,
            "actor": self.actor,
            "at": instant(self.at),
            "facts": self.facts,
        }
        if self.recording:
            known["recording"] = str(self.recording)
        if self.sealed:
            known["sealed"] = self.sealed
        return canonical(known)

    @classmethod
    def parse(cls, position: int, text: bytes) -> "Entry":
        """Read what `text` gave. Raises ValueError for anything else."""
        known = json.loads(text)
        try:
            entry = cls(
                position,
                datetime.fromisoformat(known["at"]),
                known["actor"],
                known["act"],
                UUID(known["recording"]) if "recording" in known else None,
                known["facts"],
                known.get("sealed"),
            )
            # What is not in its one form, or has more in it, is not what the tree has hashed.
            same = isinstance(entry.facts, dict) and entry.text == text
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError("this is not an entry of the ledger") from error
        if not same:
            raise ValueError("this is not an entry of the ledger in its canonical form")
        return entry


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are looked for: all that is said has to hold. `until` is outside, and `before`
    the position of the entry where the page before this one ended."""

    act: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    recording: UUID | None = None
    position: int | None = None
    before: int | None = None


def instant(moment: datetime) -> str:
    """An instant as the ledger writes it: `2026-11-24T14:00:00.000000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def canonical(known: object) -> bytes:
    """JSON in its one form. Raises TypeError for a float, of which there is more than one."""
    refuse_floats(known)
    return _ENCODER.encode(known).encode()


def too_deep(text: bytes, facts: dict[str, object]) -> bool:
    """Whether these facts have more levels than DEEPEST. `text` has them in it: where that has no
    more brackets, as nearly everywhere, nothing is measured.
    """
    if text.count(b"{") + text.count(b"[") <= DEEPEST:
        return False
    level: list[dict[str, object] | list[object]] = [facts]
    for _ in range(DEEPEST):
        parts = (each.values() if isinstance(each, dict) else each for each in level)
        level = [part for each in parts for part in each if isinstance(part, (dict, list))]
    return bool(level)


def refuse_floats(known: object) -> None:
    """Raise TypeError for what holds a float."""
    if isinstance(known, float):
        raise TypeError("the ledger has whole numbers alone")
    parts: Iterable[object] = ()
    if isinstance(known, dict):
        parts = known.values()
    elif isinstance(known, (list, tuple)):
        parts = known
    for each in parts:
        if not isinstance(each, (str, int)):
            refuse_floats(each)
