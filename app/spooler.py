"""The client's spool: recordings that wait, on this machine, for an archive that was away.

An entry is two files of one name: `NAME.audio`, a copy of the recording, and `NAME.json`, what is
said of the call. The second is written last and taken away first, so that an entry is there wholly
or not at all; a crash leaves at worst an `.audio` that belongs to nothing, and `tidy` removes it.
Names are times and chance: no number and no call id is in one. `refused/` holds, in the same form,
what the archive will never take, with its reason, until the call's year is over.

The audio is copied, not linked: a link would share the mode and every later change of a file that
is not ours.
"""

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

from archive.recording import parse_instant
from archive.retention import Period, expires_at
from storage import durable

_PIECE = 2**20

_LONGEST_WRITE = 86400.0
"""Seconds after which an audio without its JSON is no entry that is just being written."""

NOT_AN_ENTRY = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a note that is none ends in."""

_YEAR = Period(years=1)
_ZONE = ZoneInfo("Europe/Helsinki")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recording to hand over: its bytes and what is said of the call.

    `url` is the archive that it is for; `size` in bytes; `sha256` of the file as it was read first.
    """

    url: str
    call_id: str
    fields: Mapping[str, str]
    content_type: str
    path: Path
    size: int
    sha256: bytes

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Delivery":
        """Read what `keep` wrote. Raises one of NOT_AN_ENTRY for anything else."""
        said = json.loads(text)
        fields = {str(name): str(value) for name, value in said["fields"].items()}
        return cls(
            str(said["url"]),
            str(said["call_id"]),
            fields,
            str(said["content_type"]),
            path,
            int(said["size"]),
            bytes.fromhex(said["sha256"]),
        )

    def said(self) -> dict[str, object]:
        """The same as JSON, without the path."""
        return {
            "url": self.url,
            "call_id": self.call_id,
            "fields": dict(self.fields),
            "content_type": self.content_type,
            "size": self.size,
            "sha256": self.sha256.hex(),
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording that waits. `note` is its JSON file; the audio is `delivery.path`."""

    note: Path
    delivery: Delivery


def default_directory(environ: Mapping[str, str]) -> Path:
    """Where the spool is unless `--spool` names another place (XDG base directories)."""
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "call-archive" / "spool"


def keep(directory: Path, delivery: Delivery) -> None:
    """Put a recording in the spool. On return it survives a crash of the machine.

    Raises OSError, and leaves nothing, when the disk is full or the file is no longer the one whose
    digest was taken.
    """
    durable.make_directory(directory)
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    audio, note = directory / f"{name}.audio", directory / f"{name}.json"
    try:
        _copy(delivery, audio)
        _write(note, delivery.said())
    except BaseException:
        note.unlink(missing_ok=True)
        audio.unlink(missing_ok=True)
        raise


def waiting(directory: Path) -> tuple[list[Entry], list[Path]]:
    """What waits, oldest first, and the notes that cannot be read or whose audio is missing."""
    entries, damaged = [], []
    for note in sorted(directory.glob("*.json")):
        audio = note.with_suffix(".audio")
        try:
            delivery = Delivery.from_json(note.read_text(), audio)
            audio.stat()
        except (OSError, *NOT_AN_ENTRY):
            # Gone meanwhile is not damaged: an earlier holder of the lock has delivered it.
            if note.exists():
                damaged.append(note)
            continue
        entries.append(Entry(note, delivery))
    return entries, damaged


def drop(entry: Entry) -> None:
    """Take away an entry that the archive holds."""
    entry.note.unlink()
    durable.sync_directory(entry.note.parent)
    entry.delivery.path.unlink()


def set_aside(entry: Entry, reason: Mapping[str, object]) -> Path:
    """Move an entry that the archive will never take to `refused/`; returns its note there."""
    refused = entry.note.parent / "refused"
    durable.make_directory(refused)
    audio = refused / entry.delivery.path.name
    # A crash between these steps leaves it in both places: the next round does them again.
    with suppress(FileExistsError):
        os.link(entry.delivery.path, audio)
    note = refused / entry.note.name
    _write(note, {**entry.delivery.said(), "refused": dict(reason)})
    drop(entry)
    return note


def refused(directory: Path) -> int:
    """How many entries were set aside and are still there."""
    return len(list((directory / "refused").glob("*.json")))


def tidy(directory: Path, now: datetime) -> int:
    """Remove what belongs to nothing, and what was refused once its call's year is over.

    What has not been refused stays, whatever this machine's clock says: the archive's clock alone
    decides about it. Returns how many refused recordings were removed.
    """
    for left in [*directory.glob("*.audio"), *directory.glob("*.part")]:
        with suppress(FileNotFoundError):
            old = now.timestamp() - left.stat().st_mtime > _LONGEST_WRITE
            if old and not left.with_suffix(".json").exists():
                left.unlink()
    removed = 0
    for note in (directory / "refused").glob("*.json"):
        audio = note.with_suffix(".audio")
        if _over(note, now):
            note.unlink()
            audio.unlink(missing_ok=True)
            removed += 1
    return removed


@contextmanager
def lock(directory: Path) -> Iterator[bool]:
    """Hold the spool for delivering; yields False, at once, when another process does.

    Makes the spool if there is none.
    """
    durable.make_directory(directory)
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _over(note: Path, now: datetime) -> bool:
    # A call was before it came here: a time that is wrong cannot keep it longer.
    came = started_at = datetime.fromtimestamp(note.stat().st_mtime, UTC)
    with suppress(OSError, *NOT_AN_ENTRY):
        started_at = parse_instant(Delivery.from_json(note.read_text(), note).fields["started_at"])
    return now >= expires_at(min(started_at, came), _YEAR, _ZONE)


def _copy(delivery: Delivery, audio: Path) -> None:
    digest = hashlib.sha256()
    with delivery.path.open("rb") as source, _create(audio) as target:
        while piece := source.read(_PIECE):
            digest.update(piece)
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())
    if digest.digest() != delivery.sha256:
        raise OSError("the file changed while it was read")


def _write(note: Path, said: Mapping[str, object]) -> None:
    part = note.with_suffix(".part")
    try:
        durable.write(part, json.dumps(said).encode())
        durable.rename(part, note)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
