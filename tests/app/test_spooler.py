"""The client's spool: whole or not at all, and nothing in it past its year."""

import errno
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from app import remote, spooler
from app.spooler import Delivery

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def delivery(folder: Path, name: str = "a", started_at: str = "2026-11-24T09:30:00Z") -> Delivery:
    file = folder / f"{name}.wav"
    file.write_bytes(name.encode() * 5000)
    fields = {"call_type": "other", "started_at": started_at}
    digest = hashlib.sha256(file.read_bytes()).digest()
    return Delivery("http://x", name, fields, "audio/x-wav", file, 5000 * len(name), digest)


def files(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*") if path.is_file()]


def age(path: Path, by: timedelta) -> None:
    moment = (NOW - by).timestamp()
    os.utime(path, (moment, moment))


def test_an_entry_comes_back_as_it_went_in(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    made = delivery(tmp_path)
    spooler.keep(spool, made)
    made.path.unlink()
    (entry,), damaged = spooler.waiting(spool)
    assert damaged == []
    assert entry.delivery.said() == made.said()
    assert entry.delivery.path.read_bytes() == b"a" * 5000
    spooler.drop(entry)
    assert files(spool) == []


@pytest.mark.parametrize("step", range(4))
def test_a_full_disk_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    spool, left = tmp_path / "spool", [step]
    real = os.fsync

    def fsync(fd: int) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        spooler.keep(spool, delivery(tmp_path))
    assert files(spool) == []
    left[0] = 100
    spooler.keep(tmp_path / "another", delivery(tmp_path))
    assert 100 - left[0] == 4, "there is a step without a test"


def test_a_file_that_changes_while_it_is_copied_is_not_taken(tmp_path: Path) -> None:
    made = delivery(tmp_path)
    made.path.write_bytes(b"b" * 5000)
    with pytest.raises(OSError, match="changed"):
        spooler.keep(tmp_path / "spool", made)
    assert files(tmp_path / "spool") == []


def test_what_a_crash_left_is_no_entry_and_goes_after_a_day(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spooler.keep(spool, delivery(tmp_path))
    (entry,), _ = spooler.waiting(spool)
    lost, part = spool / "lost.audio", spool / "lost.part"
    for path in (lost, part):
        path.write_bytes(b"half")
        age(path, timedelta(hours=1))
    age(entry.delivery.path, timedelta(days=9))
    assert len(spooler.waiting(spool)[0]) == 1
    spooler.tidy(spool, NOW)
    assert lost.exists()
    spooler.tidy(spool, NOW + timedelta(days=1))
    assert set(files(spool)) == {entry.note, entry.delivery.path}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"fields": 1}', '{"url": "x", "call_id": "y"}']
)
def test_a_damaged_note_is_told_and_never_thrown_away(tmp_path: Path, text: str) -> None:
    spool = tmp_path / "spool"
    spooler.keep(spool, delivery(tmp_path))
    (note,) = spool.glob("*.json")
    note.write_text(text)
    entries, damaged = spooler.waiting(spool)
    assert (entries, damaged) == ([], [note])
    spooler.tidy(spool, NOW + timedelta(days=800))
    assert len(files(spool)) == 2


def test_a_note_without_its_audio_is_told(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spooler.keep(spool, delivery(tmp_path))
    (audio,) = spool.glob("*.audio")
    audio.unlink()
    assert len(spooler.waiting(spool)[1]) == 1


def test_setting_aside_can_be_repeated_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    spooler.keep(spool, delivery(tmp_path))
    (entry,), _ = spooler.waiting(spool)

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(spooler, "drop", crash)
        with pytest.raises(KeyboardInterrupt):
            spooler.set_aside(entry, {"status": 422})
    assert len(spooler.waiting(spool)[0]) == 1
    note = spooler.set_aside(entry, {"status": 422})
    assert json.loads(note.read_text())["refused"] == {"status": 422}
    assert spooler.refused(spool) == 1
    assert spooler.waiting(spool) == ([], [])
    assert len(files(spool)) == 2


@pytest.mark.parametrize(
    "started_at", ["2026-11-24T09:30:00Z", "2090-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "odd"]
)
def test_a_refused_recording_is_not_kept_past_its_year(tmp_path: Path, started_at: str) -> None:
    spool = tmp_path / "spool"
    spooler.keep(spool, delivery(tmp_path, started_at=started_at))
    (entry,), _ = spooler.waiting(spool)
    # What waits is not for this machine's clock to judge.
    assert spooler.tidy(spool, NOW + timedelta(days=3000)) == 0
    age(entry.delivery.path, timedelta())
    note = spooler.set_aside(entry, {"status": 422})
    age(note, timedelta())
    assert spooler.tidy(spool, NOW + timedelta(days=364)) == 0
    assert spooler.tidy(spool, NOW + timedelta(days=366)) == 1
    assert files(spool) == []


def test_the_year_of_a_refused_recording_is_counted_from_its_call(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spooler.keep(spool, delivery(tmp_path, started_at="2026-02-01T09:30:00Z"))
    (entry,), _ = spooler.waiting(spool)
    age(spooler.set_aside(entry, {"status": 422}), timedelta())
    assert spooler.tidy(spool, datetime(2027, 2, 1, 9, 29, tzinfo=UTC)) == 0
    assert spooler.tidy(spool, datetime(2027, 2, 1, 9, 30, tzinfo=UTC)) == 1


def test_a_time_to_come_back_is_seconds_or_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert remote._retry_after("120") == 120
    assert 80 < (remote._retry_after(later) or 0) <= 90
    assert remote._retry_after("soon") is None
    assert remote._retry_after(None) is None
