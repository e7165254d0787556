"""`archive watch` against the real service, and against one that fails on purpose."""

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.app.faulty import TOKEN, Faulty, Shell, answers, cut, garbage, problem
from tests.services import Service
from tests.sounds import tone

TELEPHONY = Path(__file__).parents[2] / "docs/telephony"

NOW = int((datetime.now(UTC) - timedelta(hours=1)).timestamp())


CHILDREN: "list[subprocess.Popen[bytes]]" = []


@pytest.fixture(autouse=True)
def no_child_outlives_its_test() -> Iterator[None]:
    """Also of a test that failed."""
    yield
    while CHILDREN:
        child = CHILDREN.pop()
        child.kill()
        child.wait()


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


def named(number: int, kind: str = "in") -> str:
    return f"{kind}-0451112222-+35840{number:07}-20300101-000000-{NOW}.{number}.wav"


async def watch(shell: Shell, drop: Path, *more: object, quiet: float = 0) -> int:
    words = ("watch", drop, "--quiet", quiet, "--once", "--json", "--retry-for", "5", *more)
    return await shell(*words)


def told(shell: Shell) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shell.out.splitlines()]


def listed(shell: Shell) -> Any:
    return json.loads(shell.out)


TYPE = ("--call-type", "fault_report")


async def test_freepbx_files_arrive_whole_with_their_start_and_numbers(
    to_real: Service, shell: Shell, drop: Path
) -> None:
    day = drop / "2026" / "11" / "24"
    day.mkdir(parents=True)
    audio = tone(pitch=500)
    (day / named(7)).write_bytes(audio)
    assert await watch(shell, drop, *TYPE) == 0
    (facts,) = told(shell)
    assert (facts["file"], facts["status"]) == (f"2026/11/24/{named(7)}", "stored")
    found = await (await to_real.get(f"/v1/recordings/{facts['receipt']['id']}")).json()
    assert found["call_id"] == f"{NOW}.7"
    assert datetime.fromisoformat(found["started_at"]) == datetime.fromtimestamp(NOW, UTC)
    assert (found["direction"], found["caller"], found["callee"]) == (
        "inbound",
        "+358400000007",
        "+358451112222",
    )
    heard = await to_real.get(f"/v1/recordings/{facts['receipt']['id']}/audio")
    assert await heard.read() == audio
    assert (day / named(7)).exists()
    # Nothing is sent twice, also by a watcher that starts anew.
    assert await watch(shell, drop, *TYPE) == 0
    assert told(shell) == []


async def test_hundreds_of_files_are_drained_and_removed(
    to_real: Service, shell: Shell, drop: Path
) -> None:
    audio = tone(0.02)
    for number in range(400):
        (drop / named(number)).write_bytes(audio + number.to_bytes(4, "big"))
    assert await watch(shell, drop, *TYPE, "--delete-after", "--parallel", 8) == 0
    assert len(told(shell)) == 400
    assert list(drop.iterdir()) == []
    rows = await to_real.rows()
    assert len(rows) == 400
    assert {row["state"] for row in rows} == {"stored"}


async def test_two_watchers_of_one_directory_lose_and_double_nothing(
    to_real: Service, drop: Path, tmp_path: Path
) -> None:
    for number in range(60):
        (drop / named(number)).write_bytes(tone(0.02) + bytes([number]))
    children = [
        # Other machines do not share the lock: one that is never given stands for them.
        start(drop, tmp_path / f"state{number}", "--once", "--delete-after", lockless=True)
        for number in range(2)
    ]
    ends = [await asyncio.to_thread(child.wait, 60) for child in children]
    assert ends == [0, 0]
    assert list(drop.iterdir()) == []
    assert len(await to_real.rows()) == 60


async def test_the_second_watcher_on_a_machine_ends_at_once(
    archive: Faulty, shell: Shell, drop: Path
) -> None:
    from app.folder import Folder

    with Folder(drop) as first:
        assert first.lock()
        assert await watch(shell, drop, *TYPE) == 1
    assert "another watcher" in shell.err


def start(drop: Path, state: Path, *more: str, lockless: bool = False) -> "subprocess.Popen[bytes]":
    """A watcher as a process of its own, which a test may kill."""
    words = ["watch", str(drop), "--state", str(state), "--quiet", "0", *TYPE, *more]
    code = "import sys; from app import cli, folder\n"
    code += "folder.Folder.lock = lambda self: True\n" if lockless else ""
    code += f"sys.argv = ['archive', *{words!r}]\ncli.main()\n"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    CHILDREN.append(child)
    return child


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.02)


