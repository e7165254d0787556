"""Figures of `make bench`, small: they can be measured, and one that breaks is told."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from app.embedded import Embedded
from bench import __main__ as whole
from bench import day, erasure, ledger, reconcile, verify
from bench.report import Figure
from bench.stack import Stack


def test_each_archive_has_a_bucket_of_its_own(tmp_path: Path) -> None:
    nobody: Any = None
    servers = Embedded(tmp_path, want_postgres=False, want_s3=False)
    stack = Stack(tmp_path, servers, nobody, nobody)
    buckets = [
        stack.environment(name, "postgresql://localhost/archive")["ARCHIVE_OBJECTS_BUCKET"]
        for name in ("rows_100", "first-byte")
    ]
    assert buckets == ["bench-rows-100", "bench-first-byte"]


@pytest.mark.timeout(600)
async def test_archives_of_several_figures_are_measured_in_one_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, count in ((ledger, 64), (verify, 3000), (day, 100), (erasure, 100)):
        monkeypatch.setattr(module, "COUNT", count)
    monkeypatch.setattr(reconcile, "LARGE", 200)
    # A short path: other processes reach the database's socket by it as well.
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    figures = await whole.measure(["ledger", "verify", "day", "reconcile"], folder)
    assert [each.figure for each in figures if each.broken] == []
    assert [each.unit for each in figures] == [
        *("entries/s", "entries/s", "s", "MB", "objects/s"),
    ]
    assert all(each.value > 0 for each in figures)


def test_a_figure_that_breaks_is_a_no_and_the_others_are_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(_: Stack) -> list[Figure]:
        raise RuntimeError("wrong answers")

    async def holds(_: Stack) -> list[Figure]:
        return [Figure("b", 1, "s", None, None, "none", holds=True)]

    monkeypatch.setattr(whole, "OVER_ONE", {})
    monkeypatch.setattr(whole, "OWN", {"a": breaks, "b": holds})
    monkeypatch.setattr(whole.stack, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "--folder", str(tmp_path)])
    assert whole.main() == 1
    broken, well = json.loads((tmp_path / "build" / "bench.json").read_text())
    assert (broken["holds"], well["holds"]) == (False, True)
    assert broken["figure"].startswith("a: ")
