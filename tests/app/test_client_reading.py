"""`archive search` and `archive fetch` against an archive that fails on purpose."""

import asyncio
import hashlib
import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app import reading
from tests.app.faulty import TOKEN, Faulty, Shell, answers, hang, problem

ID = "019ab3c4-5d6e-7f80-9123-456789abcdef"


def item(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"019ab3c4-0000-7000-8000-{number:012}",
        "started_at": "2026-11-24T09:30:00+02:00",
        "call_type": "fault_report",
        "duration": 61.4,
        "direction": None,
        "caller": "+358401234567",
        **more,
    }


async def test_a_search_sends_its_filters_and_prints_a_table(archive: Faulty, shell: Shell) -> None:
    archive.pages[""] = {
        "items": [item(1, caller="\x1b[2Jodd", started_at="2026-11-24T09:30:00.304376+02:00")],
        "next": None,
    }
    words = ("--number", "+358 40", "--from", "2026-11-01T00:00:00+02:00", "--limit", "7")
    types = ("--call-type", "other", "--call-type", "contract", "--min-duration", "60")
    assert await shell("search", *words, *types) == 0
    assert "number=%2B358%2040" in archive.seen[0].raw_path
    assert "call_type=other&call_type=contract" in archive.seen[0].raw_path
    wanted = {"from": "2026-11-01T00:00:00+02:00", "limit": "7", "min_duration": "60"}
    assert wanted.items() <= archive.seen[0].query.items()
    assert archive.seen[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert item(1)["id"] in shell.out
    assert "\n2026-11-24T09:30:00+02:00  fault_report      1:01  " in shell.out
    assert "?[2Jodd" in shell.out
    assert "\x1b" not in shell.out


async def test_one_page_is_printed_unless_all_is_asked_for(archive: Faulty, shell: Shell) -> None:
    # The archive's public name is another than the one it is reached by: the token stays here.
    after = "https://archive.example/v1/recordings?cursor=2_-"
    archive.pages[""] = {"items": [item(1), item(2)], "next": after}
    archive.pages["2_-"] = {"items": [item(3)], "next": None}
    assert await shell("search", "--json") == 0
    assert shell.facts == archive.pages[""]
    assert len(archive.seen) == 1
    assert await shell("search") == 0
    assert "there are more" in shell.err
    archive.seen.clear()
    assert await shell("search", "--json", "--all") == 0
    assert shell.facts == {"items": [item(1), item(2), item(3)], "next": None}
    assert [seen.query for seen in archive.seen] == [{"limit": "200"}, {"cursor": "2_-"}]


async def test_a_search_that_finds_nothing_says_so(archive: Faulty, shell: Shell) -> None:
    archive.pages[""] = {"items": [], "next": None}
    assert await shell("search") == 0
    assert (shell.out, shell.err) == ("", "nothing was found\n")
    assert await shell("search", "--json") == 0
    assert shell.facts == {"items": [], "next": None}


async def test_a_search_that_breaks_off_is_not_taken_for_the_whole(
    archive: Faulty, shell: Shell
) -> None:
    after = f"{archive.url}/v1/recordings?cursor=2"
    archive.pages[""] = {"items": [item(1)], "next": after}
    archive.faults += [refuse_cursor, refuse_cursor]
    assert await shell("search", "--json", "--all") == 1
    assert "No (403)" in shell.err
    with pytest.raises(json.JSONDecodeError):
        json.loads(shell.out)


async def refuse_cursor(request: web.Request) -> web.StreamResponse | None:
    return problem(403, "No") if "cursor" in request.query else None


async def test_a_search_is_tried_again_and_a_wrong_filter_is_not(
    archive: Faulty, shell: Shell
) -> None:
    archive.pages[""] = {"items": [item(1)], "next": None}
    archive.faults.append(answers(problem(503, "Not just now", retry_after="0")))
    assert await shell("search") == 0
    archive.seen.clear()
    archive.faults.append(answers(problem(400, "Cannot be read", errors={"from": "is no time"})))
    assert await shell("search", "--from", "today") == 1
    assert "from: is no time" in shell.err
    assert len(archive.seen) == 1


async def test_another_server_is_not_taken_for_an_archive(archive: Faulty, shell: Shell) -> None:
    archive.faults.append(answers(web.Response(text="<html>hello</html>")))
    assert await shell("search") == 1
    archive.faults.append(answers(web.json_response({"things": []})))
    assert await shell("search") == 1
    assert "is this the retrieval door" in shell.err


@pytest.fixture
def sound(archive: Faulty) -> bytes:
    archive.audio = bytes(range(256)) * 4000
    return archive.audio


def cuts(after: int, archive: Faulty) -> Any:
    """A fault: the right answer, cut after so many bytes."""

    async def fault(request: web.Request) -> web.StreamResponse:
        whole = archive.answer_audio(request)
        assert isinstance(whole.body, bytes)
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        if "format" not in request.query:
            response.content_length = len(whole.body)
        await response.prepare(request)
        await response.write(whole.body[:after])
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


async def test_a_recording_is_fetched_whole_and_checked(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "call.wav"
    assert await shell("fetch", ID, "-o", file, "--json") == 0
    assert file.read_bytes() == sound
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shell.facts == {
        "id": ID,
        "file": str(file),
        "size": len(sound),
        "sha256": hashlib.sha256(sound).hexdigest(),
        "verified": True,
        "content_type": "audio/x-wav",
        "sunset": "Wed, 24 Nov 2027 07:30:00 GMT",
    }
    assert list(tmp_path.iterdir()) == [file]
    assert archive.seen[0].raw_path == f"/v1/recordings/{ID}/audio"


async def test_a_cut_download_goes_on_where_it_broke_off(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "call.wav"
    archive.faults += [cuts(300_000, archive), cuts(100_000, archive)]
    assert await shell("fetch", ID, "-o", file) == 0
    assert file.read_bytes() == sound
    spans = [seen.headers.get("Range") for seen in archive.seen]
    assert spans == [None, "bytes=300000-", "bytes=400000-"]
    etag = f'"{hashlib.sha256(sound).hexdigest()}"'
    assert [seen.headers.get("If-Range") for seen in archive.seen] == [None, etag, etag]


async def test_a_download_whose_recording_changed_starts_again(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "call.wav"
    first = cuts(300_000, archive)

    async def changing(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = await first(request)
        archive.audio = sound[:200_000][::-1]
        return response

    archive.faults.append(changing)
    assert await shell("fetch", ID, "-o", file) == 0
    assert file.read_bytes() == sound[:200_000][::-1]


async def test_a_range_that_was_not_asked_for_is_not_joined(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    etag = f'"{hashlib.sha256(sound).hexdigest()}"'
    headers = {"Content-Range": f"bytes 5-9/{len(sound)}", "ETag": etag}
    wrong = web.Response(status=206, body=b"12345", headers=headers)
    archive.faults += [cuts(300_000, archive), answers(wrong)]
    assert await shell("fetch", ID, "-o", tmp_path / "call.wav") == 1
    assert "other bytes" in shell.err
    assert list(tmp_path.iterdir()) == []


async def test_a_copy_in_another_format_starts_again_when_it_is_cut(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "call.mp3"
    archive.faults.append(cuts(300_000, archive))
    assert await shell("fetch", ID, "-o", file, "--format", "mp3", "--json") == 0
    assert file.read_bytes() == sound
    assert shell.facts["verified"] is False
    assert [seen.query for seen in archive.seen] == [{"format": "mp3"}] * 2
    assert "Range" not in archive.seen[1].headers


async def test_bytes_that_do_not_match_their_digest_are_not_kept(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "call.wav"
    file.write_text("what was there before")
    archive.etag = f'"{"0" * 64}"'
    assert await shell("fetch", ID, "-o", file) == 1
    assert "does not match its digest" in shell.err
    assert file.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("status", [401, 404, 410])
async def test_what_is_not_given_out_is_told_with_its_certificate(
    archive: Faulty, shell: Shell, tmp_path: Path, status: int
) -> None:
    where = f"/v1/certificates/{ID}"
    archive.faults.append(answers(problem(status, "This recording is gone", certificate=where)))
    assert await shell("fetch", ID, "-o", tmp_path / "call.wav") == 1
    assert f"This recording is gone ({status}). Do this then." in shell.err
    assert f"certificate: {where}" in shell.err
    assert len(archive.seen) == 1
    assert list(tmp_path.iterdir()) == []


async def test_a_recording_whose_year_ends_on_the_way_is_not_kept(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    archive.faults += [cuts(300_000, archive), answers(problem(410, "This recording is gone"))]
    assert await shell("fetch", ID, "-o", tmp_path / "call.wav") == 1
    assert list(tmp_path.iterdir()) == []


async def test_an_archive_that_hangs_is_given_up(
    archive: Faulty, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_SILENCE", 0.2)
    archive.faults.append(hang)
    assert await shell("fetch", ID, "-o", tmp_path / "x", "--retry-for", "0") == 1
    assert "did not answer in time" in shell.err


async def test_what_a_killed_download_left_is_neither_followed_nor_trusted(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("somebody else's")
    (tmp_path / "call.wav.part").symlink_to(other)
    assert await shell("fetch", ID, "-o", tmp_path / "call.wav") == 0
    assert other.read_text() == "somebody else's"
    assert (tmp_path / "call.wav").read_bytes() == sound


async def test_a_recording_goes_to_the_standard_output(
    archive: Faulty, sound: bytes, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    archive.faults.append(cuts(300_000, archive))
    status, out = await on_stdout(capfdbinary, "fetch", ID, "-o", "-")
    assert status == 0
    assert out == sound
    # Bytes that are out cannot be taken back: a copy that is cut cannot start again.
    archive.faults.append(cuts(300_000, archive))
    status, out = await on_stdout(capfdbinary, "fetch", ID, "-o", "-", "--format", "ogg")
    assert status == 1
    assert out == sound[:300_000]


async def on_stdout(captured: Any, *words: str) -> tuple[int, bytes]:
    shell = Shell(captured)
    status = await shell(*words)
    return status, bytes(shell.out)  # type: ignore[arg-type]


async def test_wrong_usage_asks_nothing(archive: Faulty, shell: Shell, tmp_path: Path) -> None:
    assert await shell("fetch", ID, "-o", "-", "--json") == 2
    assert await shell("fetch", ID, "-o", tmp_path) == 2
    assert await shell("fetch", ID) == 2
    assert await shell("fetch", ID, "-o", tmp_path / "x", "--format", "doc") == 2
    assert archive.seen == []


async def test_a_file_that_cannot_be_written_is_told(
    archive: Faulty, shell: Shell, sound: bytes, tmp_path: Path
) -> None:
    assert await shell("fetch", ID, "-o", tmp_path / "no" / "call.wav") == 1
    assert "cannot be written" in shell.err
    assert await shell("fetch", ID, "-o", "/dev/full/x") == 1


def of_nobodys_authority(folder: Path) -> ssl.SSLContext:
    """What a door shows whose certificate was signed by itself alone."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(
        now + timedelta(days=1)
    )
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "door.pem").write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, *form))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(folder / "door.pem")
    return shown


async def test_a_certificate_that_is_not_trusted_is_told(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_TOKEN", TOKEN)

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    shown = of_nobodys_authority(tmp_path)
    async with await asyncio.start_server(never, "127.0.0.1", 0, ssl=shown) as server:
        port = server.sockets[0].getsockname()[1]
        door = ("--url", f"https://127.0.0.1:{port}", "--retry-for", "0")
        assert await shell("search", *door) == 1
    assert "certificate" in shell.err
    assert "JSON" not in shell.err
