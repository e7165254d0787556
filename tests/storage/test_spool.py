"""Taking a body in: nothing in clear on the disk, nothing left behind, and no byte that was not
verified given out again.
"""

import asyncio
import errno
import hashlib
import io
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.errors import TooLargeError, UnavailableError
from storage import spool as spooling
from storage.sealing import CHUNK, TAG, DamagedError, Identity, Seal, sealed_length
from storage.spool import SealedFile, SealedReader, Spool

MANY = 40 * CHUNK + 11
"""Many batches."""

NO_LIMIT = 1 << 40


def fresh_seal() -> Seal:
    return Seal.new(Identity(date(2027, 2, 28), uuid4(), UUID(int=2)))


def audio_of(size: int) -> bytes:
    return hashlib.shake_128(b"audio").digest(size)


async def in_pieces(body: bytes, length: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), length):
        yield body[start : start + length]


async def received(directory: Path, body: bytes, length: int = 50_000) -> Spool:
    return await Spool.receive(directory, fresh_seal(), in_pieces(body, length), NO_LIMIT)


def reader(spool: Spool) -> SealedReader:
    return SealedReader(spool.fd, 0, spool.size, spool.seal.reader_keys())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


AROUND = [count * CHUNK + more for count in (1, 2, 3, 4) for more in (-1, 0, 1)]
SIZES = [1, *AROUND, 32 * CHUNK, 33 * CHUNK, MANY]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", [4096, 65_536, 300_001, 1 << 24])
async def test_what_is_received_can_be_read_again(tmp_path: Path, size: int, length: int) -> None:
    body = audio_of(size)
    with await received(tmp_path, body, length) as spool:
        assert spool.size == size
        assert spool.sha256 == hashlib.sha256(body).digest()
        assert os.fstat(spool.fd).st_size == sealed_length(size)
        assert reader(spool).read() == body


async def test_a_body_without_a_byte_is_an_empty_spool(tmp_path: Path) -> None:
    with await received(tmp_path, b"") as spool:
        assert spool.size == 0
        assert reader(spool).read() == b""
        assert list(spool.pieces(b"head")) == [b"head"]