async def test_a_watcher_that_is_killed_again_and_again_loses_and_doubles_nothing(
    to_real: Service, drop: Path, tmp_path: Path
) -> None:
    for number in range(120):
        (drop / named(number)).write_bytes(tone(0.02) + bytes([number]))
    for left in (100, 60, 20):
        child = start(drop, tmp_path / "state", "--delete-after")
        await until(lambda: len(list(drop.iterdir())) <= left)  # noqa: B023
        child.kill()
        await asyncio.to_thread(child.wait, 30)
    child = start(drop, tmp_path / "state", "--delete-after", "--once")
    assert await asyncio.to_thread(child.wait, 60) == 0
    rows = await to_real.rows()
    assert len(rows) == 120
    assert {row["state"] for row in rows} == {"stored"}


async def test_sigterm_ends_it_well_and_a_new_file_is_seen_while_it_runs(
    archive: Faulty, drop: Path, tmp_path: Path
) -> None:
    child = start(drop, tmp_path / "state")
    (drop / named(1)).write_bytes(b"one")
    await until(lambda: f"{NOW}.1" in archive.kept)
    (drop / named(2)).write_bytes(b"two")
    await until(lambda: f"{NOW}.2" in archive.kept)
    child.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(child.wait, 30) == 0


async def test_a_file_is_quiet_only_after_a_while_without_a_change(tmp_path: Path) -> None:
    from app.folder import Folder, Quiet

    file = tmp_path / "a.wav"
    file.write_bytes(b"1")
    quiet = Quiet()

    def asked(now: float) -> float:
        quiet.begin()
        with Folder(tmp_path) as folder:
            (seen,) = folder.files()
        return quiet.for_how_long(seen, now)

    # An old time in the file proves nothing: it may be a copy's, or another machine's clock.
    os.utime(file, (1, 1))
    assert [asked(now) for now in (100, 105, 109)] == [0, 5, 9]
    file.write_bytes(b"12")
    assert [asked(now) for now in (110, 119)] == [0, 9]
    os.utime(file, (5, 5))
    assert asked(120) == 0
    quiet.begin()
    assert asked(130) == 0


async def test_a_file_that_is_open_for_writing_is_not_sent_however_quiet(
    archive: Faulty, drop: Path, tmp_path: Path
) -> None:
    """A paused call: Asterisk writes nothing, and keeps the file open."""
    (drop / named(2)).write_bytes(b"done")
    with (drop / named(1)).open("wb") as paused:
        paused.write(b"the first half")
        paused.flush()
        child = start(drop, tmp_path / "state")
        await until(lambda: f"{NOW}.2" in archive.kept)
        assert f"{NOW}.1" not in archive.kept
        paused.write(b" and the second")
    await until(lambda: f"{NOW}.1" in archive.kept)
    child.terminate()
    await asyncio.to_thread(child.wait, 30)
    assert archive.kept[f"{NOW}.1"][0] == sha256(b"the first half and the second")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_a_file_that_grew_after_it_was_sent_is_refused_once_and_stays(
    to_real: Service, shell: Shell, drop: Path
) -> None:
    file = drop / named(1)
    file.write_bytes(tone(0.1))
    assert await watch(shell, drop, *TYPE) == 0
    with file.open("ab") as more:
        more.write(tone(0.1)[44:])
    for _ in range(2):
        assert await watch(shell, drop, *TYPE) == 1
    assert told(shell) == []
    assert await shell("watch", drop, "--list", "--json", *TYPE) == 0
    (settled,) = listed(shell)["settled"]
    assert (settled["file"], settled["fate"]) == (named(1), "refused")
    assert "409" in settled["reason"]
    assert file.stat().st_size > len(tone(0.1))


async def test_a_file_that_changes_while_it_is_sent_is_not_removed(
    archive: Faulty, shell: Shell, drop: Path
) -> None:
    file = drop / named(1)
    file.write_bytes(b"as it was")

    async def append(request: Any) -> None:
        with file.open("ab") as more:
            more.write(b", and more")

    archive.faults.append(append)
    assert await watch(shell, drop, *TYPE, "--delete-after") == 1
    assert file.read_bytes() == b"as it was, and more"
    fates = [facts["status"] for facts in told(shell)]
    assert fates == ["stored", "refused"]


