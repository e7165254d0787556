"""The ring: keys that are there as long as their day, gone for ever after it, and never lost to a
crash between any two steps.
"""

import json
import multiprocessing
import os
import shutil
import signal
import stat
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage import durable
from storage.keyring import KeyRingError, NoDayKeyError, Ring
from storage.root import RootFile

TODAY = date(2026, 11, 24)
DAY = timedelta(days=1)

# Forked from a server without threads, which this process may have.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload([__name__])


def open_ring(folder: Path, *, create: bool = False, today: date = TODAY) -> Ring:
    return Ring.open(
        folder / "keys" / "ring", folder / "device" / "root", create=create, today=lambda: today
    )


def file_of(folder: Path) -> Path:
    return folder / "keys" / "ring" / "ring"


def root_of(folder: Path) -> Path:
    return folder / "device" / "root"


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    """A ring with the keys of today and the next nine days."""
    made = open_ring(tmp_path, create=True)
    made.ensure(TODAY, TODAY + 9 * DAY)
    return made


def read_by_document(folder: Path) -> dict[str, object]:
    """Another reader of the ring, written from docs/format.md."""
    sealed = file_of(folder).read_bytes()
    for line in root_of(folder).read_bytes().splitlines():
        if line.startswith(b"-"):
            continue
        opener = AESGCM(b64decode(line))
        read: dict[str, object] = json.loads(
            opener.decrypt(sealed[:12], sealed[12:], b"call-archive ring 1")
        )
        return read
    raise AssertionError("no root")


# What the keys are


def test_each_day_has_a_key_of_its_own_that_stays(ring: Ring, tmp_path: Path) -> None:
    keys = {day: ring.day_key(day) for day in ring.days()}
    assert list(keys) == [TODAY + count * DAY for count in range(9, -1, -1)]
    assert len(set(keys.values())) == 10
    assert {len(key) for key in keys.values()} == {32}
    again = open_ring(tmp_path)
    assert {day: again.day_key(day) for day in again.days()} == keys
    assert again.id == ring.id


def test_making_days_again_leaves_the_keys_and_the_file_alone(ring: Ring, tmp_path: Path) -> None:
    before, written = ring.day_key(TODAY), file_of(tmp_path).read_bytes()
    ring.ensure(TODAY, TODAY + 9 * DAY)
    assert file_of(tmp_path).read_bytes() == written
    ring.ensure(TODAY, TODAY + 10 * DAY)
    assert ring.day_key(TODAY) == before
    assert ring.days()[0] == TODAY + 10 * DAY


def test_a_day_that_was_never_made_has_no_key(ring: Ring) -> None:
    with pytest.raises(NoDayKeyError):
        ring.day_key(TODAY + 10 * DAY)
    with pytest.raises(NoDayKeyError):
        ring.index_key(TODAY + 10 * DAY)


def test_derived_keys_are_hkdf_as_the_document_says(ring: Ring, tmp_path: Path) -> None:
    lookup = b64decode(str(read_by_document(tmp_path)["lookup"]))
    expected = HKDF(SHA256(), 32, None, b"call-id").derive(lookup)
    assert ring.lookup_key("call-id") == expected != ring.lookup_key("digest")
    key = HKDF(SHA256(), 32, None, b"blind-index").derive(ring.day_key(TODAY))
    assert ring.index_key(TODAY) == ring.index_key(TODAY) == key
    assert ring.index_key(TODAY + DAY) != key


def test_another_reader_opens_the_ring_from_the_document(ring: Ring, tmp_path: Path) -> None:
    read = read_by_document(tmp_path)
    assert set(read) == {"id", "lookup", "days", "destroyed"}
    assert read["id"] == ring.id
    assert read["days"] == {
        day.isoformat(): b64encode(ring.day_key(day)).decode() for day in ring.days()
    }