@given(st.integers(1, 3 * CHUNK), st.lists(st.integers(0, 100_000), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_the_lengths_of_the_pieces_make_no_difference(size: int, lengths: list[int]) -> None:
    body = audio_of(size)

    async def pieces() -> AsyncIterator[bytes]:
        at = 0
        for length in lengths:
            yield body[at : at + length]
            at += length
        yield body[at:]

    async def act() -> None:
        with await Spool.receive(Path("/tmp"), fresh_seal(), pieces(), NO_LIMIT) as spool:
            assert reader(spool).read() == body

    asyncio.run(act())


async def test_nothing_of_it_is_on_the_disk_by_name_or_in_clear(tmp_path: Path) -> None:
    body = audio_of(3 * CHUNK)
    with await received(tmp_path, body) as spool:
        assert list(tmp_path.iterdir()) == []
        assert os.fstat(spool.fd).st_nlink == 0
        assert os.fstat(spool.fd).st_mode & 0o777 == 0o600
        stored = os.pread(spool.fd, sealed_length(spool.size), 0)
    assert not any(body[at : at + 16] in stored for at in range(0, len(body), 16))


async def test_too_much_is_refused_as_soon_as_it_is_there(tmp_path: Path) -> None:
    given_out = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given_out
        while True:
            given_out += 1000
            yield bytes(1000)

    before = open_files()
    with pytest.raises(TooLargeError) as refused:
        await Spool.receive(tmp_path, fresh_seal(), endless(), 10_500)
    assert given_out == 11_000
    assert refused.value.extra == {"max_bytes": 10_500}
    assert open_files() == before


async def test_just_as_much_as_is_allowed_is_taken(tmp_path: Path) -> None:
    body = audio_of(10_500)
    with await Spool.receive(tmp_path, fresh_seal(), in_pieces(body, 999), 10_500) as spool:
        assert spool.size == 10_500


async def test_a_sender_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield audio_of(MANY)
        raise ConnectionResetError

    before = open_files()
    with pytest.raises(ConnectionResetError):
        await Spool.receive(tmp_path, fresh_seal(), broken(), NO_LIMIT)
    assert open_files() == before
    assert list(tmp_path.iterdir()) == []


async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        yield audio_of(MANY)
        waiting.set()
        await asyncio.Event().wait()

    before = open_files()
    upload = asyncio.create_task(Spool.receive(tmp_path, fresh_seal(), held(), NO_LIMIT))
    await waiting.wait()
    assert open_files() == before + 1
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert open_files() == before


async def test_a_closed_file_gives_no_descriptor(tmp_path: Path) -> None:
    """The number may be another file's by then."""
    spool = Spool(tmp_path, fresh_seal())
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        _ = spool.fd


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("size", [CHUNK, MANY])
async def test_a_full_disk_is_a_reason_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(spooling.os, "write", _full)
        with pytest.raises(UnavailableError) as refused:
            await received(tmp_path, audio_of(size))
    assert refused.value.retry_after == 60
    assert open_files() == before


async def test_an_error_of_the_disk_is_not_called_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(spooling.os, "write", broken)
        with pytest.raises(OSError, match="Input/output"):
            await received(tmp_path, audio_of(CHUNK))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; where nothing may be mounted, a directory and a write that finds it full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield disk
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        return
    real, written = os.write, 0

    def write(fd: int, data: bytes | memoryview) -> int:
        nonlocal written
        if written + len(data) > 1 << 20:
            _full()
        written += len(data)
        return real(fd, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spooling.os, "write", write)
        yield disk


@pytest.mark.parametrize("size", [20 * CHUNK, 5 << 20])
async def test_a_real_disk_that_is_full_keeps_nothing(small_disk: Path, size: int) -> None:
    with pytest.raises(UnavailableError):
        await received(small_disk, audio_of(size))
    with pytest.raises(UnavailableError):
        await SealedFile.copy(small_disk, in_pieces(bytes(size), CHUNK))
    assert os.statvfs(small_disk).f_bfree > 0
    assert list(small_disk.iterdir()) == []


async def test_resealed_audio_is_the_same_under_other_keys(tmp_path: Path) -> None:
    body = audio_of(9 * CHUNK + 1)
    with await Spool.receive(
        tmp_path, fresh_seal(), in_pieces(body, 70_000), NO_LIMIT, md5=True
    ) as spool:
        with await asyncio.to_thread(spool.reseal, tmp_path, fresh_seal()) as other:
            assert (other.size, other.sha256) == (spool.size, spool.sha256)
            assert other.plain_md5 == spool.plain_md5 == hashlib.md5(body).digest()
            assert reader(other).read() == body
            foreign = SealedReader(other.fd, 0, other.size, spool.seal.reader_keys())
            with pytest.raises(DamagedError):
                foreign.read()


async def test_resealing_what_was_harmed_leaves_nothing(tmp_path: Path) -> None:
    with await received(tmp_path, audio_of(3 * CHUNK)) as spool:
        os.pwrite(spool.fd, b"harm", 2 * CHUNK)
        before = open_files()
        with pytest.raises(DamagedError):
            spool.reseal(tmp_path, fresh_seal())
        assert open_files() == before


async def test_the_md5_of_the_audio_is_there_if_it_was_asked_for(tmp_path: Path) -> None:
    with await received(tmp_path, b"audio") as spool:
        with pytest.raises(ValueError, match="not asked"):
            _ = spool.plain_md5


async def test_the_pieces_are_the_object_and_their_md5_is_told(tmp_path: Path) -> None:
    with await received(tmp_path, audio_of(9 * CHUNK)) as spool:
        whole = b"".join(spool.pieces(b"head"))
        assert whole == b"head" + os.pread(spool.fd, 1 << 24, 0)
        assert len(whole) == 4 + sealed_length(spool.size)
        assert spool.md5(b"head") == hashlib.md5(whole).digest()


async def test_a_file_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    with await received(tmp_path, audio_of(9 * CHUNK)) as spool:
        os.ftruncate(spool.fd, CHUNK)
        with pytest.raises(DamagedError):
            spool.md5(b"")
        with pytest.raises(DamagedError):
            reader(spool).read()


async def test_an_object_from_the_store_is_held_as_it_comes(tmp_path: Path) -> None:
    body = audio_of(2 * CHUNK + 5)
    with await received(tmp_path, body) as spool:
        sealed = b"".join(spool.pieces(b"0123"))
        with await SealedFile.copy(tmp_path, in_pieces(sealed, 1000)) as held:
            keys = spool.seal.reader_keys()
            assert SealedReader(held.fd, 4, len(body), keys).read() == body


async def test_a_copy_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"sealed"
        raise ConnectionResetError

    before = open_files()
    with pytest.raises(ConnectionResetError):
        await SealedFile.copy(tmp_path, broken())
    assert open_files() == before


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_reader_reads_and_seeks_as_a_file_does(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, CHUNK, CHUNK + 1, 3 * CHUNK + 77]))
    body = audio_of(size)
    seal = fresh_seal()
    with SealedFile(Path("/tmp")) as held:
        for start in range(0, size, CHUNK):
            piece = body[start : start + CHUNK]
            held.write(seal.seal_chunk(start // CHUNK, start + CHUNK >= size, piece))
        ours, plain = SealedReader(held.fd, 0, size, seal.reader_keys()), io.BytesIO(body)
        assert ours.readable() and ours.seekable() and not ours.writable()
        for _ in range(data.draw(st.integers(1, 8))):
            whence = data.draw(st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]))
            offset = data.draw(st.integers(0 if whence == os.SEEK_SET else -size, size + 10))
            base = {os.SEEK_SET: 0, os.SEEK_CUR: plain.tell(), os.SEEK_END: size}[whence]
            if base + offset < 0:
                with pytest.raises(ValueError, match="before"):
                    ours.seek(offset, whence)
                continue
            assert ours.seek(offset, whence) == plain.seek(offset, whence)
            wanted = data.draw(st.integers(0, 2 * CHUNK))
            assert ours.read(wanted) == plain.read(wanted)
            assert ours.tell() == plain.tell()


@given(st.integers(0, sealed_length(2 * CHUNK + 9) - 1), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_the_reader_never_gives_out_a_harmed_chunk(position: int, change: int) -> None:
    size = 2 * CHUNK + 9
    body = audio_of(size)
    seal = fresh_seal()
    with SealedFile(Path("/tmp")) as held:
        for start in range(0, size, CHUNK):
            piece = body[start : start + CHUNK]
            held.write(seal.seal_chunk(start // CHUNK, start + CHUNK >= size, piece))
        (byte,) = os.pread(held.fd, 1, position)
        os.pwrite(held.fd, bytes([byte ^ change]), position)
        ours = SealedReader(held.fd, 0, size, seal.reader_keys())
        harmed = position // (CHUNK + TAG)
        for index in range(3):
            ours.seek(index * CHUNK)
            if index == harmed:
                with pytest.raises(DamagedError):
                    ours.read(1)
            else:
                assert ours.read(1) == body[index * CHUNK : index * CHUNK + 1]
