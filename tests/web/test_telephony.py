"""What each telephony system sends, byte by byte, and what it is answered.

The requests are those that the clients' sources make; they go through a plain socket, so that no
HTTP library of ours mends them. `curl` stands for the clients that are libcurl themselves.
"""

import asyncio
import base64
import hashlib
import json
import re
import shutil
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import yarl

from archive.bounds import Bounds
from tests.archive.test_siprec import RFC
from tests.archive.test_vcon import document as vcon_document
from tests.roles import connection
from tests.services import Service
from tests.sounds import tone
from web import ingest, limits

AUDIO = tone(2)
CALL = "7a1e6a3c-5b1f-4d3a-9d0e-0f6f2a7d4c11"


def started() -> datetime:
    return (datetime.now(UTC) - timedelta(hours=1)).replace(microsecond=0)


def epoch(moment: datetime) -> str:
    return str(int(moment.timestamp()))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    went_on: bool

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


async def wire(service: Service, head: str, body: bytes = b"", *, ask: bool = False) -> Answer:
    """Send these bytes; with `ask` the body only after `100 Continue`, as libcurl does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.ingest.rpartition(":")[2])
    try:
        writer.write(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n")
        went_on = False
        first = b""
        if ask:
            first = await reader.readuntil(b"\r\n\r\n")
            went_on = first.startswith(b"HTTP/1.1 100 ")
            first = b"" if went_on else first
        if not first:
            writer.write(body)
            first = await reader.readuntil(b"\r\n\r\n")
        line, *lines = first.decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(line.split()[1]), headers, content, went_on)
    finally:
        writer.close()


def login(service: Service, user: str = "fs") -> str:
    """What libcurl makes of `https://fs:TOKEN@archive/`."""
    return base64.b64encode(f"{user}:{service.tokens['uploader']}".encode()).decode()


def http_cache(service: Service, address: str, audio: bytes, *, expect: bool = False) -> str:
    """The head of mod_http_cache's PUT: libcurl with a type, a length, and Expect over 1 MB."""
    return (
        f"PUT /v1/freeswitch/{address} HTTP/1.1\n"
        "Host: archive.example.fi:8081\n"
        f"Authorization: Basic {login(service)}\n"
        "User-Agent: freeswitch-http-cache/1.0\n"
        "Accept: */*\n"
        "Content-Type: audio/x-wav\n"
        f"Content-Length: {len(audio)}\n" + ("Expect: 100-continue\n" if expect else "")
    )


def chunked(body: bytes, size: int = 16372) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def httapi(service: Service, address: str) -> str:
    """The head of mod_httapi's PUT: chunked, no type, its whole parameter set in the query."""
    return (
        f"PUT /v1/freeswitch/{address}?put_file=%2Ftmp%2F{CALL}.wav"
        "&url=http%3A%2F%2Farchive.example.fi%2F&file_driver=true"
        f"&HTTAPI_SESSION_ID={CALL}&session_id={CALL}&url=twice HTTP/1.1\n"
        "Host: archive.example.fi:8081\n"
        f"Authorization: Basic {login(service)}\n"
        "User-Agent: mod_httapi/1.0\n"
        "Accept: */*\n"
        f"Cookie: HTTAPI_SESSION_ID={CALL}\n"
        "Transfer-Encoding: chunked\n"
        "Expect: 100-continue\n"
    )


BOUNDARY = "------------------------d74496d66958873e"


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def ngfile(content: bytes) -> bytes:
    """The one part of rtpengine-recording's form: curl_mime_data, so neither file name nor type."""
    return form(part('name="ngfile"', content))