def test_nobody_else_may_read_the_files(ring: Ring, tmp_path: Path) -> None:
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (
            tmp_path / "keys",
            *file_of(tmp_path).parent.iterdir(),
            tmp_path / "device",
            root_of(tmp_path),
        )
    }
    assert modes == {"keys": 0o700, "ring": 0o600, "device": 0o700, "lock": 0o600, "root": 0o600}
    assert stat.S_IMODE(file_of(tmp_path).parent.stat().st_mode) == 0o700


def test_no_key_lies_in_clear_in_the_ring(ring: Ring, tmp_path: Path) -> None:
    sealed = file_of(tmp_path).read_bytes()
    for day in ring.days():
        assert ring.day_key(day) not in sealed
        assert b64encode(ring.day_key(day)) not in sealed


# The end of a day


def test_a_destroyed_day_is_gone_and_the_others_stay(ring: Ring, tmp_path: Path) -> None:
    kept = {day: ring.day_key(day) for day in ring.days() if day != TODAY}
    lookup = ring.lookup_key("digest")
    tomorrow = open_ring(tmp_path, today=TODAY + DAY)
    before = datetime.now(UTC)
    tomorrow.destroy(TODAY)
    for each in (tomorrow, ring, open_ring(tmp_path)):
        with pytest.raises(NoDayKeyError):
            each.day_key(TODAY)
        with pytest.raises(NoDayKeyError):
            each.index_key(TODAY)
        assert {day: each.day_key(day) for day in each.days()} == kept
        assert each.lookup_key("digest") == lookup
        assert list(each.destroyed()) == [TODAY]
        assert before <= each.destroyed()[TODAY] <= datetime.now(UTC)


def test_a_cached_index_key_goes_with_its_day(ring: Ring, tmp_path: Path) -> None:
    ring.index_key(TODAY)
    open_ring(tmp_path, today=TODAY + DAY).destroy(TODAY)
    with pytest.raises(NoDayKeyError):
        ring.index_key(TODAY)


def test_an_old_copy_of_the_ring_opens_no_more(ring: Ring, tmp_path: Path) -> None:
    old_ring, old_root = file_of(tmp_path).read_bytes(), root_of(tmp_path).read_bytes()
    inode = root_of(tmp_path).stat().st_ino
    open_ring(tmp_path, today=TODAY + DAY).destroy(TODAY)
    assert old_root.splitlines()[0] not in root_of(tmp_path).read_bytes()
    assert root_of(tmp_path).stat().st_ino == inode  # overwritten where it lay
    file_of(tmp_path).write_bytes(old_ring)
    with pytest.raises(KeyRingError, match="does not open"):
        open_ring(tmp_path)


def test_many_days_end_one_after_the_other(ring: Ring, tmp_path: Path) -> None:
    later = open_ring(tmp_path, today=TODAY + 6 * DAY)
    roots = set()
    for count in range(5):
        later.destroy(TODAY + count * DAY)
        text = root_of(tmp_path).read_bytes()
        assert len(text) == 90
        assert text.count(b"-" * 44) == 1
        roots.add(text)
    assert len(roots) == 5
    assert open_ring(tmp_path).days() == [TODAY + count * DAY for count in (9, 8, 7, 6, 5)]


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_a_day_that_is_not_over_is_not_destroyed(ring: Ring, ahead: int) -> None:
    with pytest.raises(KeyRingError, match="not over"):
        ring.destroy(TODAY + ahead * DAY)
    assert ring.day_key(TODAY + ahead * DAY)
    assert ring.destroyed() == {}


def test_destroying_twice_changes_nothing(ring: Ring, tmp_path: Path) -> None:
    later = open_ring(tmp_path, today=TODAY + DAY)
    later.destroy(TODAY)
    written, at = file_of(tmp_path).read_bytes(), later.destroyed()[TODAY]
    later.destroy(TODAY)
    assert later.destroyed()[TODAY] == at
    assert file_of(tmp_path).read_bytes() == written


def test_a_day_without_a_key_is_written_down_as_destroyed(ring: Ring) -> None:
    ring.destroy(TODAY - DAY)
    assert list(ring.destroyed()) == [TODAY - DAY]


