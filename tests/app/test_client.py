"""`archive upload` against an archive that fails on purpose."""

import asyncio
import hashlib
import json
import re
import socket
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app import delivery, spooler
from tests.app.faulty import TOKEN, Faulty, Shell, answers, cut, hang, problem

CALL = ("--call-type", "fault_report", "--started-at", "2026-11-24T09:30:00+02:00")


@pytest.fixture
def call(tmp_path: Path) -> Path:
    file = tmp_path / "call 17+a.wav"
    file.write_bytes(b"RIFF" + bytes(range(256)) * 100)
    return file


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large.wav"
    file.write_bytes(b"RIFF" + bytes(range(256)) * 12000)
    return file


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "state" / "call-archive" / "spool"


def notes(spool: Path) -> list[dict[str, Any]]:
    return [json.loads(note.read_text()) for note in sorted(spool.glob("*.json"))]


def left(spool: Path) -> list[str]:
    """What a spool holds beside its lock."""
    return sorted(path.name for path in spool.rglob("*") if path.is_file() and path.name != "lock")


async def test_a_call_is_stored_with_its_metadata_and_digest(
    archive: Faulty, shell: Shell, call: Path
) -> None:
    more = ("--caller", "+358 40 123", "--queue", "a&b=c/ä", "--direction", "inbound")
    assert await shell("upload", call, *CALL, *more) == 0
    assert "019ab3c4-5d6e-7f80-9123-456789abcdef" in shell.out
    assert "2027-11-24T09:30:00+02:00" in shell.out
    assert shell.err == ""
    digest, fields = archive.kept["call 17+a"]
    assert digest == hashlib.sha256(call.read_bytes()).hexdigest()
    assert fields == {
        "call_type": "fault_report",
        "started_at": "2026-11-24T09:30:00+02:00",
        "direction": "inbound",
        "caller": "+358 40 123",
        "queue": "a&b=c/ä",
    }
    (seen,) = archive.seen
    assert seen.raw_path.startswith("/v1/recordings/call%2017%2Ba?")
    assert "started_at=2026-11-24T09%3A30%3A00%2B02%3A00" in seen.raw_path
    assert seen.headers["Authorization"] == f"Bearer {TOKEN}"
    assert int(seen.headers["Content-Length"]) == call.stat().st_size


async def test_a_call_that_is_there_already_is_a_success(
    archive: Faulty, shell: Shell, call: Path
) -> None:
    assert await shell("upload", call, *CALL, "--json") == 0
    assert shell.facts["files"][0]["status"] == "stored"
    assert await shell("upload", call, *CALL, "--json") == 0
    (facts,) = shell.facts["files"]
    assert (facts["status"], facts["receipt"]["call_id"]) == ("already", "call 17+a")


async def test_a_headerless_call_declares_its_type_and_an_asterisk_id_tells_its_start(
    archive: Faulty, shell: Shell, call: Path
) -> None:
    words = ("--content-type", "audio/PCMA;rate=8000", "--call-id", "pbx-1764000000.17")
    when = ("--call-type", "other", "--started-at", "@pbx-1764000000.17")
    assert await shell("upload", call, *when, *words) == 0
    assert archive.seen[0].headers["Content-Type"] == "audio/PCMA;rate=8000"
    assert archive.kept["pbx-1764000000.17"][1]["started_at"] == "2025-11-24T16:00:00+00:00"


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("alaw", "audio/PCMA;rate=8000"),
        ("ulaw", "audio/PCMU;rate=8000"),
        ("gsm", "audio/GSM;rate=8000"),
        ("g729", "audio/G729;rate=8000"),
        ("wav", "application/octet-stream"),
        ("of-no-audio", "application/octet-stream"),
    ],
)
async def test_the_command_of_asterisks_page_hands_over_what_asterisk_writes(
    archive: Faulty, shell: Shell, tmp_path: Path, ending: str, kind: str
) -> None:
    page = (Path(__file__).parents[2] / "docs/telephony/asterisk.md").read_text()
    [command] = re.findall(r"MixMonitor\(\S+,,/\S+/archive (upload .+)\)$", page, re.MULTILINE)
    file = tmp_path / f"1764000000.17.{ending}"
    file.write_bytes(b"\xd5" * 800)
    command = command.replace("^{MIXMONITOR_FILENAME}", str(file))
    assert await shell(*command.replace("^{UNIQUEID}", "1764000000.17").split()) == 0
    assert archive.seen[0].headers["Content-Type"] == kind
    assert archive.kept["1764000000.17"][1]["started_at"] == "2025-11-24T16:00:00+00:00"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 415, 422])
