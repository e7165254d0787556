"""`archive cdr import` and `archive gaps`, against the real doors."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app import records
from storage import cdrs
from tests.app.faulty import Faulty, Shell
from tests.services import Service
from tests.web.test_listen import upload

EPOCH = int(datetime.now(UTC).timestamp()) - 3 * 3600


@pytest.fixture
def door(service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Turns the environment to a door, with a key for it."""

    def to(name: str, level: str) -> None:
        monkeypatch.setenv("ARCHIVE_URL", getattr(service, name))
        monkeypatch.setenv("ARCHIVE_TOKEN", service.tokens[level])

    return to


def master(number: int, disposition: str = "ANSWERED") -> str:
    return (
        f'"","0401234567","600","x","","c","d","Queue","","2026-01-01 00:00:00",'
        f'"2026-01-01 00:00:00","2026-01-01 00:00:00",60,55,"{disposition}","DOC",'
        f'"{EPOCH + number}.{number}",""\n'
    )


async def test_records_are_handed_over_and_gaps_are_shown(
    service: Service, door: Any, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_BATCH", 7)
    file = tmp_path / "Master.csv"
    file.write_text("".join(master(number) for number in range(20)) + master(20, "NO ANSWER"))
    door("ingest", "uploader")
    assert await shell("cdr", "import", file, "--json") == 0
    assert shell.facts == {
        "new": 20, "known": 0, "unanswered": 1, "over": 0, "ahead": 0, "wrong": 0
    }  # fmt: skip
    assert await shell("cdr", "import", file) == 0
    assert "new 0, known 20, unanswered 1" in shell.out
    start = datetime.fromtimestamp(EPOCH, UTC).isoformat()
    await upload(service, f"{EPOCH}.0", started_at=start)
    await cdrs.match(service.vault)
    door("operations", "auditor")
    assert await shell("gaps") == 0
    assert "19 of 20 answered calls have no recording, 0 may still get theirs" in shell.out
    assert await shell("gaps", "--source", "another", "--json") == 0
    assert shell.facts["hours"] == []


async def test_a_file_of_any_size_is_sent_in_parts_that_are_taken(
    service: Service, door: Any, shell: Shell, tmp_path: Path
) -> None:
    start = datetime.fromtimestamp(EPOCH, UTC).isoformat()
    call = {"started_at": start, "duration": "9", "log": "x" * 400_000}
    file = tmp_path / "large.json"
    file.write_text(json.dumps([{**call, "call_id": str(number)} for number in range(30)]))
    door("ingest", "uploader")
    assert await shell("cdr", "import", file, "--json") == 0
    assert shell.facts["new"] == 30


async def test_freeswitchs_files_are_read_and_what_is_wrong_is_named(
    service: Service, door: Any, shell: Shell, tmp_path: Path
) -> None:
    good, bad = tmp_path / "a.cdr.json", tmp_path / "b.csv"
    call = {"uuid": "u1", "start_epoch": str(EPOCH), "answer_epoch": str(EPOCH), "duration": "9"}
    good.write_text(json.dumps({"variables": call}))
    bad.write_text("call_id,started_at,duration\n1,2026-11-24 09:30:00,5\n")
    door("ingest", "uploader")
    assert await shell("cdr", "import", good, bad) == 1
    assert "new 1" in shell.out
    assert "b.csv, record 1: its start has no offset" in shell.err


async def test_what_freeswitch_could_not_send_is_read_as_it_lies(
    service: Service, door: Any, shell: Shell, tmp_path: Path
) -> None:
    call = {"start_epoch": str(EPOCH), "answer_epoch": str(EPOCH), "duration": "9"}
    files = [tmp_path / f"{number}.cdr.json" for number in range(3)]
    forms = [str, quote, lambda text: base64.b64encode(text.encode()).decode()]
    for file, form in zip(files, forms, strict=True):
        file.write_text(form(json.dumps({"variables": {**call, "uuid": file.name}})) + "\n")
    door("ingest", "uploader")
    assert await shell("cdr", "import", *files, "--json") == 0
    assert shell.facts["new"] == 3


async def test_a_file_without_records_is_wrong_and_hinders_no_other(
    service: Service, door: Any, shell: Shell, tmp_path: Path
) -> None:
    empty, heading, good = (tmp_path / name for name in ("empty", "heading.csv", "Master.csv"))
    empty.write_text("")
    heading.write_text("call_id,started_at\n")
    good.write_text(master(1))
    door("ingest", "uploader")
    assert await shell("cdr", "import", empty, heading, good) == 1
    assert "wrong 2" in shell.out
    assert "new 1" in shell.out
    assert shell.err.count("holds no records") == 2
    assert "heading.csv" in shell.err


async def test_a_file_that_holds_no_records_is_told(
    service: Service, door: Any, shell: Shell, tmp_path: Path
) -> None:
    door("ingest", "uploader")
    broken = tmp_path / "broken.json"
    broken.write_text("[1,")
    assert await shell("cdr", "import", broken) == 2
    assert await shell("cdr", "import", tmp_path / "absent") == 2
    door("operations", "auditor")
    assert await shell("gaps", "--from", "yesterday") == 2


async def test_an_archive_that_is_away_is_told(archive: Faulty, shell: Shell) -> None:
    assert await shell("gaps", "--retry-for", 0) == 1
    assert shell.err.startswith("archive: ")
