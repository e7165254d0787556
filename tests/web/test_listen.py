"""The retrieval door against real servers: finding and hearing, and who may not."""

import asyncio
import io
import json
import time
import wave
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import yarl

from storage import ledger
from tests import years
from tests.roles import connection
from tests.services import Service
from tests.sounds import tone
from tests.storage import soundfiles
from tests.web.test_upload import problem

ADDED = "direction caller callee agent queue customer contract channels sample_rate codec container"


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


async def upload(service: Service, call_id: str, audio: bytes | None = None, **fields: str) -> str:
    params = {"call_type": "fault_report", "started_at": ago(hours=1), **fields}
    answer = await service.put(call_id, audio or tone(), params)
    assert answer.status == 201, await answer.text()
    return str((await answer.json())["id"])


async def found(service: Service, token: str = "supervisor", **filters: Any) -> list[str]:
    pairs = [
        (name.rstrip("_"), str(value))
        for name, values in filters.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    answer = await service.session.get(
        f"{service.retrieval}/v1/recordings",
        params=pairs,
        headers={"Authorization": f"Bearer {service.tokens.get(token, token)}"},
    )
    assert answer.status == 200, await answer.text()
    return [item["call_id"] for item in (await answer.json())["items"]]


async def test_a_recording_is_shown_with_all_that_is_known(service: Service) -> None:
    identifier = await upload(
        service,
        "c1",
        tone(2, channels=2),
        caller="040 123 4567",
        callee="3201",
        agent="Anna Ääkkönen",
        direction="inbound",
        queue="faults",
        customer="C-9",
        contract="K-7",
    )
    answer = await service.get(f"/v1/recordings/{identifier}")
    assert answer.status == 200
    body = await answer.json()
    assert set(ADDED.split()) | {"flaws", "why", "id", "sha256"} <= body.keys()
    assert body["caller"] == "+358401234567"
    assert body["callee"] == "3201"
    assert body["agent"] == "Anna Ääkkönen"
    assert (body["channels"], body["sample_rate"], body["codec"]) == (2, 8000, "pcm_s16le")
    assert "P1Y" in body["why"]
    assert body["expires_at"] in body["why"]
    assert "Sunset" in answer.headers
    assert answer.headers["Cache-Control"] == "private, no-store"


async def test_every_filter_finds_what_it_names(service: Service) -> None:
    await upload(
        service, "a", caller="+358401234567", agent="Anna", queue="q1", direction="inbound",
        started_at=ago(days=3), call_type="contract", customer="C1", contract="K1",
    )  # fmt: skip
    await upload(
        service, "b", tone(5), callee="040-123 4567", agent="Bo", queue="q1",
        direction="outbound", started_at=ago(days=2),
    )  # fmt: skip
    await upload(service, "c", tone(9), caller="0501112222", agent="anna", started_at=ago(days=1))
    assert await found(service) == ["c", "b", "a"]
    assert await found(service, call_type="contract") == ["a"]
    assert await found(service, call_type=["contract", "fault_report"]) == ["c", "b", "a"]
    for notation in ("040 123 4567", "+358 40 1234567", "00358401234567", "4567", "1234567"):
        assert await found(service, number=notation) == ["b", "a"], notation
    assert await found(service, number="0401234568") == []
    assert await found(service, agent="ANNA") == ["c", "a"]
    assert await found(service, agent="ann") == []
    assert await found(service, queue="q1") == ["b", "a"]
    assert await found(service, queue="q1", agent="Anna") == ["a"]
    assert await found(service, queue="q1", direction="outbound") == ["b"]
    assert await found(service, customer="C1") == ["a"]
    assert await found(service, contract="K1") == ["a"]
    assert await found(service, call_id="b") == ["b"]
    assert await found(service, source="pbx") == ["c", "b", "a"]
    assert await found(service, source="other") == []
    assert await found(service, direction="inbound") == ["a"]
    assert await found(service, min_duration=4) == ["c", "b"]
    assert await found(service, min_duration=4, max_duration=6) == ["b"]
    assert await found(service, from_=ago(days=2.5), to=ago(days=1.5)) == ["b"]
    assert await found(service, number="4567", to=ago(days=2.5)) == ["a"]


async def test_pages_follow_each_other_without_gap_or_double(service: Service) -> None:
    for index in range(7):
        moment = ago(days=index * 30, hours=1)
        await upload(service, f"c{index}", agent="anna", started_at=moment, caller="0401234567")
    for filters in ({}, {"agent": "anna"}, {"agent": "anna", "number": "4567"}):
        seen, url = [], ""
        answer = await service.session.get(
            f"{service.retrieval}/v1/recordings",
            params={**filters, "limit": "3"},
            headers={"Authorization": f"Bearer {service.tokens['supervisor']}"},
        )
        while True:
            body = await answer.json()
            seen += [item["call_id"] for item in body["items"]]
            url = body["next"]
            if url is None:
                assert "Link" not in answer.headers
                break
            assert answer.headers["Link"] == f'<{url}>; rel="next"'
            # Nothing of the search stands in the address.
            assert "anna" not in url
            assert "4567" not in url.split("cursor=")[0]
            answer = await service.get(url)
            assert answer.status == 200
        assert seen == [f"c{index}" for index in range(7)]


async def test_a_page_that_is_just_full_leads_on(service: Service) -> None:
    """Also where what follows started so long ago that it is looked for apart."""
    days = 6
    for day in range(days):
        agent = "Anna" if day in (0, days - 1) else "Bo"
        await upload(service, f"c{day}", agent=agent, started_at=ago(days=day, hours=1))
    url, pages = "/v1/recordings?agent=Anna&limit=1", []
    while url:
        page = await (await service.get(url)).json()
        pages.append([item["call_id"] for item in page["items"]])
        url = page["next"]
    assert pages == [["c0"], [f"c{days - 1}"]]


async def test_a_cursor_is_its_callers_alone_and_cannot_be_made_up(service: Service) -> None:
    for index in range(2):
        await upload(service, f"c{index}")
    body = await (await service.get("/v1/recordings?limit=1")).json()
    other = await service.get(body["next"], token="privacy")
    await problem(other, 400, "malformed")
    for cursor in ("x", "AAAA", "%00", body["next"].split("cursor=")[1][:-3] + "abc"):
        await problem(await service.get(f"/v1/recordings?cursor={cursor}"), 400, "malformed")
    await problem(await service.get(body["next"] + "&agent=x"), 400, "malformed")


async def test_an_unknown_filter_is_refused(service: Service) -> None:
    body = await problem(await service.get("/v1/recordings?agnet=x"), 400, "malformed")
    assert "unknown" in body["errors"]


async def test_the_bytes_come_back_as_they_were_sent(service: Service) -> None:
    audio = tone(20)
    identifier = await upload(service, "c", audio)
    path = f"/v1/recordings/{identifier}/audio"
    answer = await service.get(path)
    assert answer.status == 200
    assert await answer.read() == audio
    assert answer.content_type == "audio/wav"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert identifier in answer.headers["Content-Disposition"]
    etag = answer.headers["ETag"]
    head = await service.ask("HEAD", service.retrieval + path, service.tokens["supervisor"])
    assert head.status == 200
    assert head.headers["Content-Length"] == str(len(audio))
    assert head.headers["ETag"] == etag


RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-65535", 0, 65536),
    ("bytes=65535-65536", 65535, 65537),
    ("bytes=100000-", 100000, None),
    ("bytes=-1", -1, None),
    ("bytes=-70000", -70000, None),
    ("bytes=-99999999", 0, None),
    ("bytes=196608-999999999", 196608, None),
]