def test_what_was_destroyed_is_forgotten_when_it_no_longer_matters(ring: Ring) -> None:
    ring.destroy(TODAY - 801 * DAY)
    assert list(ring.destroyed()) == [TODAY - 801 * DAY]
    ring.destroy(TODAY - 800 * DAY)
    assert list(ring.destroyed()) == [TODAY - 800 * DAY]


# What is refused


def test_a_day_that_is_over_gets_no_key(ring: Ring) -> None:
    with pytest.raises(KeyRingError, match="clocks"):
        ring.ensure(TODAY - 2 * DAY, TODAY)
    ring.ensure(TODAY - DAY, TODAY)
    with pytest.raises(NoDayKeyError):
        ring.day_key(TODAY - DAY)


def test_a_destroyed_day_does_not_come_back_when_the_clock_does(ring: Ring, tmp_path: Path) -> None:
    open_ring(tmp_path, today=TODAY + 2 * DAY).destroy(TODAY + DAY)
    with pytest.raises(KeyRingError, match="clock"):
        ring.ensure(TODAY, TODAY + 20 * DAY)
    with pytest.raises(NoDayKeyError):
        open_ring(tmp_path).day_key(TODAY + DAY)


def test_a_ring_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(KeyRingError, match="restore"):
        open_ring(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_a_lost_ring_is_never_replaced_by_a_new_one(
    ring: Ring, tmp_path: Path, create: bool
) -> None:
    file_of(tmp_path).unlink()
    with pytest.raises(KeyRingError, match="restore"):
        open_ring(tmp_path, create=create)
    with pytest.raises(KeyRingError, match="restore"):
        ring.day_key(TODAY)
    with pytest.raises(KeyRingError, match="restore"):
        ring.ensure(TODAY, TODAY + 20 * DAY)
    shutil.rmtree(file_of(tmp_path).parent)
    with pytest.raises(KeyRingError, match="restore"):
        ring.day_key(TODAY)


@pytest.mark.parametrize("create", [True, False])
def test_a_lost_root_is_told(ring: Ring, tmp_path: Path, create: bool) -> None:
    root_of(tmp_path).unlink()
    with pytest.raises(KeyRingError, match="cannot be used"):
        open_ring(tmp_path, create=create)
    with pytest.raises(KeyRingError, match="cannot be used"):
        ring.ensure(TODAY, TODAY + 20 * DAY)
    assert ring.day_key(TODAY)


def test_nothing_is_written_under_a_root_that_is_not_there(ring: Ring, tmp_path: Path) -> None:
    """The root file was exchanged while the ring was open: its own root is left alone."""
    open_ring(tmp_path / "other", create=True)
    written = file_of(tmp_path).read_bytes()
    shutil.copy(root_of(tmp_path / "other"), root_of(tmp_path))
    foreign = root_of(tmp_path).read_bytes()
    for act in (
        lambda: ring.ensure(TODAY, TODAY + 20 * DAY),
        lambda: ring.destroy(TODAY - DAY),
        lambda: open_ring(tmp_path),
    ):
        with pytest.raises(KeyRingError, match="belong together"):
            act()
    assert file_of(tmp_path).read_bytes() == written
    assert root_of(tmp_path).read_bytes() == foreign


@pytest.mark.parametrize("length", [0, 5, 12, 27, 100])
def test_a_cut_ring_is_told(ring: Ring, tmp_path: Path, length: int) -> None:
    os.truncate(file_of(tmp_path), length)
    with pytest.raises(KeyRingError, match="does not open"):
        open_ring(tmp_path)


def test_a_changed_ring_is_told(ring: Ring, tmp_path: Path) -> None:
    content = bytearray(file_of(tmp_path).read_bytes())
    content[100] ^= 1
    file_of(tmp_path).write_bytes(content)
    with pytest.raises(KeyRingError, match="does not open"):
        ring.day_key(TODAY)


def test_a_place_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(KeyRingError, match="cannot be used"):
        open_ring(tmp_path, create=True)


# Crashes: after every step of the operating system


STEPS = ("mkdir", "open", "write", "pwrite", "fsync", "replace", "unlink")
"""What changes the disk, and what may come between."""


@contextmanager
def stopped_at(number: int, stop: Callable[[], None], *, after: bool) -> Iterator[list[str]]:
    """Call `stop` before or after step `number`; the steps that were taken are collected."""
    taken: list[str] = []

    def watched(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **kwargs: object) -> object:
            taken.append(name)
            if len(taken) == number and not after:
                stop()
            result: object = None
            try:
                result = real(*args, **kwargs)
                return result
            finally:
                if len(taken) == number and after:
                    if name == "open":
                        os.close(result)  # type: ignore[arg-type]
                    stop()

        return step

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, watched(name, getattr(os, name)))
        yield taken


