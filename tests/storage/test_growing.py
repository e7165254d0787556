"""The file of an upload in parts: whatever a crash leaves, what was kept reads back, no more."""

import asyncio
import errno
import os
import random
import secrets
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive.errors import UnavailableError
from storage.growing import FRAME, GrowingFile, Mark
from storage.sealing import NONCE, DamagedError

KEY = secrets.token_bytes(32)


async def write(path: Path, mark: Mark, *pieces: bytes, key: bytes = KEY) -> Mark:
    """Open the file, add pieces, keep them."""
    file = GrowingFile(path, key, mark)
    try:
        for piece in pieces:
            file.add(piece)
        return await file.keep()
    finally:
        file.close()


async def read(path: Path, mark: Mark, key: bytes = KEY) -> bytes:
    file = GrowingFile(path, key, mark)
    try:
        return b"".join([piece async for piece in file.pieces()])
    finally:
        file.close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.integers(0, 2 * FRAME + 5), max_size=3), max_size=4))
def test_what_was_added_in_any_parts_reads_back(tmp_path: Path, sizes: list[list[int]]) -> None:
    path = tmp_path / secrets.token_hex(8)
    expected, mark = b"", Mark()
    for parts in sizes:
        pieces = [random.randbytes(size) for size in parts]
        mark = asyncio.run(write(path, mark, *pieces))
        expected += b"".join(pieces)
        assert mark.size == len(expected)
    if sizes:
        assert path.stat().st_size == mark.stored
        assert asyncio.run(read(path, mark)) == expected


async def test_a_crash_at_any_byte_leaves_what_was_kept(tmp_path: Path) -> None:
    """What was being written behind the mark may be there in part, whole, or as anything else."""
    path = tmp_path / "upload"
    kept, lost, then = (secrets.token_bytes(size) for size in (700, 300, 500))
    mark = await write(path, Mark(), kept)
    await write(path, mark, lost)
    whole = path.read_bytes()
    for end in range(mark.stored, len(whole) + 1):
        for tail in (whole[mark.stored : end], secrets.token_bytes(end - mark.stored)):
            path.write_bytes(whole[: mark.stored] + tail)
            assert await read(path, mark) == kept
            assert path.stat().st_size == mark.stored
            after = await write(path, mark, then)
            assert await read(path, after) == kept + then


async def test_what_a_full_disk_left_over_is_kept_in_frames_that_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room again when what is here is kept: a longer frame could never be read."""
    body = random.randbytes(2 * FRAME + 5)
    file, written = GrowingFile(tmp_path / "file", KEY, Mark()), os.pwrite

    def full(*_: object) -> int:
        monkeypatch.setattr(os, "pwrite", written)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UnavailableError):
        file.add(body)
    mark = await file.keep()
    file.close()
    assert mark.size == len(body)
    assert await read(tmp_path / "file", mark) == body


async def test_no_nonce_is_used_twice_where_a_crash_was(tmp_path: Path) -> None:
    """The same place written again, with other bytes: two ciphertexts under one nonce tell both."""
    path = tmp_path / "upload"
    nonces = set()
    for _ in range(50):
        await write(path, Mark(), secrets.token_bytes(100))
        nonces.add(path.read_bytes()[:NONCE])
    assert len(nonces) == 50


async def test_what_was_changed_moved_or_left_out_does_not_read(tmp_path: Path) -> None:
    path, mark, ends = tmp_path / "upload", Mark(), [0]
    for _ in range(3):
        mark = await write(path, mark, secrets.token_bytes(100))
        ends.append(mark.stored)
    whole = path.read_bytes()
    first, second, third = (whole[a:b] for a, b in pairwise(ends))
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(DamagedError):
            await read(path, mark)
    for other in (second + first + third, first + first + third, first + third + second):
        path.write_bytes(other)
        with pytest.raises(DamagedError):
            await read(path, mark)
    path.write_bytes(whole[:-1])
    with pytest.raises(DamagedError):
        await read(path, mark)
    path.write_bytes(whole)
    with pytest.raises(DamagedError):
        await read(path, mark, secrets.token_bytes(32))


async def test_a_file_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    mark = await write(tmp_path / "upload", Mark(), b"kept")
    os.unlink(tmp_path / "upload")
    with pytest.raises(FileNotFoundError):
        GrowingFile(tmp_path / "upload", KEY, mark)