@pytest.mark.parametrize("status", [409, 410, 413, 415, 422])
async def test_what_is_refused_for_good_stays_is_listed_and_is_asked_once(
    archive: Faulty, shell: Shell, drop: Path, status: int
) -> None:
    (drop / named(1)).write_bytes(b"one")
    archive.faults.append(answers(problem(status, "No")))
    assert await watch(shell, drop, *TYPE, "--delete-after") == 1
    assert await watch(shell, drop, *TYPE, "--delete-after") == 1
    assert len(archive.seen) == 1
    assert (drop / named(1)).read_bytes() == b"one"
    assert await shell("watch", drop, "--list", *TYPE) == 0
    assert f"{named(1)}  refused  No ({status}). Do this then." in shell.out
    assert await watch(shell, drop, *TYPE, "--delete-after", "--again") == 0
    assert list(drop.iterdir()) == []


async def test_bytes_that_do_not_arrive_as_they_were_read_are_sent_three_times(
    archive: Faulty, shell: Shell, drop: Path
) -> None:
    (drop / named(1)).write_bytes(b"one")
    archive.faults += [answers(problem(400, "Other bytes")) for _ in range(5)]
    assert await watch(shell, drop, *TYPE) == 1
    assert len(archive.seen) == 3


async def test_a_key_that_is_not_taken_blames_no_file(
    archive: Faulty, shell: Shell, drop: Path
) -> None:
    for number in range(9):
        (drop / named(number)).write_bytes(bytes([number]))
    archive.faults.append(answers(problem(401, "A valid key is needed")))
    assert await watch(shell, drop, *TYPE, "--delete-after", "--parallel", 1) == 1
    assert len(archive.seen) == 1
    assert "A valid key is needed" in shell.err
    assert len(list(drop.iterdir())) == 9
    assert await watch(shell, drop, *TYPE, "--delete-after") == 0
    assert len(archive.kept) == 9


async def test_an_archive_that_is_away_costs_nothing_but_time(
    archive: Faulty, drop: Path, tmp_path: Path
) -> None:
    for number in range(20):
        (drop / named(number)).write_bytes(bytes([number]))
    for _ in range(6):
        archive.faults += [answers(problem(503, "Not just now", retry_after="0")), cut]
    child = start(drop, tmp_path / "state", "--delete-after", "--retry-for", "0")
    await until(lambda: len(archive.kept) == 20)
    await until(lambda: not list(drop.iterdir()))
    child.terminate()
    assert await asyncio.to_thread(child.wait, 30) == 0
    assert len(archive.order) == 20