def rtpengine(
    service: Service,
    body: bytes,
    query: str = "?call_type=customer_service",
    *,
    kind: str = "mixed",
    name: str = "1764-abc%40sip.example.fi-6a1b2c3d4e5f-mix",
    **more: str,
) -> str:
    """The head of rtpengine-recording's POST."""
    begun = f"{started().timestamp():.6f}"
    headers = {
        "X-Recording-Call-ID": "1764-abc@sip.example.fi",
        "X-Recording-File-Name": f"{name}.wav",
        "X-Recording-Full-File-Name": f"/var/lib/rtpengine-recording/{name}.wav",
        "X-Recording-File-Format": "wav",
        "X-Recording-Kind": kind,
        "X-Recording-Call-Start-Time": begun,
        "X-Recording-Stream-Start-Time": begun,
        "X-Recording-Call-End-Time": begun,
        "X-Recording-Stream-End-Time": begun,
        "X-Recording-Output-Id": "7",
        **{f"X-Recording-{key.replace('_', '-')}": value for key, value in more.items()},
    }
    return (
        f"POST /v1/rtpengine{query} HTTP/1.1\n"
        "Host: archive.example.fi:8081\n"
        f"Authorization: Basic {login(service, 'rtp')}\n"
        "Accept: */*\n"
        + "".join(f"{key}: {value}\n" for key, value in headers.items())
        + f"Content-Length: {len(body)}\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\n"
    )


async def heard(service: Service, answer: Answer) -> dict[str, Any]:
    """The recording as a supervisor finds and hears it."""
    assert answer.status in (200, 201), answer.body
    receipt = answer.json()
    digest = base64.b64encode(hashlib.sha256(AUDIO).digest()).decode()
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    audio = await service.get(f"/v1/recordings/{receipt['id']}/audio")
    assert await audio.read() == AUDIO
    return dict(await (await service.get(f"/v1/recordings/{receipt['id']}")).json())


async def nothing_kept(service: Service) -> None:
    assert not await service.rows()
    assert not await service.holdings()
    assert not list(service.vault.spool.iterdir())


async def test_http_cache_delivers(service: Service) -> None:
    moment = started()
    address = (
        f"customer_service/{CALL}.wav?started_at={epoch(moment)}&direction=inbound"
        f"&caller=%2B358401234567&callee={quote('09 123 45', safe='')}&queue=faults"
    )
    answer = await wire(service, http_cache(service, address, AUDIO), AUDIO)
    assert answer.status == 201
    found = await heard(service, answer)
    assert found["call_id"] == CALL
    assert found["call_type"] == "customer_service"
    assert datetime.fromisoformat(found["started_at"]) == moment
    assert (found["direction"], found["caller"], found["queue"]) == (
        "inbound", "+358401234567", "faults",
    )  # fmt: skip


def expanded(text: str, known: dict[str, str]) -> str:
    """A text of a dialplan as FreeSWITCH makes it, from within: variables, and what it calls."""

    def one(found: re.Match[str]) -> str:
        name, _, given = found[1].removesuffix(")").partition("(")
        each = given.split("|")
        if name == "regex":
            return (re.search(each[1], each[0]) or [""])[int(each[2].removeprefix("%"))]
        if name == "replace":
            return each[0].replace(each[1], each[2])
        return quote(given, safe=".@/") if name == "url_encode" else known[name]

    while "${" in text:
        text = re.sub(r"\$\{([^${}]*)\}", one, text)
    return text


async def test_the_lines_of_freeswitchs_page_put_no_dot_behind_the_files_ending(
    service: Service,
) -> None:
    page = (Path(__file__).parents[2] / "docs/telephony/freeswitch.md").read_text()
    [line] = re.findall(r"/v1/freeswitch/([^\"]*&caller[^\"]*)\"", page)
    [caller] = re.findall(r"`(caller=.*)`\. `", page)
    known = {
        "uuid": CALL, "strepoch": epoch(started()), "caller_id_number": "anna.b",
        "cc_queue": "sales@pbx.example.fi",
    }  # fmt: skip
    address = expanded(re.sub("caller=.*(?=&queue)", lambda _: caller, line), known)
    assert address.rpartition(".")[2].startswith("wav?")
    assert "/" not in address.partition("?")[2]
    answer = await wire(service, http_cache(service, address, AUDIO), AUDIO)
    found = await heard(service, answer)
    assert (found["caller"], found["queue"]) == ("anna.b", "sales")


