"""The file ring: the random keys that everything is sealed under, and their end.

A ring holds one key for each expiry day, and one for lookups. It lies in a file that is sealed
under a root, and the root in a file of its own, best on another device. To destroy a day's key the
ring is written anew without it, under a new root, and the old root is overwritten: an old copy of
the ring, wherever it is, opens no more, even on a disk that cannot overwrite in place.

A crash leaves a ring that opens, whenever it comes. The ring is replaced whole: a new file, synced,
renamed over the old, its directory synced. A destruction has three steps: the new root is written
beside the old, the ring is replaced by one under the new root, the old root is wiped. Whoever takes
the lock next finishes what was broken off. Several processes may share a ring: writers take turns
through a lock file, readers look whether the ring was replaced.

A holder does not take a caller's word for the date: it refuses to destroy a day that is not over by
its own clock.
"""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from archive.errors import UnavailableError
from storage import boxes, durable
from storage.root import RootFile, new_root

_KEY = 32
_RING_DATA = b"call-archive ring 1"
_OLD_ROOT = "the root of an old copy of the ring is still there"
_SKEW = timedelta(days=1)
"""How far a caller's date may be behind the holder's, around midnight."""

_REMEMBERED = timedelta(days=800)
"""How long a destroyed day is remembered: no call can be filed under it any more."""


class KeyRingError(RuntimeError):
    """The ring is not there, does not open, or refuses; the message says what to do."""


class NoDayKeyError(KeyError):
    """There is no key of this day: it was destroyed, or never made."""


@dataclass(frozen=True, slots=True)
class _Content:
    """What the ring's file holds."""

    id: str
    lookup: bytes
    days: Mapping[date, bytes] = field(default_factory=dict)
    destroyed: Mapping[date, datetime] = field(default_factory=dict)

    def to_json(self) -> bytes:
        raw = {
            "id": self.id,
            "lookup": _text(self.lookup),
            "days": {day.isoformat(): _text(key) for day, key in self.days.items()},
            "destroyed": {day.isoformat(): at.isoformat() for day, at in self.destroyed.items()},
        }
        return json.dumps(raw).encode()

    @classmethod
    def from_json(cls, plain: bytes) -> "_Content":
        raw: dict[str, Any] = json.loads(plain)
        destroyed = raw["destroyed"].items()
        return cls(
            raw["id"],
            base64.b64decode(raw["lookup"]),
            {date.fromisoformat(day): base64.b64decode(key) for day, key in raw["days"].items()},
            {date.fromisoformat(day): datetime.fromisoformat(at) for day, at in destroyed},
        )


@dataclass(frozen=True, slots=True)
class _State:
    """What was last read of the ring's file, the root that opened it, and which file that was."""

    stamp: tuple[int, ...]
    root: bytes
    content: _Content
    index_keys: dict[date, bytes] = field(default_factory=dict)