async def test_a_refusal_is_told_and_never_tried_again(
    archive: Faulty, shell: Shell, call: Path, spool: Path, status: int
) -> None:
    archive.faults.append(answers(problem(status, "No", errors={"caller": "is too \x1b[31m odd"})))
    assert await shell("upload", call, *CALL) == 1
    assert len(archive.seen) == 1
    assert f"No ({status}). Do this then." in shell.err
    assert "caller: is too ?[31m odd" in shell.err
    assert left(spool) == []


async def test_a_refusal_comes_before_the_bytes_of_a_large_call(
    archive: Faulty, shell: Shell, large: Path
) -> None:
    archive.before.append(problem(422, "The metadata is wrong"))
    assert await shell("upload", large, *CALL, "--json") == 1
    (facts,) = shell.facts["files"]
    assert (facts["status"], facts["problem"]["status"]) == ("refused", 422)
    (seen,) = archive.seen
    assert seen.headers["Expect"] == "100-continue"
    assert seen.body == 0
    assert await shell("upload", large, *CALL) == 0
    assert archive.seen[1].body == large.stat().st_size


async def test_a_proxy_that_never_says_continue_gets_the_body_all_the_same(
    archive: Faulty, shell: Shell, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_UNEXPECTED", 0.2)
    target = int(archive.url.rpartition(":")[2])
    asked = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(b"100-continue" in head)
        if asked[-1]:
            await reader.read()
            writer.close()
            return
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target)
        last = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        to_writer.write(last + await reader.readexactly(large.stat().st_size))
        writer.write(await to_reader.read())
        writer.close()
        to_writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0, limit=2**23) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await shell("upload", large, *CALL, "--url", url) == 0
    assert asked == [True, False]
    assert "large" in archive.kept


async def test_an_archive_that_is_busy_is_asked_again_when_it_says(
    archive: Faulty, shell: Shell, call: Path
) -> None:
    archive.faults.append(answers(problem(503, "Not just now", retry_after="1")))
    started = asyncio.get_running_loop().time()
    assert await shell("upload", call, *CALL) == 0
    assert 1.0 <= asyncio.get_running_loop().time() - started < 5
    assert [seen.method for seen in archive.seen] == ["PUT", "PUT"]


async def test_a_wait_that_is_longer_than_the_patience_is_not_begun(
    archive: Faulty, shell: Shell, call: Path, spool: Path
) -> None:
    archive.faults.append(answers(problem(503, "Not just now", retry_after="3600")))
    assert await shell("upload", call, *CALL, "--json") == 0
    assert shell.facts["files"][0]["status"] == "spooled"
    assert len(archive.seen) == 1
    assert len(notes(spool)) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 504, 507])
async def test_a_trouble_that_passes_is_tried_again(
    archive: Faulty, shell: Shell, call: Path, status: int
) -> None:
    archive.faults.append(answers(web.Response(status=status, text="<html>oh</html>")))
    assert await shell("upload", call, *CALL) == 0
    assert len(archive.seen) == 2


async def test_a_cut_upload_is_sent_again_from_its_start(
    archive: Faulty, shell: Shell, large: Path
) -> None:
    archive.faults += [cut, cut]
    assert await shell("upload", large, *CALL) == 0
    assert [seen.body for seen in archive.seen] == [0, 0, large.stat().st_size]
    assert archive.kept["large"][0] == hashlib.sha256(large.read_bytes()).hexdigest()