async def test_http_cache_says_it_again_and_is_told_the_same(service: Service) -> None:
    """`http_put` from a script, when the first try was not answered."""
    address = f"other/{CALL}.wav?started_at={epoch(started())}"
    first, again = [
        await wire(service, http_cache(service, address, AUDIO), AUDIO) for _ in range(2)
    ]
    assert (first.status, again.status) == (201, 200)
    assert first.body == again.body


async def test_what_http_cache_sends_in_vain_is_refused_before_the_body(service: Service) -> None:
    """With Expect; and never by a status that it takes for success, or a redirect."""
    audio = bytes(1_100_000)
    good = f"other/{CALL}.wav?started_at={epoch(started())}"
    for address, status in [
        (f"chat/{CALL}.wav?started_at={epoch(started())}", 422),
        (f"{CALL}?started_at={epoch(started())}", 422),
        (f"other/{CALL}.wav?started_at=00000000000", 422),
        (f"other/{'x/' * 1500}{CALL}.wav?started_at={epoch(started())}", 422),
    ]:
        head = http_cache(service, address, audio, expect=True)
        answer = await wire(service, head, audio, ask=True)
        assert (answer.status, answer.went_on) == (status, False)
    head = http_cache(service, good, audio, expect=True).replace(login(service), "ZnM6bm9uZQ==")
    answer = await wire(service, head, audio, ask=True)
    assert (answer.status, answer.went_on) == (401, False)
    await nothing_kept(service)


async def test_http_cache_with_expect_delivers(service: Service) -> None:
    address = f"other/2026/Nov/25/{CALL}.wav?started_at={epoch(started())}"
    answer = await wire(service, http_cache(service, address, AUDIO, expect=True), AUDIO, ask=True)
    assert answer.went_on
    assert (await heard(service, answer))["call_id"] == CALL


async def test_a_client_of_http_1_0_is_never_asked_to_go_on(service: Service) -> None:
    """RFC 9110, 10.1.1: it knows no 100, and would take it for the answer."""
    address = f"other/2026/Nov/25/{CALL}.wav?started_at={epoch(started())}"
    head = http_cache(service, address, AUDIO, expect=True).replace("HTTP/1.1", "HTTP/1.0")
    assert (await wire(service, head, AUDIO)).status == 201


async def test_httapi_delivers_without_length_or_type(service: Service) -> None:
    address = f"other/call_id/{CALL}.wav"
    head = httapi(service, address).replace("&url=twice", f"&started_at={epoch(started())}", 1)
    answer = await wire(service, head, chunked(AUDIO), ask=True)
    assert (await heard(service, answer))["call_id"] == CALL