@pytest.mark.parametrize(("header", "start", "stop"), RANGES)
async def test_a_range_is_exactly_that(
    service: Service, header: str, start: int, stop: int | None
) -> None:
    audio = tone(20)
    identifier = await upload(service, "c", audio)
    answer = await service.get(f"/v1/recordings/{identifier}/audio", Range=header)
    expected = audio[start:stop]
    assert answer.status == 206
    assert await answer.read() == expected
    begin = len(audio) + start if start < 0 else start
    last = begin + len(expected) - 1
    assert answer.headers["Content-Range"] == f"bytes {begin}-{last}/{len(audio)}"


async def test_ranges_that_cannot_be_or_do_not_count(service: Service) -> None:
    audio = tone()
    identifier = await upload(service, "c", audio)
    path = f"/v1/recordings/{identifier}/audio"
    for header in (f"bytes={len(audio)}-", "bytes=-0"):
        answer = await service.get(path, Range=header)
        await problem(answer, 416, "range")
        assert answer.headers["Content-Range"] == f"bytes */{len(audio)}"
    for header in ("bytes=5-2", "items=0-1", "bytes=a-b", "bytes=0-1,5-6", "bytes=-"):
        answer = await service.get(path, Range=header)
        assert answer.status == 200
        assert await answer.read() == audio
    etag = (await service.get(path)).headers["ETag"]
    assert (await service.get(path, Range="bytes=0-1", If_Range=etag)).status == 206
    assert (await service.get(path, Range="bytes=0-1", If_Range='"other"')).status == 200
    part = await service.get(path, Range="Bytes=0-1")
    assert (part.status, await part.read()) == (206, audio[:2])