def _fail() -> None:
    raise OSError(28, "No space left on device")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def create(folder: Path) -> None:
    open_ring(folder, create=True)


def ensure(folder: Path) -> None:
    open_ring(folder).ensure(TODAY, TODAY + 20 * DAY)


def destroy(folder: Path) -> None:
    open_ring(folder, today=TODAY + DAY).destroy(TODAY)


ACTS = [create, ensure, destroy]


def prepared(folder: Path, act: Callable[[Path], None]) -> dict[date, bytes]:
    if act is create:
        folder.mkdir()
        return {}
    made = open_ring(folder, create=True)
    made.ensure(TODAY, TODAY + 9 * DAY)
    return {day: made.day_key(day) for day in made.days()}


def check_whole(folder: Path, act: Callable[[Path], None], before: dict[date, bytes]) -> None:
    """The ring opens, every key is as it was, and what was broken off can be done."""
    ring = open_ring(folder, create=act is create)
    gone = set() if TODAY in ring.days() or act is create else {TODAY}
    assert gone == ring.destroyed().keys()
    assert {day: ring.day_key(day) for day in before.keys() - gone} == {
        day: key for day, key in before.items() if day not in gone
    }
    assert root_of(folder).read_bytes().count(b"-" * 44) == 1
    act(folder)
    again = open_ring(folder)
    assert again.id == ring.id
    if act is destroy:
        assert again.destroyed().keys() == {TODAY}
        assert TODAY not in again.days()
    if act is ensure:
        assert again.days()[0] == TODAY + 20 * DAY


def steps_of(folder: Path, act: Callable[[Path], None]) -> list[str]:
    prepared(folder, act)
    with stopped_at(0, _fail, after=False) as taken:
        act(folder)
    return taken


Step = tuple[str, Path]


@contextmanager
def looked_at() -> Iterator[list[Step]]:
    """What is done to which file, in its order: what makes it outlive the machine, and what has to
    come after that. A directory is of a sync, too; of a rename both files are told.
    """
    done: list[Step] = []
    opened: dict[int, Path] = {}
    real = {name: getattr(os, name) for name in ("open", "write", "pwrite", "fsync", "replace")}

    def opening(path: Path, *args: int, **more: int) -> int:
        descriptor: int = real["open"](path, *args, **more)
        opened[descriptor] = Path(path)
        return descriptor

    def on(name: str) -> Callable[..., object]:
        def step(descriptor: int, *args: object) -> object:
            done.append((name, opened[descriptor]))
            return real[name](descriptor, *args)

        return step

    def replacing(source: Path, target: Path) -> None:
        done.extend([("replace", Path(source)), ("by", Path(target))])
        real["replace"](source, target)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "pwrite", "fsync"):
            patch.setattr(os, name, on(name))
        patch.setattr(os, "open", opening)
        patch.setattr(os, "replace", replacing)
        yield done


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_what_counts_is_on_the_disk_before_the_next_step_rests_on_it(
    tmp_path: Path, act: Callable[[Path], None]
) -> None:
    """Only a power cut would tell: everything else reads what the kernel has, synced or not."""
    folder = tmp_path / "ring"
    prepared(folder, act)
    with looked_at() as done:
        act(folder)
    written = [number for number, (name, _) in enumerate(done) if name in ("write", "pwrite")]
    for number in written:
        assert done[number + 1] == ("fsync", done[number][1]), done
    renamed = [number for number, (name, _) in enumerate(done) if name == "replace"]
    for number in renamed:
        before = [name for name, path in done[:number] if path == done[number][1]]
        assert before[-1:] == ["fsync"], done
        assert done[number + 2] == ("fsync", done[number + 1][1].parent), done
    counts = {create: (2, 2), ensure: (1, 1), destroy: (3, 1)}
    assert (len(written), len(renamed)) == counts[act]