def tagged(audio: bytes, **tags: str) -> bytes:
    """A WAV with a LIST of INFO before its audio, as libsndfile writes RECORD_TITLE and so on."""
    info = b"INFO"
    for name, text in tags.items():
        value = text.encode() + b"\0"
        info += name.encode() + struct.pack("<I", len(value)) + value + b"\0" * (len(value) % 2)
    body = audio[12:36] + b"LIST" + struct.pack("<I", len(info)) + info + audio[36:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


async def test_the_start_may_stand_in_the_tags_of_the_file(service: Service) -> None:
    moment = started()
    audio = tagged(AUDIO, INAM="title", ICRD=epoch(moment))
    answer = await wire(service, httapi(service, f"other/{CALL}.wav"), chunked(audio), ask=True)
    assert answer.status == 201, answer.body
    assert datetime.fromisoformat(answer.json()["started_at"]) == moment
    again = await wire(service, httapi(service, f"other/{CALL}.wav"), chunked(audio), ask=True)
    assert (again.status, again.body) == (200, answer.body)
    none = await wire(service, httapi(service, "other/b.wav"), chunked(AUDIO), ask=True)
    assert none.status == 422
    assert none.json()["errors"] == {"started_at": "is required"}
    assert len(await service.rows()) == 1


async def test_httapi_posts_a_form(service: Service) -> None:
    """Where the address ends in `.cgi`: the fields stand beside the file, before or behind it."""
    moment = started()
    fields = [
        part('name="session_id"', CALL.encode()),
        part('name="started_at"', epoch(moment).encode()),
    ]
    file = part(f'name="recorded_file"; filename="{CALL}.wav"', AUDIO, "Content-Type: audio/x-wav")
    answers = []
    for parts in ([*fields, file], [file, *fields]):
        body = form(*parts)
        head = (
            f"POST /v1/freeswitch/other/{CALL}.cgi HTTP/1.1\n"
            f"Host: archive.example.fi\nAuthorization: Basic {login(service)}\n"
            f"Content-Length: {len(body)}\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\n"
        )
        answers.append(await wire(service, head, body))
    assert [answer.status for answer in answers] == [201, 200]
    assert datetime.fromisoformat((await heard(service, answers[1]))["started_at"]) == moment


async def test_kazoo_delivers_and_may_say_it_again(service: Service) -> None:
    """`record_call` of a callflow tells no start: the first arrival's stays."""
    call_id = "MTc2NDAwMDA@10.1.2.3"
    head = (
        f"PUT /v1/kazoo/customer_service/call_recording_{quote(call_id)}.mp3 HTTP/1.1\n"
        f"Host: archive.example.fi\nAuthorization: Basic {login(service)}\n"
        f"Content-Type: audio/mpeg\nContent-Length: {len(AUDIO)}\n"
    )
    before = datetime.now(UTC)
    first = await wire(service, head, AUDIO)
    found = await heard(service, first)
    assert (found["call_id"], found["call_type"]) == (call_id, "customer_service")
    begun = datetime.fromisoformat(found["started_at"])
    assert before - timedelta(seconds=4) < begun < datetime.now(UTC) - timedelta(seconds=1.9)
    again = await wire(service, head, AUDIO)
    assert (again.status, again.body) == (200, first.body)
    await service.turn_clock(timedelta(hours=2))
    late = await wire(service, head, AUDIO)
    assert (late.status, late.body) == (200, first.body)
    other = tone(2, pitch=880)
    assert (await wire(service, head, other)).status == 409


async def test_kazoo_tells_more_by_its_field_list(service: Service) -> None:
    """Its documents count seconds since the year 0."""
    moment = started()
    since_0 = int(moment.timestamp()) + 62_167_219_200
    head = (
        "PUT /v1/kazoo/contract/202611/0af4c1/202611-9f3a.mp3"
        f"?started_at={since_0}&direction=outbound&caller=%2B358401234567 HTTP/1.1\n"
        f"Host: archive.example.fi\nAuthorization: Basic {login(service)}\n"
        f"content_type: audio/mpeg\nContent-Length: {len(AUDIO)}\n"
    )
    found = await heard(service, await wire(service, head, AUDIO))
    assert (found["call_id"], found["direction"]) == ("202611-9f3a", "outbound")
    assert datetime.fromisoformat(found["started_at"]) == moment


async def test_kazoos_trial_of_a_storage_is_answered_and_kept_nowhere(service: Service) -> None:
    def head(size: int) -> str:
        return (
            "PUT /v1/kazoo/customer_service/a2f9.txt HTTP/1.1\nHost: archive.example.fi\n"
            f"Authorization: Basic {login(service)}\nContent-Length: {size}\n"
        )

    text = b"some random content: 4711"
    assert (await wire(service, head(len(text)), text)).status == 201
    await nothing_kept(service)
    assert [act for act, _ in await service.acts() if "tried" in act] == ["storage.tried"]
    assert (await wire(service, head(5000), bytes(5000))).status == 415


async def test_rtpengine_delivers(service: Service) -> None:
    body = ngfile(AUDIO)
    metadata = "caller:+358401234567|callee:sip:3201@sip.example.fi|queue:faults|note"
    head = rtpengine(service, body, Call_Metadata=metadata)
    answer = await wire(service, head, body)
    assert answer.status == 201
    found = await heard(service, answer)
    assert found["call_id"] == "1764-abc@sip.example.fi"
    assert (found["caller"], found["queue"]) == ("+358401234567", "faults")
    assert found["callee"] == "sip:3201@sip.example.fi"
    assert answer.headers["location"].endswith(answer.json()["id"])


async def test_rtpengine_tries_again_and_gets_the_same(service: Service) -> None:
    body = ngfile(AUDIO)
    head = rtpengine(service, body)
    answers = [await wire(service, head, body) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 200, 200]
    assert len(await service.holdings()) == 1


async def test_rtpengine_sends_one_file_for_each_stream_besides(service: Service) -> None:
    """One recording a call and kind, and each stream is one of its own."""
    body = ngfile(AUDIO)
    prefix = "1764-abc%40sip.example.fi-6a1b2c3d4e5f"
    heads = [rtpengine(service, body)] + [
        rtpengine(service, body, kind="single", name=f"{prefix}-{ssrc}", Label=ssrc)
        for ssrc in ("1a2b3c4d", "5e6f7a8b")
    ]
    for expected in (201, 200):
        answers = [await wire(service, head, body) for head in heads]
        assert [answer.status for answer in answers] == [expected] * 3
    assert {answer.json()["call_id"] for answer in answers} == {
        "1764-abc@sip.example.fi",
        "1764-abc@sip.example.fi-6a1b2c3d4e5f-1a2b3c4d",
        "1764-abc@sip.example.fi-6a1b2c3d4e5f-5e6f7a8b",
    }


async def test_rtpengine_as_it_names_its_file_delivers(service: Service) -> None:
    """Older ones use curl_mime_filedata, which adds a file name and a type."""
    body = form(
        part('name="ngfile"; filename="x-mix.wav"', AUDIO, "Content-Type: application/octet-stream")
    )
    await heard(service, await wire(service, rtpengine(service, body), body))


@pytest.mark.parametrize(
    "body",
    [
        form(part('name="ngfile"', AUDIO), part('name="ngfile"', AUDIO)),
        form(part('name="other"', b"x")),
        form(part('name="ngfile"', AUDIO))[:-30],
        form(part('name="ngfile"', AUDIO))[:5000],
        b"",
        b"no form at all",
    ],
    ids=["two", "none", "cut", "half", "empty", "text"],
)
async def test_a_broken_form_keeps_nothing(service: Service, body: bytes) -> None:
    answer = await wire(service, rtpengine(service, body), body)
    assert answer.status in (400, 415), answer.body
    await nothing_kept(service)


async def test_notify_post_alone_has_no_audio(service: Service) -> None:
    head = rtpengine(service, b"")
    head = head[: head.index("Content-Type")] + "Content-Type: application/x-www-form-urlencoded\n"
    assert (await wire(service, head)).status == 400
    await nothing_kept(service)


async def test_a_form_without_a_type_is_none(service: Service) -> None:
    authorized = f"Authorization: Basic {login(service)}\n"
    head = f"POST /v1/freeswitch/a.wav HTTP/1.1\nHost: x\n{authorized}Content-Length: 0\n"
    answer = await wire(service, head)
    assert (answer.status, answer.json()["type"]) == (400, "urn:call-archive:problem:malformed")
    await nothing_kept(service)


@pytest.mark.parametrize("way", ["PUT /v1/freeswitch", "POST /v1/freeswitch", "PUT /v1/kazoo"])
async def test_a_path_of_two_lines_is_an_address_of_this_way(service: Service, way: str) -> None:
    authorized = f"Authorization: Basic {login(service)}\n"
    head = f"{way}/other/a%0Ab.wav HTTP/1.1\nHost: x\n{authorized}Content-Length: 0\n"
    assert (await wire(service, head)).status in (400, 415)
    await nothing_kept(service)


async def test_rtpengine_is_refused_before_its_body(service: Service) -> None:
    body = ngfile(bytes(2_000_000))
    head = rtpengine(service, body, "") + "Expect: 100-continue\n"
    answer = await wire(service, head, body, ask=True)
    assert (answer.status, answer.went_on) == (422, False)
    assert answer.json()["errors"] == {"call_type": "is required"}


async def test_too_much_beside_the_file_is_refused(service: Service) -> None:
    texts = [part(f'name="x{number}"', bytes(30_000)) for number in range(3)]
    body = form(*texts, part('name="ngfile"', AUDIO))
    assert (await wire(service, rtpengine(service, body), body)).status == 422
    await nothing_kept(service)


@pytest.mark.parametrize("way", ["PUT /v1/freeswitch/other/a.wav", "PUT /v1/kazoo/other/a.mp3",
                                 "PUT /v1/kazoo/other/a.txt", "POST /v1/rtpengine",
                                 "POST /v1/freeswitch/other/a.cgi"])  # fmt: skip
@pytest.mark.parametrize("level", ["supervisor", "admin", "nobody"])
async def test_only_an_uploader_comes_in(service: Service, way: str, level: str) -> None:
    method, path = way.split()
    url = service.ingest + path
    answer = await service.ask(method, url, service.tokens.get(level, level))
    assert answer.status == (401 if level == "nobody" else 403)


async def test_a_quota_holds_for_what_came_without_a_length(service: Service) -> None:
    bound = Bounds.from_texts(quota="1kB")
    service.tokens["uploader"] = await service.key("uploader", "small", bounds=bound)
    answer = await wire(service, httapi(service, f"other/{CALL}.wav"), chunked(
        tagged(AUDIO, ICRD=epoch(started()))), ask=True)  # fmt: skip
    assert answer.status == 429
    await nothing_kept(service)


@pytest.fixture
async def curl(service: Service, tmp_path: Path) -> AsyncIterator[Any]:
    """The client itself: what FreeSWITCH and rtpengine are built with."""
    program = shutil.which("curl")
    assert program, "curl is needed"
    file = tmp_path / "call.wav"
    file.write_bytes(AUDIO)
    address = service.ingest.replace("://", f"://fs:{service.tokens['uploader']}@")

    async def run(path: str, *arguments: str) -> tuple[str, dict[str, Any]]:
        process = await asyncio.create_subprocess_exec(
            *(program, "--silent", "--show-error", "--write-out", "\n%{http_code}"),
            *(each.replace("FILE", str(file)) for each in arguments),
            address + path,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        body, _, status = out.decode().rpartition("\n")
        return status, json.loads(body)

    yield run


async def test_curl_delivers_each_way(service: Service, curl: Any) -> None:
    moment = started()
    cache = (f"/v1/freeswitch/other/a.wav?started_at={epoch(moment)}", "-T", "FILE",
             "-H", "Content-Type: audio/x-wav", "-H", "Expect: 100-continue")  # fmt: skip
    httapi = (f"/v1/freeswitch/other/b.wav?started_at={epoch(moment)}&junk=1", "-T", "FILE",
              "-H", "Transfer-Encoding: chunked", "-H", "Content-Type:")  # fmt: skip
    kazoo = ("/v1/kazoo/other/call_recording_c.wav", "-T", "FILE")
    notify = ("/v1/rtpengine?call_type=other", "-F", "ngfile=<FILE", "-H", "X-Recording-Call-ID: d",
              "-H", f"X-Recording-Call-Start-Time: {epoch(moment)}.000000")  # fmt: skip
    for number, sent in enumerate((cache, httapi, kazoo, notify)):
        for expected in ("201", "200"):
            status, receipt = await curl(*sent)
            assert (status, receipt.get("call_id")) == (expected, "abcd"[number]), receipt
        audio = await service.get(f"/v1/recordings/{receipt['id']}/audio")
        assert await audio.read() == AUDIO


async def test_a_sender_who_falls_silent_is_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GRACE", 0.1)
    body = ngfile(AUDIO)
    answer = await wire(service, rtpengine(service, body), body[:3000])
    assert answer.status == 503
    await nothing_kept(service)


async def test_no_uploader_learns_of_anothers_call(service: Service) -> None:
    """The start of a call that is here is looked up for its own source alone."""
    head = (
        "PUT /v1/kazoo/other/call_recording_x.wav HTTP/1.1\nHost: a\nAuthorization: Basic "
        f"{{}}\nContent-Length: {len(AUDIO)}\n"
    )
    first = await wire(service, head.format(login(service)), AUDIO)
    service.tokens["uploader"] = await service.key("uploader", "another")
    second = await wire(service, head.format(login(service)), AUDIO)
    assert (first.status, second.status) == (201, 201)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT source, started_at FROM recording ORDER BY received_at")
    assert [row["source"] for row in rows] == ["pbx", "another"]
    assert rows[0]["started_at"] < rows[1]["started_at"]


def siprec_form(
    service: Service, *parts: bytes, query: str = "?call_type=other"
) -> tuple[str, bytes]:
    body = form(*parts)
    return (
        f"POST /v1/recordings{query} HTTP/1.1\nHost: archive.example.fi\n"
        f"Authorization: Basic {login(service)}\nContent-Length: {len(body)}\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\n"
    ), body


async def test_siprec_metadata_may_stand_beside_the_audio(service: Service) -> None:
    moment = started().strftime("%Y-%m-%dT%H:%M:%S+0000")
    document = RFC.replace(b"2026-11-25T09:30:00Z", moment.encode())
    document = document.replace(b"2026-11-25T09:30:02Z", moment.encode())
    metadata = part('name="metadata"', document, "Content-Type: application/rs-metadata+xml")
    audio = part('name="audio"; filename="x.wav"', AUDIO, "Content-Type: audio/wav")
    answers = [
        await wire(service, *siprec_form(service, *parts))
        for parts in ((metadata, audio), (audio, metadata))
    ]
    assert [answer.status for answer in answers] == [201, 200]
    found = await heard(service, answers[1])
    assert found["call_id"] == "ab30317f1a784dc48ff824d0d3715d86"
    assert (found["caller"], found["call_type"]) == ("+358401234567", "other")


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (b"<!DOCTYPE r [<!ENTITY a 'x'>]><recording>&a;</recording>", 422),
        (b"<recording/>", 422),
        (b"{}", 422),
        (None, 400),
    ],
)
async def test_siprec_metadata_that_is_none_keeps_nothing(
    service: Service, document: bytes | None, status: int
) -> None:
    parts = [part('name="audio"', AUDIO)]
    if document is not None:
        kind = "Content-Type: application/rs-metadata+xml"
        parts.append(part('name="metadata"', document, kind))
    answer = await wire(service, *siprec_form(service, *parts))
    assert answer.status == status
    await nothing_kept(service)