async def test_a_directory_that_fills_while_it_is_drained_is_drained(
    archive: Faulty, shell: Shell, drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app import backlog

    monkeypatch.setattr(backlog, "MOST", 5)
    for number in range(12):
        (drop / named(number)).write_bytes(bytes([number]))

    async def another(request: Any) -> None:
        number = 100 + len(archive.kept)
        if number < 130:
            (drop / named(number)).write_bytes(bytes([number]))

    archive.faults += [another] * 60
    assert await watch(shell, drop, *TYPE, "--delete-after") == 0
    assert list(drop.iterdir()) == []
    assert {f"{NOW}.{number}" for number in range(12)} < set(archive.kept)
    assert len(archive.kept) == len(archive.order) == 42


async def test_the_oldest_is_sent_first(archive: Faulty, shell: Shell, drop: Path) -> None:
    for number in range(4):
        (drop / named(number)).write_bytes(bytes([number]))
        os.utime(drop / named(number), (1000 - number, 1000 - number))
    assert await watch(shell, drop, *TYPE, "--parallel", 1) == 0
    assert archive.order == [f"{NOW}.{number}" for number in (3, 2, 1, 0)]


async def test_audio_waits_for_its_sidecar_and_takes_what_stands_there(
    to_real: Service, shell: Shell, drop: Path
) -> None:
    reading = ("--names", "stem", "--sidecar", "{stem}.xml", "--map", "started_at=call.start")
    reading += ("--map", "caller=call.@from", "--zone", "Europe/Helsinki", *TYPE)
    start = datetime.now(UTC) - timedelta(hours=2)
    local = start.astimezone(ZoneInfo("Europe/Helsinki"))
    (drop / "17.wav").write_bytes(tone())
    (drop / "orphan.xml").write_text("<a/>")
    assert await watch(shell, drop, *reading, "--delete-after", "--sidecar-wait", 0) == 1
    assert told(shell) == []
    assert "2 files wait in vain" in shell.err
    assert await shell("watch", drop, "--list", "--json", *reading) == 0
    assert [entry["file"] for entry in listed(shell)["without_sidecar"]] == ["17.wav"]
    assert [entry["file"] for entry in listed(shell)["without_audio"]] == ["orphan.xml"]
    text = f'<r><call from="0401234567"><start>{local:%Y-%m-%d %H:%M:%S}</start></call></r>'
    (drop / "17.xml").write_text(text)
    (drop / "orphan.xml").unlink()
    assert await watch(shell, drop, *reading, "--delete-after") == 0
    (facts,) = told(shell)
    found = await (await to_real.get(f"/v1/recordings/{facts['receipt']['id']}")).json()
    assert datetime.fromisoformat(found["started_at"]) == start.replace(microsecond=0)
    assert (found["call_id"], found["caller"]) == ("17", "+358401234567")
    assert list(drop.iterdir()) == []


async def test_a_sidecar_that_a_crash_left_goes_and_no_other_does(
    archive: Faulty, shell: Shell, drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.folder import Folder

    reading = ("--sidecar", "{stem}.json", *TYPE, "--delete-after")
    real = Folder.remove

    def dies(folder: Folder, seen: Any) -> bool:
        if seen.name.endswith(".json"):
            raise RuntimeError("here it died")
        return real(folder, seen)

    for number in (1, 2):
        (drop / named(number)).with_suffix(".json").write_text("{}")
    (drop / named(1)).write_bytes(b"one")
    monkeypatch.setattr(Folder, "remove", dies)
    with pytest.raises(RuntimeError, match="here it died"):
        await watch(shell, drop, *reading)
    monkeypatch.setattr(Folder, "remove", real)
    assert len(list(drop.iterdir())) == 2
    assert await watch(shell, drop, *reading) == 1
    assert [path.name for path in drop.iterdir()] == [
        Path(named(2)).with_suffix(".json").name,
    ]


async def test_freeswitchs_call_record_in_another_folder_is_the_sidecar(
    archive: Faulty, shell: Shell, drop: Path, tmp_path: Path
) -> None:
    """As docs/telephony/fusionpbx.md has it."""
    words = re.search(
        r"^    WATCH_OPTIONS=(.*)$", (TELEPHONY / "fusionpbx.md").read_text(), re.MULTILINE
    )
    assert words
    records = tmp_path / "json_cdr"
    records.mkdir()
    options = words[1].replace("/var/log/freeswitch/json_cdr", str(records)).split()
    day = drop / "example.fi" / "archive" / "2026" / "Nov" / "24"
    day.mkdir(parents=True)
    uuid = "a9d6ecff-1c1e-4d4e-9b9b-0f4ac2f0e1aa"
    (day / f"{uuid}.wav").write_bytes(b"audio")
    profile = {"caller_id_number": "0401234567", "destination_number": "600"}
    record = {
        "variables": {"uuid": uuid, "call_direction": "inbound", "start_epoch": "1764000000"},
        "callflow": [{"caller_profile": profile}],
    }
    assert await watch(shell, drop, *options, "--delete-after") == 1
    assert archive.seen == []
    (records / f"{uuid}.cdr.json").write_text(json.dumps(record))
    assert await watch(shell, drop, *options, "--delete-after") == 0
    assert archive.kept[uuid][1] == {
        "call_type": "customer_service",
        "started_at": "2025-11-24T16:00:00+00:00",
        "direction": "inbound",
        "caller": "0401234567",
        "callee": "600",
    }
    assert not list(records.iterdir())
    assert not list(day.iterdir())


async def test_xml_with_entities_is_left_where_it_is(
    archive: Faulty, shell: Shell, drop: Path
) -> None:
    (drop / named(1)).write_bytes(b"one")
    evil = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><caller>&b;</caller>'
    (drop / named(1)).with_suffix(".xml").write_text(evil)
    assert await watch(shell, drop, *TYPE, "--sidecar", "{stem}.xml", "--delete-after") == 1
    assert archive.seen == []
    assert told(shell)[0]["status"] == "unclear"
    assert len(list(drop.iterdir())) == 2


async def test_odd_names_do_no_harm_and_odd_things_are_not_read(
    archive: Faulty, shell: Shell, drop: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"a secret")
    hostile = ["$(rm -rf .)", "a\nb", "\udcff\udcfe", "-rf", "; echo", "%s{stem}", "\x1b[2J"]
    for number, caller in enumerate(hostile):
        (drop / named(number).replace("+358400", caller + "x+358400")).write_bytes(b"%d" % number)
    (drop / f"-{NOW}.90.wav").write_bytes(b"no unique id")
    (drop / named(91)).symlink_to(secret)
    os.mkfifo(drop / named(92))
    (drop / "elsewhere").symlink_to(tmp_path)
    (drop / ".hidden").mkdir()
    for left in (f".hidden/{named(93)}", f".{named(94)}.Ab12Cd", named(95) + ".part", "notes.txt"):
        (drop / left).write_bytes(b"not yet")
    os.link(secret, drop / named(96))
    assert await watch(shell, drop, *TYPE, "--delete-after") == 1
    sent = {f"{NOW}.{number}" for number in (*range(len(hostile)), 96)}
    assert set(archive.kept) == sent
    assert [facts["status"] for facts in told(shell)].count("unclear") == 1
    assert secret.read_bytes() == b"a secret"
    assert len(list(drop.iterdir())) == 8
    callers = [archive.kept[f"{NOW}.{number}"][1].get("caller", "") for number in range(7)]
    assert all(caller.isprintable() for caller in callers)


async def test_a_folder_that_becomes_a_link_while_it_is_looked_at_is_not_followed(
    archive: Faulty, shell: Shell, drop: Path, tmp_path: Path
) -> None:
    """Who may write into the drop must not have files elsewhere read or removed."""
    from app.folder import ChangedError, Folder

    outside, inside = tmp_path / "outside", drop / "day"
    for folder in (outside, inside):
        folder.mkdir()
        (folder / "a.wav").write_bytes(b"x")
    os.utime(outside / "a.wav", (7, 7))
    os.utime(inside / "a.wav", (7, 7))
    with Folder(drop) as held:
        (seen,) = held.files()
        inside.rename(drop / ".away")
        inside.symlink_to(outside)
        with pytest.raises(ChangedError):
            with held.opened(seen.path):
                pass
        with pytest.raises(OSError):
            with held._parent(seen.path):
                pass
        assert not held.remove(seen)
    assert (outside / "a.wav").exists()


async def test_no_line_of_a_log_names_a_file(archive: Faulty, shell: Shell, drop: Path) -> None:
    (drop / named(1234567)).write_bytes(b"one")
    (drop / "+358407654321.wav").write_bytes(b"no start in it")
    archive.faults.append(answers(problem(415, "No")))
    words = ("watch", drop, "--quiet", 0, "--once", *TYPE)
    assert await shell(*words) == 1
    assert "refused, --list names it: No (415)" in shell.err
    assert "1234567" not in shell.out + shell.err
    assert "7654321" not in shell.out + shell.err


async def test_what_is_no_archive_is_told_without_what_was_asked_of_it(
    archive: Faulty, shell: Shell, drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (drop / named(1234567)).write_bytes(b"one")
    async with garbage() as address:
        monkeypatch.setenv("ARCHIVE_URL", address)
        words = ("--quiet", 0, "--once", "--retry-for", 0, *TYPE)
        assert await shell("watch", drop, *words) == 1
    assert "What answers there is no archive" in shell.err
    assert "1234567" not in shell.out + shell.err
    assert "0451112222" not in shell.out + shell.err


async def test_nothing_of_a_name_is_in_what_it_remembers(
    archive: Faulty, shell: Shell, drop: Path, tmp_path: Path
) -> None:
    (drop / named(1234567)).write_bytes(b"one")
    assert await watch(shell, drop, *TYPE) == 0
    for file in (tmp_path / "state").rglob("*"):
        assert "1234567" not in file.name
        assert file.is_dir() or b"1234567" not in file.read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("--names", "("),
        ("--names", "(?P<nonsense>.+)"),
        ("--sidecar", "all.json"),
        ("--zone", "Nowhere/At_All"),
        ("--map", "colour=x"),
        ("--value", "colour:x=y"),
        ("--parallel", "0"),
    ],
)
async def test_wrong_words_are_told(archive: Faulty, shell: Shell, drop: Path, words: Any) -> None:
    assert await watch(shell, drop, *TYPE, *words) == 2
    assert shell.err
    assert await shell("watch", drop / "absent", *TYPE) == 2
    assert TOKEN not in shell.err