def test_a_directory_that_is_made_is_in_the_one_above_it_on_the_disk(tmp_path: Path) -> None:
    with looked_at() as done:
        durable.make_directory(tmp_path / "one" / "two")
    assert done == [("fsync", tmp_path), ("fsync", tmp_path / "one")]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_an_error_at_any_step_leaves_a_ring_that_opens(
    tmp_path: Path, act: Callable[[Path], None], after: bool
) -> None:
    steps = steps_of(tmp_path / "whole", act)
    assert {"fsync", "replace"} < set(steps)
    for number in range(1, len(steps) + 1):
        folder = tmp_path / str(number)
        before = prepared(folder, act)
        # Where a directory was made all the same, making it is no failure.
        with stopped_at(number, _fail, after=after) as taken, suppress(KeyRingError):
            act(folder)
        assert len(taken) == number or taken[number - 1] == "mkdir"
        check_whole(folder, act, before)


def killed(folder: Path, act: Callable[[Path], None], number: int) -> None:
    with stopped_at(number, _kill, after=True):
        act(folder)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_a_kill_at_any_step_leaves_a_ring_that_opens(
    tmp_path: Path, act: Callable[[Path], None]
) -> None:
    steps = steps_of(tmp_path / "whole", act)

    for number in range(1, len(steps) + 1):
        folder = tmp_path / str(number)
        before = prepared(folder, act)
        child = FORK.Process(target=killed, args=(folder, act, number))
        child.start()
        child.join(30)
        assert child.exitcode == -signal.SIGKILL
        check_whole(folder, act, before)