async def test_who_goes_on_gets_the_rest_of_the_same_or_nothing(service: Service) -> None:
    identifier = await upload(service, "c", tone())
    for end, kept in (("", True), ("?format=wav", True), ("?format=mp3", False)):
        path = f"/v1/recordings/{identifier}/audio{end}"
        etag = (await service.get(path)).headers.get("ETag", '"none"')
        assert (await service.get(path, If_Match="*")).status == 200
        for text in (etag, f'"other", {etag}'):
            answer = await service.get(path, Range="bytes=2-3", If_Match=text)
            assert answer.status == (206 if kept else 412)
        for text in ('"other"', f"W/{etag}", etag.strip('"'), ""):
            answer = await service.get(path, Range="bytes=2-3", If_Match=text)
            await problem(answer, 412, "precondition")
        login, url = service._login("supervisor"), service.retrieval + path
        for text, status in ((etag, 200 if kept else 412), ('"other"', 412)):
            head = await service.session.head(url, headers={**login, "If-Match": text})
            assert head.status == status


async def test_a_copy_plays_anywhere(service: Service) -> None:
    identifier = await upload(service, "c", tone(3, channels=2))
    for kind, mime in (("wav", "audio/wav"), ("mp3", "audio/mpeg"), ("ogg", "audio/ogg")):
        answer = await service.get(f"/v1/recordings/{identifier}/audio?format={kind}")
        assert answer.status == 200
        assert answer.content_type == mime
        body = await answer.read()
        if kind == "wav":
            with wave.open(io.BytesIO(body)) as file:
                assert (file.getnchannels(), file.getframerate()) == (2, 8000)
                assert file.getnframes() == 24_000
        else:
            assert len(body) > 3000
    answer = await service.get(f"/v1/recordings/{identifier}/audio?format=exe")
    await problem(answer, 400, "malformed")


async def test_the_waveform_has_the_peaks_of_each_channel(service: Service) -> None:
    identifier = await upload(service, "c", tone(3, channels=2))
    body = await (await service.get(f"/v1/recordings/{identifier}/waveform?points=50")).json()
    assert [len(channel) for channel in body["channels"]] == [50, 50]
    assert body["duration"] == pytest.approx(3)
    answer = await service.get(f"/v1/recordings/{identifier}/waveform?points=0")
    await problem(answer, 400, "malformed")


async def test_levels_that_do_not_read_are_refused(service: Service) -> None:
    identifier = await upload(service, "c")
    for path in ("", f"/{identifier}", f"/{identifier}/audio", f"/{identifier}/waveform"):
        for level in ("uploader", "auditor", "admin"):
            answer = await service.get(f"/v1/recordings{path}", token=level)
            await problem(answer, 403, "forbidden")
        answer = await service.ask("GET", f"{service.retrieval}/v1/recordings{path}", None)
        await problem(answer, 401, "unauthenticated")
    assert (await service.get(f"/v1/recordings/{identifier}", token="privacy")).status == 200


async def test_what_a_key_may_not_know_of_does_not_exist(service: Service) -> None:
    mine = await upload(service, "mine", call_type="contract")
    other = await upload(service, "other", call_type="other")
    limited = await service.key("supervisor", "limited", ["contract"])
    assert await found(service, limited) == ["mine"]
    assert await found(service, limited, call_type="other") == []
    assert (await service.get(f"/v1/recordings/{mine}", token=limited)).status == 200
    never = await service.get(f"/v1/recordings/{uuid4()}", token=limited)
    for path in ("", "/audio", "/waveform"):
        hidden = await service.get(f"/v1/recordings/{other}{path}", token=limited)
        assert (await hidden.text()) == (await never.text())
        await problem(hidden, 404, "not-found")


@pytest.mark.parametrize("name", ["x", "00000000-0000-0000-0000-000000000000", "{}", "..%2f"])
async def test_what_never_was_is_not_found(service: Service, name: str) -> None:
    await problem(await service.get(f"/v1/recordings/{name}"), 404, "not-found")


