"""`archive import`: from a directory, a CSV and a bucket, broken off and gone on with, or told."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.objects import ObjectStore
from tests.app.faulty import Faulty, Shell, answers, problem
from tests.app.test_watch import NOW, named, told
from tests.services import Service
from tests.sounds import tone
from tests.stores.servers import Server

OLD = int((datetime.now(UTC) - timedelta(days=400)).timestamp())
TYPE = ("--call-type", "other")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    return folder


def facts(shell: Shell) -> tuple[dict[str, str], dict[str, Any]]:
    """Why each file was refused, and the counts at the end."""
    *lines, last = told(shell)
    return {line["file"]: line["reason"] for line in lines}, last


async def test_a_dry_run_says_what_the_archive_then_does(
    to_real: Service, shell: Shell, old: Path
) -> None:
    for number in range(3):
        (old / named(number)).write_bytes(tone(0.05, pitch=400 + number))
    (old / named(9).replace(str(NOW), str(OLD))).write_bytes(tone(0.05))
    (old / named(10)).write_bytes(b"no audio at all")
    (old / named(11)).write_bytes(b"")
    (old / "nothing in its name.wav").write_bytes(tone(0.05))
    assert await shell("import", old, *TYPE, "--dry-run", "--json") == 1
    said, end = facts(shell)
    assert end["counts"] == {"would be sent": 3, "refused": 4}
    assert await to_real.rows() == []
    assert await shell("import", old, *TYPE, "--json") == 1
    done, end = facts(shell)
    assert end["counts"] == {"sent": 3, "refused": 4}
    assert said.keys() == done.keys()
    past = next(why for name, why in done.items() if str(OLD) in name)
    assert "may no longer be kept" in past
    assert "may no longer be kept" in said[next(name for name in said if str(OLD) in name)]
    assert len(await to_real.rows()) == 3
    # Everything is still there, and a second run sends and asks nothing.
    assert len(list(old.iterdir())) == 7
    assert await shell("import", old, *TYPE, "--json") == 1
    again, end = facts(shell)
    assert end["counts"] == {"sent before": 3, "refused": 4}
    assert again == done


async def test_a_dry_run_for_people_counts_the_reasons(shell: Shell, old: Path) -> None:
    for number in range(3):
        (old / named(number)).write_bytes(b"no audio at all")
    (old / named(4)).write_bytes(tone(0.05))
    (old / named(4, "out")).write_bytes(tone(0.05))
    assert await shell("import", old, *TYPE, "--dry-run", "--state", old / ".state") == 1
    assert "        3  These bytes are no audio format" in shell.out
    assert "        1  another file is the same call" in shell.out
    assert "refused 4, would be sent 1" in shell.out


async def test_an_import_that_is_killed_goes_on_where_it_was(
    archive: Faulty, old: Path, tmp_path: Path, shell: Shell
) -> None:
    for number in range(60):
        (old / named(number)).write_bytes(bytes([number]))
    words = ["import", str(old), *TYPE, "--state", str(tmp_path / "s"), "--parallel", "2"]
    code = f"import sys; from app import cli; sys.argv = ['archive', *{words!r}]; cli.main()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    from tests.app.test_watch import until

    await until(lambda: len(archive.order) >= 20)
    child.kill()
    child.wait()
    assert await shell(*words, "--json") == 0
    _, end = facts(shell)
    assert end["counts"]["sent before"] >= 15
    assert len(archive.kept) == 60
    assert len(archive.order) <= 62


async def test_an_archive_that_goes_away_breaks_it_off_and_nothing_is_forgotten(
    archive: Faulty, shell: Shell, old: Path
) -> None:
    for number in range(9):
        (old / named(number)).write_bytes(bytes([number]))
    archive.faults += [answers(problem(503, "Not just now")) for _ in range(3)]
    words = ("import", old, *TYPE, "--json", "--parallel", 1, "--retry-for", 0)
    assert await shell(*words) == 1
    assert facts(shell)[1]["stopped"]
    assert archive.kept == {}
    assert await shell(*words) == 0
    assert len(archive.kept) == 9


async def test_a_key_that_is_not_taken_breaks_it_off(
    archive: Faulty, shell: Shell, old: Path
) -> None:
    for number in range(9):
        (old / named(number)).write_bytes(bytes([number]))
    archive.faults.append(answers(problem(403, "This key may not do this")))
    assert await shell("import", old, *TYPE, "--parallel", 1) == 1
    assert "broken off: This key may not do this" in shell.out
    assert len(archive.seen) == 1


async def test_the_rows_of_a_csv_name_files_and_say_what_is_known(
    archive: Faulty, shell: Shell, old: Path
) -> None:
    (old / "audio").mkdir()
    (old / "audio" / "x 1.wav").write_bytes(b"one")
    (old / "audio" / "2.wav").write_bytes(b"two")
    table = old / "calls.csv"
    table.write_text(
        "file;id;begin;from;type\n"
        "audio/x 1.wav;17;2026-11-24 09:30:00;040 123;service\n"
        "audio/2.wav;18;24.11.2026;;service\n"
        "audio/absent.wav;19;2026-11-24 09:30:00;;service\n"
    )
    reading = ("--map", "call_id=id", "--map", "started_at=begin", "--map", "caller=from")
    reading += ("--map", "call_type=type", "--value", "call_type:service=customer_service")
    words = ("import", table, *reading, "--zone", "Europe/Helsinki", "--json")
    assert await shell(*words) == 1
    refused, end = facts(shell)
    assert end["counts"] == {"sent": 1, "refused": 2}
    assert refused == {
        "audio/2.wav": "its start is not a time",
        "audio/absent.wav": "it is gone",
    }
    assert archive.kept["17"] == (
        hashlib.sha256(b"one").hexdigest(),
        {
            "call_type": "customer_service",
            "started_at": "2026-11-24T09:30:00+02:00",
            "caller": "040 123",
        },
    )
    # A row that was put right is tried again.
    table.write_text(table.read_text().replace("24.11.2026", "2026-11-24 10:00:00"))
    assert await shell(*words) == 1
    assert facts(shell)[1]["counts"] == {"sent before": 1, "sent": 1, "refused": 1}


async def test_a_bucket_is_imported_with_its_sidecars(
    archive: Faulty,
    shell: Shell,
    rclone_server: Server,
    rclone_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    async def put(key: str, content: bytes) -> None:
        md5 = hashlib.md5(content).digest()
        await rclone_store.put(key, [content], len(content), md5, 30)

    start = {"startTime": "2026-11-24T09:30:00.000+0200", "ani": "+358401234567"}
    await put("calls/1/a.opus", b"one")
    await put("calls/1/a.opus_metadata.json", json.dumps(start).encode())
    await put("calls/2/b.opus", b"two")
    await put("elsewhere/c.opus", b"three")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", rclone_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", rclone_server.secret_key)
    bucket = rclone_store._bucket._path.strip("/")
    words = ("import", f"s3://{bucket}/calls/", "--endpoint", rclone_server.endpoint, "--json")
    words += ("--names", "stem", "--sidecar", "{name}_metadata.json", *TYPE)
    words += ("--map", "started_at=startTime", "--map", "caller=ani")
    assert await shell(*words) == 1
    refused, end = facts(shell)
    assert end["counts"] == {"sent": 1, "refused": 1}
    assert refused == {"calls/2/b.opus": "its sidecar is not there"}
    assert archive.kept["a"][0] == hashlib.sha256(b"one").hexdigest()
    assert archive.kept["a"][1]["caller"] == "+358401234567"
    absent = ("import", "s3://is-not-there/x", "--endpoint", rclone_server.endpoint, *TYPE)
    assert await shell(*absent) == 2
    assert await shell("import", "s3://x/y", *TYPE) == 2


async def test_its_memory_does_not_grow_with_the_rows(
    shell: Shell, old: Path, tmp_path: Path
) -> None:
    (old / "a.wav").write_bytes(tone(0.05))

    async def peak(count: int) -> int:
        table = old / f"{count}.csv"
        with table.open("w") as file:
            file.write("file,call_id,started_at\n")
            for number in range(count):
                # Half of them past their year, and each listed.
                file.write(f"a.wav,call-{number},{NOW if number % 2 else OLD}\n")
        tracemalloc.start()
        words = ("import", table, *TYPE, "--dry-run", "--state", tmp_path / "s", "--parallel", 1)
        with (tmp_path / "out").open("w") as out, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            assert await shell(*words) == 1
        peaked = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peaked

    await peak(100)
    small, large = await peak(500), await peak(4000)
    assert large < small + 300_000


@pytest.mark.parametrize("words", [("absent",), ("calls.csv",)])
async def test_wrong_words_are_told(
    archive: Faulty, shell: Shell, old: Path, words: tuple[str, ...]
) -> None:
    (old / "calls.csv").write_text("path\nx.wav\n")
    assert await shell("import", old / words[0], *TYPE) == 2
    assert shell.err.startswith("archive: ")
    assert os.environ["ARCHIVE_TOKEN"] not in shell.err