@pytest.mark.parametrize("act", [ensure, destroy], ids=lambda act: act.__name__)
def test_what_is_not_on_the_disk_is_not_in_memory_either(
    tmp_path: Path, act: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that only the memory holds would seal recordings that nobody can open again."""
    before = prepared(tmp_path / "ring", act)
    ring = open_ring(tmp_path / "ring", today=TODAY + DAY)
    doing = {
        ensure: lambda: ring.ensure(TODAY + DAY, TODAY + 20 * DAY),
        destroy: lambda: ring.destroy(TODAY),
    }[act]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: _fail())
        for _ in range(2):
            with pytest.raises(KeyRingError, match="No space"):
                doing()
    assert {day: ring.day_key(day) for day in ring.days()} == before
    assert ring.destroyed() == {}
    doing()
    assert open_ring(tmp_path / "ring").days() == ring.days()


def go_on(ring: Ring) -> None:
    ring.ensure(TODAY + DAY, TODAY + 20 * DAY)


@pytest.mark.parametrize("act", [go_on, Ring.days, lambda ring: ring.destroy(TODAY)])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same", "another"])
def test_no_root_is_wiped_before_the_name_of_the_new_ring_is_on_the_disk(
    ring: Ring, tmp_path: Path, act: Callable[[Ring], object], elsewhere: bool
) -> None:
    """Who broke the destruction off had renamed it; a power cut may bring back the old one."""
    later = open_ring(tmp_path, today=TODAY + DAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "sync_directory", lambda _: _fail())
        with pytest.raises(KeyRingError, match="No space"):
            later.destroy(TODAY)
    with looked_at() as done:
        act(open_ring(tmp_path, today=TODAY + DAY) if elsewhere else later)
    synced = done.index(("fsync", file_of(tmp_path).parent))
    assert synced < done.index(("pwrite", root_of(tmp_path))), done


def test_keys_whose_ring_may_not_have_its_name_on_the_disk_seal_nothing(
    ring: Ring, tmp_path: Path
) -> None:
    other = open_ring(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "sync_directory", lambda _: _fail())
        with pytest.raises(KeyRingError, match="No space"):
            ring.ensure(TODAY, TODAY + 20 * DAY)
        for each in (ring, other):
            with pytest.raises(KeyRingError, match="No space"):
                each.day_key(TODAY + 20 * DAY)
    assert ring.day_key(TODAY + 20 * DAY) == other.day_key(TODAY + 20 * DAY)


def test_a_wipe_whose_sync_failed_is_done_again(tmp_path: Path) -> None:
    """It reads as wiped, by the kernel's memory; to sync it once more would write nothing."""
    steps = steps_of(tmp_path / "whole", destroy)
    assert steps[-2:] == ["pwrite", "fsync"]
    folder = tmp_path / "ring"
    prepared(folder, destroy)
    with (
        stopped_at(len(steps), _fail, after=False),
        pytest.raises(KeyRingError, match="No space"),
    ):
        destroy(folder)
    assert root_of(folder).read_bytes().count(b"-" * 44) == 1
    with looked_at() as done:
        destroy(folder)
    assert done[-2:] == [("pwrite", root_of(folder)), ("fsync", root_of(folder))]


@pytest.mark.parametrize("cut", [0, 1, 20, 43, 44])
def test_a_root_that_was_half_written_is_no_root(ring: Ring, tmp_path: Path, cut: int) -> None:
    """The machine stops while a place of the root file is written: as a new root, and as wiped."""
    text = root_of(tmp_path).read_bytes()
    fresh = b64encode(bytes(32)) + b"\n"
    root_of(tmp_path).write_bytes(text[:45] + fresh[:cut] + text[45 + cut :])
    assert open_ring(tmp_path).days() == ring.days()
    half_wiped = b"-" * cut + fresh[cut:]
    root_of(tmp_path).write_bytes(text[:45] + half_wiped)
    assert open_ring(tmp_path).days() == ring.days()
    assert root_of(tmp_path).read_bytes() == text  # a piece of a root can be guessed from
    open_ring(tmp_path, today=TODAY + DAY).destroy(TODAY)
    assert open_ring(tmp_path).days() == ring.days()


@pytest.mark.parametrize("written", ["{0}\n{0}\n", "{0}\n", "{0}", "{0}\r\n"])
def test_a_root_that_was_put_back_by_hand_is_one_root(
    ring: Ring, tmp_path: Path, written: str
) -> None:
    line = root_of(tmp_path).read_text().splitlines()[0]
    root_of(tmp_path).write_text(written.format(line), newline="")
    open_ring(tmp_path, today=TODAY + DAY).destroy(TODAY)
    assert open_ring(tmp_path).days() == ring.days()
    assert TODAY not in ring.days()
    assert line not in root_of(tmp_path).read_text()


def broken_off(folder: Path) -> bytes:
    """Destroy today's key, and have it broken off before the old root is wiped; that root."""
    old_root = root_of(folder).read_bytes().splitlines()[0]
    real = durable.overwrite

    def no_wiping(path: Path, position: int, content: bytes) -> None:
        _fail() if content.startswith(b"-") else real(path, position, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "overwrite", no_wiping)
        with pytest.raises(KeyRingError):
            destroy(folder)
    assert old_root in root_of(folder).read_bytes()
    return old_root


def test_a_rotation_broken_off_elsewhere_is_finished_by_who_is_running(
    ring: Ring, tmp_path: Path
) -> None:
    old_root = broken_off(tmp_path)
    ring.ensure(TODAY + DAY, TODAY + 20 * DAY)
    assert old_root not in root_of(tmp_path).read_bytes()


def test_a_root_that_cannot_be_wiped_leaves_its_day_open_and_stops_nothing_else(
    ring: Ring, tmp_path: Path
) -> None:
    """Broken off, and its device only reads from then on: neither place of the root is free."""
    old_root = broken_off(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "overwrite", lambda *_: _fail())
        later = open_ring(tmp_path, today=TODAY + DAY)
        assert later.day_key(TODAY + DAY) == ring.day_key(TODAY + DAY)
        later.ensure(TODAY + DAY, TODAY + 20 * DAY)
        for day in (TODAY, TODAY - DAY):
            with pytest.raises(KeyRingError, match="No space"):
                later.destroy(day)
    assert open_ring(tmp_path).days()[0] == TODAY + 20 * DAY
    assert later.destroy(TODAY) == ring.destroyed()[TODAY]
    assert old_root not in root_of(tmp_path).read_bytes()


def test_a_destruction_after_which_an_old_copy_opens_is_none(
    ring: Ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is asked for again, until the old root is wiped."""
    with monkeypatch.context() as patched:
        patched.setattr(RootFile, "keep", lambda self, root, again=False: None)
        for _ in range(2):
            with pytest.raises(KeyRingError, match="old copy"):
                open_ring(tmp_path, today=TODAY + DAY).destroy(TODAY)
    old_root = root_of(tmp_path).read_bytes()
    assert open_ring(tmp_path, today=TODAY + DAY).destroy(TODAY) == ring.destroyed()[TODAY]
    assert old_root.count(b"-" * 44) == 0
    assert root_of(tmp_path).read_bytes().count(b"-" * 44) == 1


# Several at once


def _make_days(folder: Path, first: int) -> None:
    ring = open_ring(folder)
    for count in range(first, first + 20):
        ring.ensure(TODAY + count * DAY, TODAY + count * DAY)


def _destroy_days(folder: Path) -> None:
    ring = open_ring(folder, today=TODAY + 10 * DAY)
    for count in range(8):
        ring.destroy(TODAY + count * DAY)


def test_two_processes_lose_nothing_of_each_other(ring: Ring, tmp_path: Path) -> None:
    left = {TODAY + count * DAY: ring.day_key(TODAY + count * DAY) for count in (8, 9)}
    children = [
        FORK.Process(target=_make_days, args=(tmp_path, 100)),
        FORK.Process(target=_make_days, args=(tmp_path, 110)),
        FORK.Process(target=_destroy_days, args=(tmp_path,)),
    ]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        assert ring.day_key(TODAY + 9 * DAY) == left[TODAY + 9 * DAY]
        assert ring.lookup_key("digest")
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    made = {TODAY + count * DAY for count in range(100, 130)}
    assert set(ring.days()) == left.keys() | made
    assert {day: ring.day_key(day) for day in left} == left
    assert len(ring.destroyed()) == 8


def test_two_processes_that_start_make_one_ring(tmp_path: Path) -> None:
    children = [FORK.Process(target=create, args=(tmp_path,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert open_ring(tmp_path).id


def test_threads_share_a_ring(ring: Ring, tmp_path: Path) -> None:
    shared = open_ring(tmp_path, today=TODAY + 9 * DAY)
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                assert shared.index_key(TODAY + 9 * DAY)
                assert shared.days()
        except BaseException as error:
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    for count in range(8):
        shared.destroy(TODAY + count * DAY)
        shared.ensure(TODAY + (10 + count) * DAY, TODAY + (10 + count) * DAY)
    done.set()
    for thread in readers:
        thread.join()
    assert faults == []
    assert shared.days() == [TODAY + count * DAY for count in range(17, 7, -1)]


def test_index_keys_are_those_of_the_living_days_alone(ring: Ring, tmp_path: Path) -> None:
    later = open_ring(tmp_path, today=TODAY + DAY)
    later.destroy(TODAY)
    asked = [TODAY, TODAY + DAY, TODAY + 400 * DAY]
    assert ring.index_keys(asked) == {TODAY + DAY: ring.index_key(TODAY + DAY)}
