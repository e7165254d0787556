"""The ingest door against real servers: every answer of the contract's table."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict

from tests.services import Service
from tests.sounds import tone

NOON = "2026-11-24T09:30:00+02:00"


def query(**fields: str) -> dict[str, str]:
    moment = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    return {"call_type": "fault_report", "started_at": moment, **fields}


async def problem(answer: aiohttp.ClientResponse, status: int, name: str) -> dict[str, Any]:
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/problem+json"
    body: dict[str, Any] = json.loads(await answer.text())
    assert body["type"] == f"urn:call-archive:problem:{name}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


async def test_an_upload_is_answered_with_a_receipt(service: Service) -> None:
    audio = tone(2.5, channels=2)
    params = query(caller="040 123 4567", agent="anna")
    answer = await service.put("call-1", audio, params)
    assert answer.status == 201
    receipt = await answer.json()
    assert receipt.keys() == {
        "id", "call_id", "source", "call_type", "started_at", "expires_at", "received_at",
        "duration", "bytes", "sha256",
    }  # fmt: skip
    assert receipt["call_id"] == "call-1"
    assert receipt["source"] == "pbx"
    assert receipt["bytes"] == len(audio)
    assert receipt["duration"] == pytest.approx(2.5, abs=0.01)
    assert receipt["sha256"] == hashlib.sha256(audio).hexdigest()
    started = datetime.fromisoformat(receipt["started_at"])
    assert started == datetime.fromisoformat(params["started_at"])
    expires = datetime.fromisoformat(receipt["expires_at"])
    assert expires == service.vault.policy.expiry("fault_report", started).at
    assert timedelta(days=364) < expires - started < timedelta(days=367)
    digest = base64.b64encode(hashlib.sha256(audio).digest()).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert answer.headers["Location"] == f"{service.retrieval}/v1/recordings/{receipt['id']}"
    sunset = parsedate_to_datetime(answer.headers["Sunset"])
    assert abs(sunset - expires) < timedelta(seconds=1)


async def test_the_same_upload_again_gets_the_same_answer(service: Service) -> None:
    audio, params = tone(), query()
    first = await service.put("call-1", audio, params)
    again = await service.put("call-1", audio, params)
    assert (first.status, again.status) == (201, 200)
    assert await first.json() == await again.json()
    assert first.headers["Location"] == again.headers["Location"]
    assert len(await service.holdings()) == 1


async def test_the_same_call_with_anything_else_is_a_conflict(service: Service) -> None:
    audio, params = tone(), query()
    assert (await service.put("call-1", audio, params)).status == 201
    other = await service.put("call-1", tone(pitch=880), params)
    await problem(other, 409, "conflict")
    other = await service.put("call-1", b"no audio at all", params)
    await problem(other, 409, "conflict")
    other = await service.put("call-1", audio, {**params, "call_type": "other"})
    await problem(other, 409, "conflict")
    moment = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    other = await service.put("call-1", audio, {**params, "started_at": moment})
    await problem(other, 409, "conflict")
    assert len(await service.holdings()) == 1


async def test_two_sources_may_use_the_same_call_id(service: Service) -> None:
    other = await service.key("uploader", "other-pbx")
    assert (await service.put("call-1", tone(), query())).status == 201
    assert (await service.put("call-1", tone(), query(), token=other)).status == 201


async def test_chunked_bodies_and_odd_call_ids_are_taken(service: Service) -> None:
    audio = tone(5)

    async def pieces() -> Any:
        for start in range(0, len(audio), 7001):
            yield audio[start : start + 7001]

    answer = await service.put("a/b c%ä+é", pieces(), query())
    assert answer.status == 201
    receipt = await answer.json()
    assert receipt["call_id"] == "a/b c%ä+é"
    assert receipt["bytes"] == len(audio)


async def test_a_plus_that_was_not_encoded_is_understood(service: Service) -> None:
    moment = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    path = (
        f"/v1/recordings/c1?call_type=other&started_at={moment}+00:00&caller=+46%208%20401%206100"
    )
    answer = await service.raw_put(path, tone())
    assert answer.status == 201
    found = await service.get("/v1/recordings?number=+46840%2016100&from=2020-01-01T00:00:00+02:00")
    assert [item["caller"] for item in (await found.json())["items"]] == ["+4684016100"]
    assert datetime.fromisoformat((await answer.json())["started_at"]) == datetime.fromisoformat(
        moment + "+00:00"
    )


@pytest.mark.parametrize("level", ["supervisor", "privacy", "auditor", "admin"])
async def test_other_levels_may_not_upload(service: Service, level: str) -> None:
    answer = await service.put("c", tone(), query(), token=service.tokens[level])
    await problem(answer, 403, "forbidden")
    assert not await service.holdings()


@pytest.mark.parametrize(
    "header", [None, "Bearer x", "Bearer cra_aaaaaaaaaaaa_" + "A" * 43, "Basic !"]
)
async def test_without_a_valid_key_nothing_is_taken(service: Service, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    answer = await service.put("c", tone(), query(), headers=headers, token=None)
    await problem(answer, 401, "unauthenticated")
    assert "Bearer" in answer.headers["WWW-Authenticate"]


async def test_basic_authentication_has_the_token_as_password(service: Service) -> None:
    login = aiohttp.encode_basic_auth("pbx", service.tokens["uploader"])
    answer = await service.put("c", tone(), query(), headers={"Authorization": login}, token=None)
    assert answer.status == 201


async def test_a_revoked_key_is_refused_at_once(service: Service) -> None:
    await service.revoke("uploader")
    answer = await service.put("c", tone(), query())
    await problem(answer, 401, "unauthenticated")


async def test_every_wrong_field_is_named(service: Service) -> None:
    answer = await service.put("c", tone(), {"call_type": "chat", "direction": "up"})
    body = await problem(answer, 422, "invalid")
    assert body["errors"].keys() == {"call_type", "started_at", "direction"}


@pytest.mark.parametrize(
    ("offset", "word"),
    [(timedelta(minutes=6), "ahead"), (timedelta(days=-366), "may no longer be kept")],
)
async def test_calls_outside_their_year_are_refused(
    service: Service, offset: timedelta, word: str
) -> None:
    moment = (datetime.now(UTC) + offset).isoformat()
    answer = await service.put("c", tone(), query(started_at=moment))
    body = await problem(answer, 422, "invalid")
    assert word in body["errors"]["started_at"]
    assert not await service.rows()


async def test_ten_kilobytes_of_metadata_are_a_clear_error(service: Service) -> None:
    answer = await service.put("c", tone(), query(agent="x" * 10_000))
    body = await problem(answer, 422, "invalid")
    assert "256" in body["errors"]["agent"]


async def test_a_field_given_twice_is_refused(service: Service) -> None:
    moment = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = f"/v1/recordings/c?call_type=other&call_type=contract&started_at={moment}&queue=%07"
    body = await problem(await service.raw_put(path, tone()), 422, "invalid")
    assert body["errors"].keys() == {"call_type", "queue"}


async def test_what_is_no_field_may_be_given_in_any_number(service: Service) -> None:
    moment = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = f"/v1/recordings/c?call_type=other&started_at={moment}&x=1&x=2&expiry=1&expiry=2"
    assert (await service.raw_put(path, tone())).status == 201


NOT_AUDIO = {
    "empty": b"",
    "text": b"Hello, this is a text that somebody named call.wav\n" * 50,
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n",
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nm=audio 5004 RTP/AVP 0\r\n",
    "riff": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("name", NOT_AUDIO)
async def test_what_is_not_audio_is_refused_and_nothing_kept(service: Service, name: str) -> None:
    answer = await service.put("c", NOT_AUDIO[name], query(), content_type="audio/wav")
    await problem(answer, 415, "not-audio")
    assert not await service.rows()
    assert not await service.holdings()


CUT, LYING = tone(2)[:20_000], tone(2)[:40] + (10**9).to_bytes(4, "little") + tone(2)[44:]


@pytest.mark.parametrize("audio", [CUT, LYING], ids=["cut", "lying"])
async def test_a_cut_file_and_a_lying_header_are_taken_measured_and_marked(
    service: Service, audio: bytes
) -> None:
    answer = await service.put("c", audio, query())
    assert answer.status == 201
    receipt = await answer.json()
    assert receipt["duration"] == pytest.approx((len(audio) - 44) / 16_000, abs=0.001)
    shown = await (await service.get(f"/v1/recordings/{receipt['id']}")).json()
    assert shown["flaws"] == ["truncated"]
    heard = await service.get(f"/v1/recordings/{receipt['id']}/audio")
    assert await heard.read() == audio


@pytest.mark.parametrize("coding", ["gzip", "br", "x-anything"])
async def test_an_encoded_body_is_refused(service: Service, coding: str) -> None:
    answer = await service.put("c", tone(), query(), headers={"Content-Encoding": coding})
    await problem(answer, 415, "not-audio")


async def test_over_the_limit_is_refused_by_its_length_and_by_its_bytes(service: Service) -> None:
    big = bytes(service.limits.max_bytes + 1)
    body = await problem(await service.put("c", big, query()), 413, "too-large")
    assert body["max_bytes"] == service.limits.max_bytes

    async def pieces() -> Any:
        for start in range(0, len(big), 2**20):
            yield big[start : start + 2**20]

    await problem(await service.put("c", pieces(), query()), 413, "too-large")
    assert not await service.rows()


async def test_over_the_longest_duration_is_refused(service: Service) -> None:
    # 8-bit mono at a low rate: few bytes, many seconds.
    answer = await service.put(
        "c", bytes([0xD5]) * 1_600_000, query(), content_type="audio/PCMA;rate=1000"
    )
    await problem(answer, 413, "too-large")


async def test_headerless_audio_is_taken_as_declared(service: Service) -> None:
    answer = await service.put(
        "c", bytes([0xD5]) * 16_000, query(), content_type="audio/PCMA;rate=8000"
    )
    assert answer.status == 201
    assert (await answer.json())["duration"] == pytest.approx(2.0)


def digest(audio: bytes) -> dict[str, str]:
    value = base64.b64encode(hashlib.sha256(audio).digest()).decode()
    return {"Content-Digest": f"md5=:AAAA:, sha-256=:{value}:"}


def sha512(audio: bytes) -> dict[str, str]:
    value = base64.b64encode(hashlib.sha512(audio).digest()).decode()
    return {"Content-Digest": f"SHA-512=:{value}:;of=all"}


def on_two_lines(audio: bytes) -> CIMultiDict[str]:
    lines = [("Content-Digest", "unixsum=:AAAA:"), *digest(audio).items()]
    return CIMultiDict(lines)


def both(audio: bytes) -> CIMultiDict[str]:
    """The first is right whatever the audio is held to be."""
    return CIMultiDict([*digest(tone()).items(), *sha512(audio).items()])


def md5(audio: bytes) -> dict[str, str]:
    return {"Content-MD5": base64.b64encode(hashlib.md5(audio).digest()).decode()}


@pytest.mark.parametrize("announce", [digest, md5, sha512, on_two_lines, both])
async def test_an_announced_digest_is_checked(service: Service, announce: Any) -> None:
    audio = tone()
    wrong = await service.put("c", audio, query(), headers=announce(audio + b"x"))
    await problem(wrong, 400, "digest-mismatch")
    assert not await service.rows()
    assert not await service.holdings()
    right = await service.put("c", audio, query(), headers=announce(audio))
    assert right.status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Digest": "sha-256=abc"},
        {"Content-Digest": "sha-512=:AAAA:"},
        CIMultiDict([("Content-Digest", "md5=:AAAA:"), ("Content-Digest", "sha-256=abc")]),
        CIMultiDict([*digest(b"a").items(), *digest(b"b").items()]),
        CIMultiDict([*md5(b"a").items(), *md5(b"b").items()]),
        {"Content-MD5": "abc"},
        {"Content-MD5": "é"},
    ],
)
async def test_a_digest_that_cannot_be_read_is_refused(
    service: Service, headers: Mapping[str, str]
) -> None:
    await problem(await service.put("c", tone(), query(), headers=headers), 400, "malformed")


@pytest.mark.parametrize("order", [("metadata", "audio"), ("audio", "metadata")])
async def test_a_form_is_taken_in_any_order(service: Service, order: tuple[str, str]) -> None:
    audio = tone(3)
    parts = {
        "metadata": json.dumps({**query(agent="anna"), "call_id": "form-1", "unknown": [1]}),
        "audio": audio,
    }
    answer = await service.form([(name, parts[name]) for name in order])
    assert answer.status == 201, await answer.text()
    receipt = await answer.json()
    assert (receipt["call_id"], receipt["bytes"]) == ("form-1", len(audio))
    heard = await service.get(f"/v1/recordings/{receipt['id']}/audio")
    assert await heard.read() == audio


@pytest.mark.parametrize("announce", [digest, md5, sha512, on_two_lines, both])
async def test_a_digest_of_the_part_is_checked(service: Service, announce: Any) -> None:
    audio, good = tone(), json.dumps({**query(), "call_id": "form-1"})
    for sent, status, name in [(audio + b"x", 400, "digest-mismatch"), (audio, 201, "")]:
        with aiohttp.MultipartWriter("form-data") as form:
            form.append(good).set_content_disposition("form-data", name="metadata")
            part = form.append(audio)
            part.headers.extend(announce(sent))
            part.set_content_disposition("form-data", name="audio")
        answer = await service.post("/v1/recordings", form, {})  # type: ignore[arg-type]
        if status == 201:
            assert answer.status == 201, await answer.text()
        else:
            await problem(answer, status, name)
            assert not await service.rows()


async def test_a_digest_of_a_form_as_a_whole_is_refused_and_never_ignored(service: Service) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n--b--\r\n'
    for announced in (digest(form), md5(form), sha512(form)):
        for path in (
            "/v1/recordings",
            "/v1/rtpengine?call_type=other",
            "/v1/freeswitch/other/c.cgi",
        ):
            headers = {
                **announced,
                "Content-Type": "multipart/form-data; boundary=b",
                "X-Recording-Call-ID": "c",
                "X-Recording-Call-Start-Time": str(int(datetime.now(UTC).timestamp())),
            }
            answer = await service.post(path, form, headers)
            await problem(answer, 400, "malformed")
            assert "No digest is checked here" in await answer.text()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/rtpengine?call_type=other", "ngfile"),
        ("/v1/freeswitch/other/c.cgi", "recorded_file"),
        ("/v1/freeswitch/other/c.cgi", "beside"),
        ("/v1/recordings", "metadata"),
    ],
)
async def test_a_digest_of_a_part_that_is_not_checked_is_refused(
    service: Service, path: str, name: str
) -> None:
    audio = tone()
    for announced in (digest(b"other"), md5(audio), sha512(b"other")):
        [(header, text)] = announced.items()
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n{header}: {text}\r\n\r\n'
        headers = {
            "Content-Type": "multipart/form-data; boundary=b",
            "X-Recording-Call-ID": "c",
            "X-Recording-Call-Start-Time": str(int(datetime.now(UTC).timestamp())),
        }
        answer = await service.post(path, head.encode() + audio + b"\r\n--b--\r\n", headers)
        await problem(answer, 400, "malformed")
        assert "No digest is checked here" in await answer.text()
    assert not await service.rows()


async def test_forms_that_are_wrong(service: Service) -> None:
    good = json.dumps({**query(), "call_id": "form-1"})
    cases: list[tuple[list[tuple[str, str | bytes]], int, str]] = [
        ([("metadata", good)], 400, "malformed"),
        ([("audio", tone())], 400, "malformed"),
        ([("metadata", good), ("metadata", good), ("audio", tone())], 400, "malformed"),
        ([("metadata", good), ("audio", tone()), ("audio", tone())], 400, "malformed"),
        ([("metadata", good), ("extra", "x"), ("audio", tone())], 400, "malformed"),
        ([("metadata", "{"), ("audio", tone())], 422, "invalid"),
        ([("metadata", "[1]"), ("audio", tone())], 422, "invalid"),
        ([("metadata", "[" * 30_000), ("audio", tone())], 422, "invalid"),
        ([("metadata", '{"call_id": "x"}'), ("audio", tone())], 422, "invalid"),
        ([("metadata", '"' + "x" * 70_000 + '"'), ("audio", tone())], 422, "invalid"),
        ([("audio", b"text"), ("metadata", good)], 415, "not-audio"),
    ]
    for parts, status, name in cases:
        await problem(await service.form(parts), status, name)
    assert not await service.rows()
    assert not await service.holdings()


async def test_a_form_that_breaks_off_in_its_metadata_is_refused(service: Service) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await service.post("/v1/recordings", head + b" " * 20_000, kind)
    assert answer.status in (400, 422), "by how much of it was read at once"
    assert not await service.rows()


async def test_a_form_without_a_boundary_or_with_another_type_is_refused(service: Service) -> None:
    for kind in ("multipart/form-data", "audio/wav", "application/json"):
        answer = await service.post("/v1/recordings", b"{}", {"Content-Type": kind})
        await problem(answer, 400, "malformed")


async def test_two_uploads_of_one_call_at_once_keep_one(service: Service) -> None:
    audio, params = tone(10), query()
    answers = await asyncio.gather(*(service.put("c", audio, params) for _ in range(6)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses.count(201) == 1
    assert set(statuses) <= {200, 201, 503}
    for answer in answers:
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) > 0
    assert (await service.put("c", audio, params)).status == 200
    await service.sweep_everything()
    assert len(await service.holdings()) == 1


async def test_no_other_address_and_no_other_method(service: Service) -> None:
    answer = await service.post("/v1/nothing", b"", {})
    await problem(answer, 404, "not-found")
    answer = await service.post("/v1/recordings/x", b"", {})
    await problem(answer, 405, "method")
    assert "PUT" in answer.headers["Allow"]
    # A route exists on one door only: nothing is read through the ingest door.
    answer = await service.ask(
        "GET", f"{service.ingest}/v1/recordings", service.tokens["supervisor"]
    )
    await problem(answer, 405, "method")