async def test_a_connection_is_kept_and_what_it_breaks_is_sent_again_on_another(
    archive: Faulty, shell: Shell, call: Path, large: Path
) -> None:
    connections = []

    async def look(request: web.Request) -> None:
        connections.append(request.transport)

    async def look_and_cut(request: web.Request) -> web.StreamResponse:
        await look(request)
        return await cut(request)

    archive.faults += [look, look_and_cut, look]
    assert await shell("upload", call, large, *CALL, "--json") == 0
    assert connections[0] is connections[1] is not connections[2]
    assert [facts["status"] for facts in shell.facts["files"]] == ["stored", "stored"]
    assert archive.kept["large"][0] == hashlib.sha256(large.read_bytes()).hexdigest()
    assert archive.seen[2].body == large.stat().st_size


async def test_an_archive_that_hangs_is_away(
    archive: Faulty, shell: Shell, call: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_SILENCE", 0.3)
    archive.faults.append(hang)
    assert await shell("upload", call, *CALL, "--retry-for", "0") == 0
    assert "did not answer in time" in shell.err
    assert len(notes(spool)) == 1


@pytest.mark.parametrize(
    "lie",
    [
        web.json_response({"id": "x", "sha256": "00"}, status=201),
        web.Response(status=200, text="<html>please log in to this network</html>"),
        web.json_response(["sha256"], status=201),
        web.Response(status=204),
    ],
)
async def test_only_a_receipt_for_these_bytes_is_believed(
    archive: Faulty, shell: Shell, call: Path, spool: Path, lie: web.Response
) -> None:
    archive.faults.append(answers(lie))
    assert await shell("upload", call, *CALL, "--retry-for", "0", "--json") == 0
    assert shell.facts["files"][0]["status"] == "spooled"
    assert len(notes(spool)) == 1


async def test_a_redirect_is_not_followed_with_the_token(
    archive: Faulty, shell: Shell, call: Path
) -> None:
    elsewhere = {"Location": archive.url + "/v1/recordings/other"}
    archive.faults.append(answers(web.Response(status=307, headers=elsewhere)))
    assert await shell("upload", call, *CALL) == 1
    assert "right door" in shell.err
    assert len(archive.seen) == 1


async def test_what_is_spooled_survives_its_file_and_is_delivered_later(
    archive: Faulty, shell: Shell, call: Path, spool: Path, unused_tcp_port: int
) -> None:
    audio = call.read_bytes()
    up, down = archive.url, f"http://127.0.0.1:{unused_tcp_port}"
    words = ("--caller", "+358401", "--content-type", "audio/GSM")
    assert await shell("upload", call, *CALL, *words, "--retry-for", "0", "--url", down) == 0
    assert "spooled" in shell.out
    assert "--flush" in shell.err
    call.unlink()
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    files = [path for path in spool.iterdir() if path.name != "lock"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    assert not any("call" in path.name or "358" in path.name for path in files)

    assert await shell("upload", "--flush", "--json", "--retry-for", "0", "--url", down) == 1
    assert shell.facts["spool"]["waiting"] == 1
    assert await shell("upload", "--flush", "--json", "--url", up) == 0
    assert shell.facts["spool"]["elsewhere"] == 1
    assert archive.kept == {}

    (note,) = spool.glob("*.json")
    note.write_text(note.read_text().replace(down, up))
    assert await shell("upload", "--flush", "--json", "--url", up) == 0
    assert shell.facts["spool"]["delivered"] == 1
    digest, fields = archive.kept["call 17+a"]
    assert digest == hashlib.sha256(audio).hexdigest()
    assert fields["caller"] == "+358401"
    assert archive.seen[0].headers["Content-Type"] == "audio/GSM"
    assert left(spool) == []


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


async def fill(archive: Faulty, shell: Shell, folder: Path, *names: str) -> None:
    """Have these calls spooled, in this order."""
    for name in names:
        file = folder / f"{name}.wav"
        file.write_bytes(name.encode() * 1000)
        archive.faults.append(answers(problem(503, "Not just now")))
        assert await shell("upload", file, *CALL, "--retry-for", "0") == 0
    archive.seen.clear()


async def test_a_success_delivers_the_spool_oldest_first(
    archive: Faulty, shell: Shell, call: Path, spool: Path, tmp_path: Path
) -> None:
    await fill(archive, shell, tmp_path, "c", "a", "b")
    assert await shell("upload", call, *CALL, "--json") == 0
    assert archive.order == ["call 17+a", "c", "a", "b"]
    assert shell.facts["spool"]["delivered"] == 3
    assert left(spool) == []


async def test_what_is_refused_of_the_spool_is_set_aside_with_its_reason(
    archive: Faulty, shell: Shell, spool: Path, tmp_path: Path
) -> None:
    await fill(archive, shell, tmp_path, "a", "b")
    archive.faults.append(answers(problem(422, "The metadata is wrong", errors={"x": "is odd"})))
    assert await shell("upload", "--flush", "--json") == 1
    assert (shell.facts["spool"]["delivered"], shell.facts["spool"]["waiting"]) == (1, 0)
    assert archive.order == ["b"]
    (note,) = (spool / "refused").glob("*.json")
    said = json.loads(note.read_text())
    assert said["call_id"] == "a"
    assert said["refused"]["errors"] == {"x": "is odd"}
    assert note.with_suffix(".audio").read_bytes() == b"a" * 1000
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert len(left(spool)) == 2
    assert await shell("upload", "--flush", "--json") == 0
    assert shell.facts["spool"]["refused_kept"] == 1


async def test_a_key_that_is_no_longer_good_leaves_the_spool_as_it_is(
    archive: Faulty, shell: Shell, spool: Path, tmp_path: Path
) -> None:
    await fill(archive, shell, tmp_path, "a", "b")
    before = left(spool)
    archive.faults.append(answers(problem(401, "A valid key is needed")))
    assert await shell("upload", "--flush") == 1
    assert "A valid key is needed" in shell.err
    assert len(archive.seen) == 1
    assert left(spool) == before


async def test_one_entry_that_fails_does_not_hold_up_the_others(
    archive: Faulty, shell: Shell, spool: Path, tmp_path: Path
) -> None:
    await fill(archive, shell, tmp_path, "a", "b", "c")
    archive.faults.append(answers(problem(500, "The archive failed")))
    assert await shell("upload", "--flush", "--retry-for", "0", "--json") == 1
    assert archive.order == ["b", "c"]
    assert shell.facts["spool"]["waiting"] == 1
    assert await shell("upload", "--flush") == 0
    assert archive.order == ["b", "c", "a"]


async def test_a_spool_is_not_tried_to_its_end_while_the_archive_is_away(
    archive: Faulty, shell: Shell, tmp_path: Path
) -> None:
    await fill(archive, shell, tmp_path, "a", "b", "c", "d", "e")
    archive.faults += [answers(problem(503, "Not just now"))] * 5
    assert await shell("upload", "--flush", "--retry-for", "0", "--json") == 1
    assert len(archive.seen) == 3
    assert shell.facts["spool"]["waiting"] == 5


async def test_two_uploaders_do_not_deliver_twice(
    archive: Faulty, shell: Shell, spool: Path, tmp_path: Path
) -> None:
    await fill(archive, shell, tmp_path, "a", "b")
    with spooler.lock(spool) as held:
        assert held
        assert await shell("upload", "--flush", "--json") == 0
        assert shell.facts["spool"]["busy"]
        assert archive.seen == []
    assert await shell("upload", "--flush", "--json") == 0
    assert not shell.facts["spool"]["busy"]
    assert archive.order == ["a", "b"]


async def test_a_file_that_cannot_be_spooled_is_a_failure(
    archive: Faulty, shell: Shell, call: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no directory")
    archive.faults.append(answers(problem(503, "Not just now")))
    words = ("--spool", tmp_path / "file" / "spool", "--retry-for", "0", "--json")
    assert await shell("upload", call, *CALL, *words) == 1
    assert shell.facts["files"][0]["status"] == "failed"


async def test_one_bad_file_does_not_stop_the_others_but_is_told(
    archive: Faulty, shell: Shell, call: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    words = (tmp_path / "missing.wav", tmp_path / "folder", call)
    assert await shell("upload", *words, *CALL, "--json") == 1
    assert [facts["status"] for facts in shell.facts["files"]] == ["failed", "failed", "stored"]


async def test_several_files_wait_for_an_absent_archive_once(
    archive: Faulty, shell: Shell, tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.wav" for name in "abc"]
    for file in files:
        file.write_bytes(b"x")
    archive.faults += [answers(problem(503, "Not just now"))] * 50
    assert await shell("upload", *files, *CALL, "--retry-for", "1", "--json") == 0
    asked = [seen.raw_path[len("/v1/recordings/")] for seen in archive.seen]
    assert (asked.count("b"), asked.count("c")) == (1, 1)
    assert asked.count("a") > 1
    assert [facts["status"] for facts in shell.facts["files"]] == ["spooled"] * 3


async def test_a_large_file_is_never_wholly_in_memory(
    archive: Faulty, shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "large.wav"
    with file.open("wb") as made:
        made.truncate(64 * 2**20)
    tracemalloc.start()
    try:
        assert await shell("upload", file, *CALL) == 0
        assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--flush", "x.wav"),
        ("x.wav",),
        ("x.wav", "--call-type", "other"),
        ("x.wav", "--call-type", "none", "--started-at", "2026-11-24T09:30:00Z"),
        ("x.wav", "--call-type", "other", "--started-at", "2026-11-24T09:30:00"),
        ("x.wav", "y.wav", *CALL, "--call-id", "one"),
        ("a/x.wav", "b/x.wav", *CALL),
        ("x.wav", *CALL, "--caller", "a\nb"),
        ("x\udcff.wav", *CALL),
        ("x.wav", *CALL, "--retry-for", "-1"),
        ("x.wav", *CALL, "--url", "ftp://archive.example"),
        ("x.wav", *CALL, "--url", "http://user:secret@archive.example"),
        ("x.wav", *CALL, "--token-file", "/nonexistent/token"),
    ],
)
async def test_wrong_usage_is_status_two_and_asks_nothing(
    archive: Faulty, shell: Shell, words: tuple[str, ...]
) -> None:
    assert await shell("upload", *words) == 2
    assert shell.err
    assert archive.seen == []


async def test_a_token_comes_from_the_environment_or_a_file_and_never_from_the_command_line(
    archive: Faulty, shell: Shell, call: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await shell("upload", call, *CALL, "--token", TOKEN) == 2
    assert "unrecognized arguments" in shell.err
    file = tmp_path / "token"
    file.write_text("of-a-file\n")
    assert await shell("upload", call, *CALL, "--token-file", file) == 0
    monkeypatch.setenv("ARCHIVE_TOKEN_FILE", str(file))
    monkeypatch.delenv("ARCHIVE_TOKEN")
    assert await shell("upload", call, *CALL) == 0
    assert {seen.headers["Authorization"] for seen in archive.seen} == {"Bearer of-a-file"}
    file.write_text("two words\n")
    assert await shell("upload", call, *CALL) == 2
    monkeypatch.delenv("ARCHIVE_TOKEN_FILE")
    assert await shell("upload", call, *CALL) == 2
    assert "ARCHIVE_TOKEN" in shell.err
    monkeypatch.delenv("ARCHIVE_URL")
    assert await shell("upload", call, *CALL) == 2
    assert "ARCHIVE_URL" in shell.err