async def test_siprec_metadata_without_audio_is_refused(service: Service) -> None:
    kind = "Content-Type: application/rs-metadata+xml"
    answer = await wire(service, *siprec_form(service, part('name="metadata"', RFC, kind)))
    assert answer.status in (400, 422)
    await nothing_kept(service)


async def test_a_vcon_may_stand_beside_the_audio(service: Service) -> None:
    def sent(digest: bytes) -> bytes:
        document = json.loads(vcon_document(start=started().isoformat()))
        content_hash = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        document["dialog"][1]["content_hash"] = f"sha512-{content_hash}"
        return part(
            'name="metadata"', json.dumps(document).encode(), "Content-Type: application/vcon"
        )

    audio = part('name="audio"; filename="x.wav"', AUDIO, "Content-Type: audio/wav")
    wrong, right = sent(hashlib.sha512(b"other").digest()), sent(hashlib.sha512(AUDIO).digest())
    for parts in ((wrong, audio), (audio, wrong)):
        refused = await wire(service, *siprec_form(service, *parts))
        assert (refused.status, refused.json()["type"]) == (
            400, "urn:call-archive:problem:digest-mismatch",
        )  # fmt: skip
    # What the part itself announces is held against it, too.
    value = base64.b64encode(hashlib.sha512(b"other").digest()).decode()
    told = part('name="audio"', AUDIO, f"Content-Digest: sha-512=:{value}:")
    assert (await wire(service, *siprec_form(service, right, told))).status == 400
    await nothing_kept(service)
    found = await heard(service, await wire(service, *siprec_form(service, right, audio)))
    assert (found["caller"], found["agent"]) == ("+358407654321", "Anna")