class Ring:
    """A key ring in a directory, with its root in a file; made by `open`.

    All calls block, shortly; those that write sync the disk. Any thread may call them. Each raises
    KeyRingError when the ring is not there any more.
    """

    def __init__(self, directory: Path, root_file: Path, today: Callable[[], date]) -> None:
        self._file = directory / "ring"
        self._new = directory / "ring.new"
        self._lock = directory / "lock"
        self._root_file = RootFile(root_file)
        self.today = today
        self._state: _State | None = None

    @classmethod
    def open(
        cls, directory: Path, root_file: Path, *, create: bool, today: Callable[[], date]
    ) -> "Ring":
        """Open the ring, or make one if `create` and there is none.

        `today` is the holder's own date. Raises KeyRingError when the ring or its root is missing
        or does not open: a ring that is lost must be restored, since a new one opens nothing.
        """
        ring = cls(directory, root_file, today)
        with ring._locked(create=create):
            if create and ring._stamp() is None:
                ring._create()
            ring._load()
        return ring

    @property
    def id(self) -> str:
        """The ring's name, made with it: a database remembers which ring is its own."""
        return self._current().content.id

    def day_key(self, day: date) -> bytes:
        """The key of an expiry day. Raises NoDayKeyError if it was destroyed or never made."""
        return _day_key(self._current(), day)

    def days(self) -> list[date]:
        """The days whose key is alive, newest first."""
        return sorted(self._current().content.days, reverse=True)

    def destroyed(self) -> dict[date, datetime]:
        """The days whose key was destroyed, and when, by the holder's clock."""
        return dict(self._current().content.destroyed)

    def index_key(self, day: date) -> bytes:
        """The key under which the day's details are hashed for searching. Raises NoDayKeyError."""
        state = self._current()
        key = state.index_keys.get(day)
        if key is None:
            key = state.index_keys[day] = _derive(_day_key(state, day), "blind-index")
        return key

    def index_keys(self, days: Collection[date]) -> dict[date, bytes]:
        """The index keys of those of these days that are alive, with one look at the file."""
        state = self._current()
        for day in days:
            if day in state.content.days and day not in state.index_keys:
                state.index_keys[day] = _derive(_day_key(state, day), "blind-index")
        return {day: state.index_keys[day] for day in days if day in state.content.days}

    def lookup_key(self, purpose: str) -> bytes:
        """A key for hashes that outlive a day: of call ids, of digests; and for cursors."""
        return _derive(self._current().content.lookup, purpose)

    def ensure(self, first: date, last: date) -> None:
        """Make the missing keys of these days, in one durable write; none for a day that is over.

        Raises KeyRingError when the caller's or the holder's clock is wrong: `first` is long over,
        or one of the days was destroyed and is not over.
        """
        today = self.today()
        if first < today - _SKEW:
            raise KeyRingError("a key for a day that is over is never made: check the clocks")
        span = (first + timedelta(days=count) for count in range((last - first).days + 1))
        wanted = {day for day in span if day >= today}
        if wanted & self._current().content.destroyed.keys():
            raise KeyRingError("a day that is not over was destroyed already: check the clock")
        if wanted <= self._current().content.days.keys():
            return
        with self._locked():
            state = self._load()
            missing = wanted - state.content.days.keys() - state.content.destroyed.keys()
            made = {day: secrets.token_bytes(_KEY) for day in sorted(missing)}
            self._save(replace(state.content, days={**state.content.days, **made}), state.root)

    def destroy(self, day: date) -> datetime:
        """End the key of a day that is over, for ever; returns when, by the holder's own clock.

        The root that sealed it goes with it: a copy of the ring as it was a moment before, which a
        backup may hold, is then tried, and must not open. Raises KeyRingError if it does, and while
        the day is not over by the holder's clock. Doing it again finishes what was not done; a day
        that never had a key is written down as destroyed.
        """
        today = self.today()
        if day >= today:
            raise KeyRingError(f"{day.isoformat()} is not over by the key holder's clock")
        with self._locked():
            state = self._load()
            done = state.content.destroyed.get(day)
            self._root_file.keep(state.root, again=done is not None)
            if done is not None:
                if self._root_file.roots() != [state.root]:
                    raise KeyRingError(_OLD_ROOT)
                return done
            before, now = self._file.read_bytes(), datetime.now(UTC)
            days = {each: key for each, key in state.content.days.items() if each != day}
            destroyed = {
                each: at
                for each, at in {**state.content.destroyed, day: now}.items()
                if each == day or today - each <= _REMEMBERED
            }
            self._rotate(replace(state.content, days=days, destroyed=destroyed))
            if self._opened(before):
                raise KeyRingError(_OLD_ROOT)
        return now

    def _current(self) -> _State:
        """What the file holds now; read anew only when it was replaced."""
        state = self._state
        if state is not None and state.stamp == self._stamp():
            return state
        with self._locked():
            return self._load()

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    @contextmanager
    def _locked(self, *, create: bool = False) -> Iterator[None]:
        """Hold the lock: against other processes, and against other threads."""
        if not create and not self._lock.parent.is_dir():
            raise self._missing()
        try:
            for directory in (self._lock.parent, self._root_file.path.parent) if create else ():
                durable.make_directory(directory)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise KeyRingError(
                f"the key ring {self._file} or its root cannot be used: {error}"
            ) from error

    def _missing(self) -> KeyRingError:
        return KeyRingError(
            f"there is no key ring at {self._file}: restore it with its root "
            f"{self._root_file.path}, nothing opens without them"
        )

    def _foreign(self, path: Path) -> KeyRingError:
        return KeyRingError(
            f"the root {self._root_file.path} does not open the key ring {path}: "
            "restore the two that belong together"
        )

    def _create(self) -> None:
        """Make a ring, or finish making one. A root without a ring is a ring that was lost."""
        if self._root_file.path.exists():
            if not self._new.exists():
                raise self._missing()
            self._unseal(self._new)
        else:
            root = new_root()
            content = _Content(secrets.token_hex(8), secrets.token_bytes(_KEY))
            durable.write(self._new, _seal(content, root))
            self._root_file.create(root)
        durable.rename(self._new, self._file)

    def _load(self) -> _State:
        """What the file holds; with the lock held. Finishes what was broken off, where it can."""
        stamp = self._stamp()
        if stamp is None:
            raise self._missing()
        state = self._state
        if state is None or state.stamp != stamp:
            state = self._state = _State(stamp, *self._unseal(self._file))
        if state.root not in self._root_file.roots():
            # What is written under a root that is nowhere would never open again.
            raise self._foreign(self._file)
        with suppress(OSError):  # its day alone stays open: `destroy` tells that it cannot wipe
            self._root_file.keep(state.root)
        return state

    def _unseal(self, path: Path) -> tuple[bytes, _Content]:
        if opened := self._opened(path.read_bytes()):
            durable.sync_directory(path.parent)  # what renamed it may have been broken off before
            return opened
        raise self._foreign(path)

    def _opened(self, sealed: bytes) -> tuple[bytes, _Content] | None:
        for root in self._root_file.roots():
            with suppress(InvalidTag, ValueError):
                plain = boxes.unseal(root, sealed, _RING_DATA)
                return root, _Content.from_json(plain)
        return None

    def _save(self, content: _Content, root: bytes) -> None:
        """Replace the ring. What it holds counts only when that is done."""
        durable.write(self._new, _seal(content, root))
        durable.rename(self._new, self._file)
        if stamp := self._stamp():
            self._state = _State(stamp, root, content)

    def _rotate(self, content: _Content) -> None:
        root = new_root()
        self._root_file.add(root)
        self._save(content, root)
        self._root_file.keep(root)


def key_to_seal(ring: Ring, day: date) -> bytes:
    """The key of a day for what is sealed now. Raises NoDayKeyError when it was destroyed, and
    UnavailableError while there is none yet: what is sent then must not be given up as over.
    """
    try:
        return ring.day_key(day)
    except NoDayKeyError:
        if day in ring.destroyed():
            raise
    raise UnavailableError(
        "There is no key yet for the day on which this ends: does the part with the jobs run?", 60
    )


def _day_key(state: _State, day: date) -> bytes:
    try:
        return state.content.days[day]
    except KeyError:
        raise NoDayKeyError(f"there is no key of {day.isoformat()}") from None


def _derive(key: bytes, purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), _KEY, None, purpose.encode()).derive(key)


def _seal(content: _Content, root: bytes) -> bytes:
    return boxes.seal(root, content.to_json(), _RING_DATA)


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