async def test_every_act_is_in_the_ledger_and_tells_nothing_personal(service: Service) -> None:
    identifier = await upload(service, "c", agent="Anna Ääkkönen", caller="0401234567")
    await found(service, agent="Anna Ääkkönen", number="0401234567")
    await service.get(f"/v1/recordings/{identifier}")
    await (await service.get(f"/v1/recordings/{identifier}/audio", Range="bytes=0-9")).read()
    await (await service.get(f"/v1/recordings/{identifier}/waveform")).read()
    acts = await service.acts()
    assert [act for act in acts if act[0] != "key.added"] == [
        ("stored", identifier),
        ("searched", None),
        ("viewed", identifier),
        ("listened", identifier),
        ("listened", identifier),
    ]
    async with connection(service.vault.pool) as lent:
        row = await lent.fetchrow("SELECT * FROM ledger WHERE act = 'searched'")
    assert row is not None
    opened = ledger.unseal(service.vault.ring, row["ends_on"], row["details"])
    assert opened["sealed"] == {"number": "0401234567", "agent": "Anna Ääkkönen"}
    page = await (await service.operate("/v1/ledger")).text()
    for needle in ("Anna", "0401234567", "+358401234567"):
        assert needle not in page
    listened = [item for item in json.loads(page)["items"] if item["act"] == "listened"]
    assert listened[0]["facts"] == {"format": "original", "range": "bytes=0-9"}
    await (await service.get(f"/v1/recordings/{identifier}/audio?format=mp3")).read()
    entries = (await (await service.operate("/v1/ledger")).json())["items"]
    [copy] = [item["facts"] for item in entries if item["facts"].get("format") == "mp3"]
    assert copy == {"format": "mp3", "range": ""}


async def test_a_stream_that_is_being_sent_stops_at_the_instant(service: Service) -> None:
    started = years.due_in(hours=1)
    audio = tone(1200)  # 19 MB: more than the sockets on the way hold
    identifier = await upload(service, "c", audio, started_at=started.isoformat())
    end = (await service.rows())[0]["expires_at"]
    await service.turn_clock(end - years.now() - timedelta(seconds=6))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", yarl.URL(service.retrieval).port, limit=1024
    )
    writer.write(
        f"GET /v1/recordings/{identifier}/audio HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {service.tokens['supervisor']}\r\n\r\n".encode()
    )
    received, begun = 0, time.monotonic()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        while True:
            # A listener hears at the speed of the voice, so that most is still to be sent; when the
            # instant is over, what the sockets on the way still hold is all that comes.
            received += len(await reader.readexactly(1024))
            if time.monotonic() < begun + 7:
                await asyncio.sleep(0.05)
    writer.close()
    assert received < len(audio) / 2
    await problem(await service.get(f"/v1/recordings/{identifier}/audio"), 410, "gone")


@pytest.mark.parametrize("kind", ["pcm", "mp3", "opus", "gsm"])
async def test_a_wav_copy_has_ranges(service: Service, kind: str) -> None:
    audio = {
        "pcm": lambda: tone(2, channels=2),
        "mp3": lambda: soundfiles.mp3(2),
        "opus": lambda: soundfiles.opus(2, 2),
        "gsm": lambda: (soundfiles.MEDIA / "gsm.wav").read_bytes(),
    }[kind]()
    identifier = await upload(service, "a", audio)
    path = f"/v1/recordings/{identifier}/audio?format=wav"
    whole = await service.get(path)
    bytes_ = await whole.read()
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert int(whole.headers["Content-Length"]) == len(bytes_)
    middle = len(bytes_) // 2
    for span, expected in (
        ("bytes=0-43", bytes_[:44]),
        (f"bytes={middle}-{middle + 999}", bytes_[middle : middle + 1000]),
        (f"bytes={middle}-", bytes_[middle:]),
        ("bytes=-7", bytes_[-7:]),
    ):
        answer = await service.get(path, Range=span, If_Range=whole.headers["ETag"])
        assert answer.status == 206
        assert await answer.read() == expected
    answer = await service.get(path, Range=f"bytes={len(bytes_)}-")
    assert answer.status == 416
    head = await service.ask("HEAD", service.retrieval + path, "supervisor")
    assert int(head.headers["Content-Length"]) == len(bytes_)