@pytest.mark.parametrize("kind", ["vcon", "rs-metadata+xml"])
async def test_what_the_query_says_counts_before_a_document(service: Service, kind: str) -> None:
    begun = started().isoformat()
    document = vcon_document(start=begun, content_hash=None) if kind == "vcon" else RFC
    metadata = part('name="metadata"', document, f"Content-Type: application/{kind}")
    query = urlencode({"call_type": "other", "call_id": "i-2", "started_at": begun, "caller": ""})
    head, body = siprec_form(service, metadata, part('name="audio"', AUDIO), query=f"?{query}")
    found = await heard(service, await wire(service, head, body))
    assert found["call_id"] == "i-2"
    assert datetime.fromisoformat(found["started_at"]) == datetime.fromisoformat(begun)
    assert found["caller"].startswith("+35840"), "an empty value says nothing"


@pytest.mark.parametrize("kind", ["vcon", "rs-metadata+xml"])
async def test_the_query_beside_a_document_is_read_as_that_of_a_put(
    service: Service, kind: str
) -> None:
    begun = started().isoformat()
    document = vcon_document(start=begun, content_hash=None) if kind == "vcon" else RFC
    metadata = part('name="metadata"', document, f"Content-Type: application/{kind}")
    audio = part('name="audio"', AUDIO)
    query = f"?call_type=other&{urlencode({'started_at': begun})}"
    for name in ("call_type", "agent"):
        twice = f"{query}&{name}=contract&{name}=other"
        answer = await wire(service, *siprec_form(service, metadata, audio, query=twice))
        assert answer.status == 422
        assert list(answer.json()["errors"]) == [name]
    await nothing_kept(service)
    plus = f"{query}&caller=+46850000000"
    sent = siprec_form(service, metadata, audio, query=plus)
    assert (await heard(service, await wire(service, *sent)))["caller"] == "+46850000000"


