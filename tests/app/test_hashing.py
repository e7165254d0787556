"""The tree over an export: made here or by a process of its own, it is the same."""

from pathlib import Path

import pytest

from app import hashing
from archive import merkle

ENTRIES = [f"entry {number}".encode() for number in range(700)]


@pytest.fixture(params=["here", "by another process"])
def export(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param != "here":
        monkeypatch.setattr(hashing, "_LARGE", 0)
    path = tmp_path / "export"
    path.write_bytes(b"".join(entry + b"\n" for entry in ENTRIES) + b"\nthe checkpoint\n")
    return path


def head(size: int) -> hashing.Head:
    return size, merkle.growth_over(map(merkle.leaf_hash, ENTRIES[:size])).root


def test_the_heads_that_are_asked_for_and_that_of_all(export: Path) -> None:
    with export.open("rb") as file, hashing.hashing(file, [300, 0, 256, 700, 300]) as hashed:
        assert list(hashing.lines(file)) == ENTRIES
        assert file.read() == b"the checkpoint\n"
        assert hashed() == [*map(head, [300, 0, 256, 700, 300]), head(700)]


def test_an_export_that_is_too_short_has_the_head_that_it_reaches(export: Path) -> None:
    with export.open("rb") as file, hashing.hashing(file, [900]) as hashed:
        assert hashed() == [head(700), head(700)]


def test_an_export_without_an_end_is_not_hashed(export: Path) -> None:
    export.write_bytes(b"".join(entry + b"\n" for entry in ENTRIES))
    with (
        export.open("rb") as file,
        hashing.hashing(file, []) as hashed,
        pytest.raises((ValueError, OSError)),
    ):
        hashed()