async def test_no_key_keeps_the_others_from_sending_vcons(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vCon is held in memory: a key has one place of the few, and not for long."""
    document = vcon_document(start=started().isoformat(), content_hash=None)
    address = yarl.URL(service.ingest)

    async def begin(token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        head = (
            "POST /v1/recordings HTTP/1.1\r\nHost: archive\r\nContent-Type: application/vcon\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {len(document)}\r\n\r\n"
        )
        writer.write(head.encode() + document[:10])
        return reader, writer

    monkeypatch.setattr(ingest, "_PATIENCE", 3.0)
    first, line = await begin(service.tokens["uploader"])
    while not service.vault.intakes:
        await asyncio.sleep(0.01)
    second, other = await begin(service.tokens["uploader"])
    assert b" 503 " in await asyncio.wait_for(second.readline(), 2)
    another = await service.key("uploader", "another")
    third, last = await begin(another)
    last.write(document[10:])
    assert b" 422 " in await asyncio.wait_for(third.readline(), 2), "it was read to its end"
    assert b" 503 " in await asyncio.wait_for(first.readline(), 5)
    for each in (line, other, last):
        each.close()
    assert not service.vault.intakes


async def test_a_vcon_may_have_its_audio_within(service: Service) -> None:
    begun = started().isoformat()

    def sent(body: bytes | None, digest: bytes) -> tuple[str, bytes]:
        text = base64.urlsafe_b64encode(body or b"").decode().rstrip("=")
        content_hash = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        within = {"body": text, "encoding": "base64url"} if body else {}
        document = vcon_document(start=begun, content_hash=f"sha512-{content_hash}", **within)
        head = (
            "POST /v1/recordings?call_type=fault_report HTTP/1.1\n"
            f"Host: archive\nAuthorization: Basic {login(service)}\n"
            f"Content-Type: application/vcon\nContent-Length: {len(document)}\n"
        )
        return head, document

    digest = hashlib.sha512(AUDIO).digest()
    refused = {
        400: sent(AUDIO, hashlib.sha512(b"other").digest()),
        415: sent(b"no audio", hashlib.sha512(b"no audio").digest()),
        422: sent(None, digest),
        413: (
            sent(None, digest)[0].partition("Content-Length")[0] + "Content-Length: 40000000\n",
            b"",
        ),
    }
    for status, (head, body) in refused.items():
        assert (await wire(service, head, body)).status == status
    await nothing_kept(service)
    answer = await wire(service, *sent(AUDIO, digest))
    assert answer.status == 201
    found = await heard(service, answer)
    assert (found["caller"], found["agent"]) == ("+358407654321", "Anna")
    assert (await wire(service, *sent(AUDIO, digest))).status == 200
