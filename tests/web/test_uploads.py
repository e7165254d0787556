"""tus 1.0 against real servers: parts, cuts, restarts, damage, expiry, full disks."""

import asyncio
import base64
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from archive.bounds import Bounds
from archive.errors import NotFoundError, UnavailableError
from jobs import schedule
from storage import growing, uploads
from storage.shelf import Shelf
from tests.jobs.test_expiry import a_year_ago, when_over
from tests.roles import acting, change, connection
from tests.services import Faulty, Service, _door, ways_in
from tests.sounds import tone
from tests.web.test_upload import problem, query
from web import limits
from web import uploads as door

AUDIO = tone(20)
TUS = {"Tus-Resumable": "1.0.0"}
PART = {**TUS, "Content-Type": "application/offset+octet-stream"}


def said(call_id: str = "call", **more: str) -> str:
    fields = {"call_id": call_id, **query(), **more}
    return ",".join(
        f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in fields.items()
    )


class Client:
    """A client of the protocol that does only what it is told."""

    def __init__(self, service: Service) -> None:
        self.service, self.address = service, ""

    async def send(
        self, method: str, headers: dict[str, str], data: Any = None, path: str | None = None
    ) -> aiohttp.ClientResponse:
        url = self.service.ingest + (self.address if path is None else path)
        login = self.service._login("uploader")
        return await self.service.session.request(
            method, url, data=data, headers={**TUS, **login, **headers}
        )

    async def create(
        self, length: int | None = len(AUDIO), data: bytes | None = None, **more: str
    ) -> aiohttp.ClientResponse:
        size = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        headers = {**size, "Upload-Metadata": said(), **(PART if data else {}), **more}
        answer = await self.send("POST", headers, data, "/v1/uploads")
        self.address = answer.headers.get("Location", "")
        return answer

    async def patch(self, offset: int, data: Any, **more: str) -> aiohttp.ClientResponse:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        return await self.send("PATCH", {**PART, "Upload-Offset": str(offset), **headers}, data)

    async def offset(self) -> int:
        answer = await self.send("HEAD", {})
        assert answer.status == 200, answer.status
        assert answer.headers["Cache-Control"] == "private, no-store"
        return int(answer.headers["Upload-Offset"])

    @property
    def id(self) -> UUID:
        return UUID(self.address.rpartition("/")[2])

    def file(self) -> Path:
        return self.service.vault.shelf.file(self.id)


@pytest.fixture
def client(service: Service) -> Client:
    return Client(service)


async def heard(service: Service, answer: aiohttp.ClientResponse, audio: bytes = AUDIO) -> str:
    """The receipt's headers are those of a PUT, and a supervisor hears the call."""
    digest = base64.b64encode(hashlib.sha256(audio).digest()).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert "GMT" in answer.headers["Sunset"]
    found = await service.get("/v1/recordings?call_id=call&from=2020-01-01T00:00:00Z")
    (item,) = (await found.json())["items"]
    sound = await service.get(f"/v1/recordings/{item['id']}/audio")
    assert await sound.read() == audio
    return str(item["id"])


async def nothing_left(service: Service) -> None:
    assert not service.vault.shelf.lying()
    assert not list(service.vault.spool.iterdir())
    async with connection(service.vault.pool) as lent:
        assert not await lent.fetchval("SELECT count(*) FROM upload WHERE recording IS NULL")


async def test_what_is_spoken_is_told_to_anybody(service: Service) -> None:
    answer = await service.ask("OPTIONS", f"{service.ingest}/v1/uploads", None)
    assert answer.status == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Max-Size"] == str(service.limits.max_bytes)
    assert "sha1" in answer.headers["Tus-Checksum-Algorithm"]
    assert set(answer.headers["Tus-Extension"].split(",")) == {
        "creation", "creation-with-upload", "creation-defer-length", "checksum", "expiration",
        "termination",
    }  # fmt: skip


async def test_every_refusal_says_the_version(service: Service, client: Client) -> None:
    address = f"{service.ingest}/v1/uploads"
    refused = [
        *[await service.ask("POST", address, token) for token in (None, "nobody", "supervisor")],
        await service.ask("HEAD", f"{address}/x", "uploader"),
        await client.create(**{"Tus-Resumable": "0.2.2"}),
        await client.create(**{"Upload-Metadata": ""}),
    ]
    assert [answer.status for answer in refused] == [401, 401, 403, 412, 412, 422]
    for answer in refused:
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert ("Tus-Version" in answer.headers) is (answer.status == 412)
    for elsewhere in (service.ingest, service.retrieval):
        other = await service.ask("GET", f"{elsewhere}/v1/recordings", "nobody")
        assert "Tus-Resumable" not in other.headers


async def test_an_upload_in_parts(service: Service, client: Client) -> None:
    created = await client.create()
    assert created.status == 201
    assert created.headers["Tus-Resumable"] == "1.0.0"
    assert "GMT" in created.headers["Upload-Expires"]
    assert await client.offset() == 0
    for start in range(0, len(AUDIO), 100_000):
        part = AUDIO[start : start + 100_000]
        answer = await client.patch(start, part)
        assert answer.status == 204
        assert answer.headers["Upload-Offset"] == str(start + len(part))
    identifier = await heard(service, answer)
    assert answer.headers["Location"].endswith(identifier)
    after = await client.send("HEAD", {})
    assert after.headers["Upload-Offset"] == after.headers["Upload-Length"] == str(len(AUDIO))
    assert after.headers["Location"] == answer.headers["Location"]
    again = await client.patch(len(AUDIO), b"")
    assert (again.status, again.headers["Location"]) == (204, answer.headers["Location"])
    await problem(await client.patch(len(AUDIO), b"more"), 400, "malformed")
    await nothing_left(service)


async def test_head_tells_what_was_said(client: Client) -> None:
    metadata = f"{said()},filename Y2FsbC53YXY="
    await client.create(**{"Upload-Metadata": metadata})
    assert (await client.send("HEAD", {})).headers["Upload-Metadata"] == metadata


async def test_an_upload_that_comes_whole(service: Service, client: Client) -> None:
    answer = await client.create(data=AUDIO)
    assert answer.status == 201
    assert answer.headers["Upload-Offset"] == str(len(AUDIO))
    assert (await answer.json())["id"] == await heard(service, answer)
    assert await client.offset() == len(AUDIO)
    await nothing_left(service)


async def test_an_upload_that_begins_with_a_part(service: Service, client: Client) -> None:
    answer = await client.create(data=AUDIO[:70_000])
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "70000")
    await heard(service, await client.patch(70_000, AUDIO[70_000:]))


async def test_the_length_may_be_told_later(service: Service, client: Client) -> None:
    assert (await client.create(None, data=AUDIO[:1000])).status == 201
    known = await client.send("HEAD", {})
    assert known.headers["Upload-Defer-Length"] == "1"
    assert "Upload-Length" not in known.headers
    await client.patch(1000, AUDIO[1000:9000])
    few = await client.patch(9000, AUDIO[9000:], Upload_Length="5000")
    await problem(few, 400, "malformed")
    answer = await client.patch(9000, AUDIO[9000:], Upload_Length=str(len(AUDIO)))
    await heard(service, answer)


async def test_what_is_always_the_same_may_stand_in_the_query(client: Client) -> None:
    fields = query()
    path = f"/v1/uploads?call_type=other&started_at={fields['started_at'].replace('+', '%2B')}"
    metadata = {"Upload-Length": "9", "Upload-Metadata": "call_id YQ=="}
    assert (await client.send("POST", metadata, path=path)).status == 201


@pytest.mark.parametrize("whole", [True, False])
async def test_the_query_counts_as_well_where_all_comes_at_once(
    service: Service, client: Client, whole: bool
) -> None:
    raw = bytes([0x55, 0xD5]) * 8000

    async def send(metadata: str, more: str) -> aiohttp.ClientResponse:
        headers = {"Upload-Length": str(len(raw)), "Upload-Metadata": metadata}
        path = f"/v1/uploads?{more}"
        if whole:
            return await client.send("POST", {**headers, **PART}, raw, path)
        begun = await client.send("POST", headers, path=path)
        assert begun.status == 201
        client.address = begun.headers["Location"]
        return await client.patch(0, raw)

    kind = "filetype=audio/PCMA;rate=8000"
    await problem(await send(said(), f"{kind}&sha256={'0' * 64}"), 400, "digest-mismatch")
    answer = await send(said(), f"{kind}&sha256={hashlib.sha256(raw).hexdigest()}")
    await heard(service, answer, raw)


@pytest.mark.parametrize(
    ("name", "status"), [("call_type", 422), ("filetype", 400), ("sha256", 400), ("x", 201)]
)
async def test_what_the_query_says_twice_is_refused(client: Client, name: str, status: int) -> None:
    headers = {"Upload-Length": "9", "Upload-Metadata": said().replace("call_type ", "y ")}
    path = "/v1/uploads?call_type=other" if name != "call_type" else "/v1/uploads?"
    answer = await client.send("POST", headers, path=f"{path}&{name}=other&{name}=other")
    assert answer.status == status, await answer.text()
    if status == 201:
        client.address = answer.headers["Location"]
        assert await client.offset() == 0


async def test_metadata_may_stand_on_several_lines(service: Service, client: Client) -> None:
    first, _, second = said(agent="Anna").rpartition(",")
    size = ("Upload-Length", str(len(AUDIO)))
    headers = [*TUS.items(), *service._login("uploader").items(), size]
    lines = [("Upload-Metadata", first), ("Upload-Metadata", second)]
    url = f"{service.ingest}/v1/uploads"
    answer = await service.session.post(url, headers=[*headers, *lines])
    assert answer.status == 201
    client.address = answer.headers["Location"]
    assert (await client.send("HEAD", {})).headers["Upload-Metadata"] == f"{first},{second}"
    identifier = await heard(service, await client.patch(0, AUDIO))
    shown = await (await service.get(f"/v1/recordings/{identifier}")).json()
    assert shown["agent"] == "Anna"
    twice = await service.session.post(url, headers=[*headers, lines[1], *lines])
    await problem(twice, 400, "malformed")


@pytest.mark.parametrize(
    ("headers", "status", "name"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "version"),
        ({"Upload-Length": "x"}, 400, "malformed"),
        ({"Upload-Length": "-1"}, 400, "malformed"),
        ({"Upload-Length": "0"}, 415, "not-audio"),
        ({"Upload-Length": "99000000"}, 413, "too-large"),
        ({"Upload-Defer-Length": "1"}, 400, "malformed"),
        ({"Upload-Metadata": "call_id !"}, 400, "malformed"),
        ({"Upload-Metadata": "call_id YQ==,call_id YQ=="}, 400, "malformed"),
        ({"Upload-Metadata": "h\xe4iri\xf6 YQ=="}, 400, "malformed"),
        ({"Upload-Metadata": "call_id YQ=="}, 422, "invalid"),
        ({"Upload-Metadata": ""}, 422, "invalid"),
        ({"Upload-Checksum": "crc32 AAAA"}, 400, "malformed"),
        ({"Content-Digest": "sha-256=abc"}, 400, "malformed"),
    ],
)
async def test_a_wrong_creation_is_refused(
    service: Service, client: Client, headers: dict[str, str], status: int, name: str
) -> None:
    await problem(await client.create(**headers), status, name)
    await nothing_left(service)


async def test_a_wrong_part_is_refused_and_changes_nothing(client: Client) -> None:
    await client.create(data=AUDIO[:1000])
    wrong = await client.patch(999, AUDIO[999:])
    assert (await problem(wrong, 409, "offset"))["offset"] == 1000
    await problem(await client.patch(1001, AUDIO[1001:]), 409, "offset")
    plain = {"Content-Type": "audio/wav"}
    answer = await client.send("PATCH", {"Upload-Offset": "1000", **plain}, AUDIO[1000:])
    await problem(answer, 415, "not-audio")
    old = await client.patch(1000, AUDIO[1000:], Tus_Resumable="0.2.2")
    await problem(old, 412, "version")
    await problem(await client.send("PATCH", PART, AUDIO[1000:]), 400, "malformed")
    more = await client.patch(1000, AUDIO[1000:] + b"x")
    await problem(more, 400, "malformed")

    async def pieces() -> AsyncIterator[bytes]:
        yield AUDIO[1000:]
        yield b"x"

    await problem(await client.patch(1000, pieces()), 400, "malformed")
    assert await client.offset() == 1000


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
async def test_a_part_is_held_against_its_checksum(
    service: Service, client: Client, algorithm: str
) -> None:
    def checksum(data: bytes) -> str:
        return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"

    await client.create()
    await client.patch(0, AUDIO[:5000], Upload_Checksum=checksum(AUDIO[:5000]))
    damaged = AUDIO[5000:9000] + b"x"
    answer = await client.patch(5000, damaged, Upload_Checksum=checksum(AUDIO[5000:9001]))
    await problem(answer, 460, "checksum")
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert await client.offset() == 5000
    rest = AUDIO[5000:]
    await heard(service, await client.patch(5000, rest, Upload_Checksum=checksum(rest)))


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512", "md5"])
async def test_a_part_is_held_against_the_digests_of_http(
    service: Service, client: Client, algorithm: str
) -> None:
    def digest(data: bytes) -> dict[str, str]:
        made = hashlib.new(algorithm.replace("-", ""), data).digest()
        value = base64.b64encode(made).decode()
        if algorithm == "md5":
            return {"Content_MD5": value}
        return {"Content_Digest": f"{algorithm}=:{value}:"}

    whole = {name.replace("_", "-"): value for name, value in digest(b"other").items()}
    await problem(await client.create(data=AUDIO, **whole), 400, "digest-mismatch")
    await nothing_left(service)
    await client.create()
    await client.patch(0, AUDIO[:5000], **digest(AUDIO[:5000]))
    answer = await client.patch(5000, AUDIO[5000:9000] + b"x", **digest(AUDIO[5000:9001]))
    await problem(answer, 400, "digest-mismatch")
    assert await client.offset() == 5000
    await heard(service, await client.patch(5000, AUDIO[5000:], **digest(AUDIO[5000:])))


async def test_a_whole_upload_is_held_against_its_checksum(
    service: Service, client: Client
) -> None:
    other = base64.b64encode(hashlib.sha1(b"other").digest()).decode()
    answer = await client.create(data=AUDIO, **{"Upload-Checksum": f"sha1 {other}"})
    await problem(answer, 460, "checksum")
    await nothing_left(service)
    assert not await service.rows()


async def test_an_upload_is_its_keys_alone(service: Service, client: Client) -> None:
    await client.create(data=AUDIO[:1000])
    service.tokens["uploader"] = await service.key("uploader", "another")
    for method, headers in (("HEAD", {}), ("PATCH", {"Upload-Offset": "1000"}), ("DELETE", {})):
        assert (await client.send(method, {**PART, **headers})).status == 404
    assert client.file().exists()


async def test_an_upload_can_be_ended(service: Service, client: Client) -> None:
    await client.create(data=AUDIO[:1000])
    assert (await client.send("DELETE", {})).status == 204
    await nothing_left(service)
    assert (await client.send("HEAD", {})).status == 404
    await problem(await client.patch(1000, AUDIO[1000:]), 404, "not-found")
    await problem(await client.send("DELETE", {}), 404, "not-found")


async def test_methods_may_be_overridden(service: Service, client: Client) -> None:
    await client.create()
    over = {**PART, "X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0"}
    await heard(service, await client.send("POST", over, AUDIO))
    over = {"X-HTTP-Method-Override": "DELETE"}
    assert (await client.send("POST", over)).status == 204
    await problem(await client.send("POST", over), 404, "not-found")
    await problem(await client.send("POST", {}), 400, "malformed")


async def test_what_is_no_audio_is_ended_with_its_last_part(
    service: Service, client: Client
) -> None:
    await client.create(length=20)
    await problem(await client.patch(0, b"no audio, only text!"), 415, "not-audio")
    assert (await client.send("HEAD", {})).status == 404
    await nothing_left(service)


async def test_the_same_call_again_and_another(service: Service, client: Client) -> None:
    metadata = said()
    for _ in range(2):
        await client.create(**{"Upload-Metadata": metadata})
        answer = await client.patch(0, AUDIO)
        assert answer.status == 204
    await heard(service, answer)
    other = tone(20, pitch=880)
    await client.create(**{"Upload-Metadata": metadata})
    await problem(await client.patch(0, other), 409, "conflict")
    await nothing_left(service)


async def until(seen: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(60):
        while not await seen():
            await asyncio.sleep(0.02)


async def cut_line(client: Client, offset: int, data: bytes, arrived: list[int]) -> None:
    """Send the head of a PATCH for all the rest and some bytes; hang up when they have arrived."""
    port = client.service.ingest.rpartition(":")[2]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = {**PART, **client.service._login("uploader"), "Upload-Offset": str(offset),
               "Content-Length": str(len(AUDIO) - offset), "Host": "a"}  # fmt: skip
    lines = [f"PATCH {client.address} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    async def all_here() -> bool:
        return sum(arrived) == len(data)

    await until(all_here)
    writer.transport.abort()


async def test_a_cut_line_loses_nothing_that_came(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[int] = []
    real = growing.GrowingFile.add

    def add(file: growing.GrowingFile, piece: bytes) -> None:
        real(file, piece)
        arrived.append(len(piece))

    async def received() -> int:
        async with connection(service.vault.pool) as lent:
            return int(await lent.fetchval("SELECT received FROM upload WHERE id = $1", client.id))

    monkeypatch.setattr(growing.GrowingFile, "add", add)
    await client.create()
    for start in (0, 90_000, 180_000):
        arrived.clear()
        await cut_line(client, start, AUDIO[start : start + 90_000], arrived)

        async def kept(end: int = start + 90_000) -> bool:
            return await received() == end

        await until(kept)
        assert await client.offset() == start + 90_000
    await heard(service, await client.patch(270_000, AUDIO[270_000:]))
    await nothing_left(service)


async def test_who_comes_later_has_the_upload(service: Service, client: Client) -> None:
    """A line that died without a word, or two clients at once: one goes on, and all is in order."""
    await client.create()
    begun, never = asyncio.Event(), asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield AUDIO[:50_000]
        begun.set()
        await never.wait()

    first = asyncio.create_task(client.patch(0, stuck()))
    await begun.wait()
    await asyncio.sleep(0.2)
    assert await client.offset() == 50_000
    with pytest.raises(aiohttp.ClientError):
        await first
    await heard(service, await client.patch(50_000, AUDIO[50_000:]))


async def test_parts_that_come_at_once_are_never_mixed(service: Service, client: Client) -> None:
    await client.create()
    position = 0
    for _ in range(200):
        end = min(position + 40_000, len(AUDIO))
        tries = [client.patch(position, AUDIO[position:end]) for _ in range(4)]
        answers = await asyncio.gather(*tries, return_exceptions=True)
        done = [each for each in answers if isinstance(each, aiohttp.ClientResponse)]
        assert {each.status for each in done} <= {204, 409, 503}
        position = await client.offset()
        if position == len(AUDIO):
            break
    await heard(service, await client.send("HEAD", {}))


async def test_no_offset_is_the_whole_length_before_the_recording_exists(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise UnavailableError("The object store is away.")

    await client.create()
    vault = service.vault
    real = vault.objects
    change(vault, "objects", Faulty(real, put=away))
    await problem(await client.patch(0, AUDIO), 503, "unavailable")
    assert (await client.send("HEAD", {})).status == 503
    await problem(await client.patch(len(AUDIO), b""), 503, "unavailable")
    assert not [row for row in await service.rows() if row["state"] == "stored"]
    change(vault, "objects", real)
    answer = await client.send("HEAD", {})
    assert answer.headers["Upload-Offset"] == str(len(AUDIO))
    await heard(service, answer)
    await nothing_left(service)


async def test_a_clock_that_was_put_back_ends_no_upload(service: Service, client: Client) -> None:
    await client.create()
    await client.patch(0, AUDIO[:100_000])
    await service.turn_clock(timedelta(hours=-2))
    await problem(await client.patch(100_000, AUDIO[100_000:]), 503, "unavailable")
    assert (await client.send("HEAD", {})).status == 503
    await service.turn_clock(timedelta())
    await heard(service, await client.send("HEAD", {}))
    await nothing_left(service)


async def test_what_was_not_finished_expires(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.create(data=AUDIO[:100_000])
    await service.turn_clock(timedelta(hours=23))
    assert await client.offset() == 100_000
    await service.turn_all_clocks(timedelta(hours=25), monkeypatch)
    assert (await client.send("HEAD", {})).status == 404
    await problem(await client.patch(100_000, AUDIO[100_000:]), 404, "not-found")
    assert client.file().exists()
    await schedule.tidy(service.vault)
    await nothing_left(service)


async def test_an_upload_expires_with_its_call(service: Service, client: Client) -> None:
    """Nothing of a call is kept past its year, unfinished or not."""
    await client.create(**{"Upload-Metadata": said(started_at=a_year_ago(hours=1))})
    await client.patch(0, AUDIO[:5000])
    await service.turn_clock(timedelta(hours=2))
    assert (await client.send("HEAD", {})).status == 404


async def test_a_file_without_a_row_goes_and_one_with_a_row_stays(
    service: Service, client: Client
) -> None:
    await client.create(data=AUDIO[:1000])
    stray = service.vault.shelf.file(UUID(int=1))
    stray.write_bytes(b"left by a crash")
    assert await uploads.collect(service.vault) == 1
    assert set(service.vault.shelf.lying()) == {str(client.id)}


async def test_nothing_of_it_is_on_the_disk_in_clear(service: Service, client: Client) -> None:
    needle = os.urandom(24).hex()
    await client.create(
        data=AUDIO[:300_000], **{"Upload-Metadata": said("call-" + needle, agent=needle)}
    )
    lying = client.file().read_bytes()
    assert len(lying) > 300_000
    for start in range(0, 300_000, 10_000):
        assert AUDIO[start + 50 : start + 82] not in lying
    async with connection(service.vault.pool) as lent:
        row = await lent.fetchrow("SELECT upload::text AS text FROM upload")
    assert needle not in row["text"]
    assert needle.encode().hex() not in row["text"]


async def test_after_its_day_no_copy_of_it_opens(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the file, and one of the row, both made in time."""
    await client.create(data=AUDIO[:300_000])
    async with connection(service.vault.pool) as lent:
        row = await lent.fetchrow("SELECT * FROM upload")
    upload = uploads._from_row(service.vault, row)
    copy = client.file().read_bytes()
    day = service.vault.policy.day_of(upload.expires_at)
    await service.turn_all_clocks(when_over(day), monkeypatch)
    await schedule.tidy(service.vault)
    await service.night()
    assert day in service.vault.ring.destroyed()
    client.file().write_bytes(copy)
    with pytest.raises(NotFoundError):
        uploads._from_row(service.vault, row)


async def test_what_was_changed_on_the_disk_is_noticed(service: Service, client: Client) -> None:
    await client.create(data=AUDIO[:300_000])
    content = bytearray(client.file().read_bytes())
    content[200_000] ^= 1
    client.file().write_bytes(content)
    await problem(await client.patch(300_000, AUDIO[300_000:]), 404, "not-found")
    assert not await service.rows()
    await nothing_left(service)


async def test_who_goes_on_with_what_is_gone_from_the_disk_begins_anew(
    service: Service, client: Client
) -> None:
    for gone in ("shorter", "removed"):
        await client.create()
        assert (await client.patch(0, AUDIO[:5000])).status == 204
        if gone == "removed":
            client.file().unlink()
        else:
            os.truncate(client.file(), 100)
        await problem(await client.patch(5000, AUDIO[5000:]), 404, "not-found")
        assert (await client.send("HEAD", {})).status == 404
        await nothing_left(service)


@pytest.mark.parametrize("what", ["pwrite", "fsync"])
async def test_a_full_disk_keeps_what_was_told(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    await client.create(data=AUDIO[:40_000])
    full = True

    def refuse(*arguments: Any) -> Any:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    real = getattr(os, what)
    monkeypatch.setattr(growing.os, what, refuse)
    answer = await client.patch(40_000, AUDIO[40_000:])
    await problem(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    full = False
    assert await client.offset() == 40_000
    await heard(service, await client.patch(40_000, AUDIO[40_000:]))


async def test_bytes_are_on_the_disk_before_they_are_told(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    await client.create()
    monkeypatch.setattr(growing.os, "fsync", fsync)
    monkeypatch.setattr(door, "KEPT", 100_000)
    await client.patch(0, AUDIO[:250_000])
    size = client.file().stat().st_size
    assert size in synced
    assert sum(each > 0 for each in synced) >= 3


async def test_a_part_over_the_quota_is_refused(service: Service, client: Client) -> None:
    bound = Bounds.from_texts(quota="500kB")
    service.tokens["uploader"] = await service.key("uploader", "small", bounds=bound)
    await client.create(length=300_000)
    await problem(await client.create(length=300_000), 429, "too-many")


async def test_a_key_has_so_many_unfinished_uploads(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST", 2)
    statuses = [(await client.create()).status for _ in range(3)]
    assert statuses == [201, 201, 429]


@asynccontextmanager
async def another(service: Service, folder: Path) -> AsyncIterator[Service]:
    """The ingest door of another service on the same database, with a disk of its own."""
    vault = replace(service.vault, shelf=Shelf(folder))
    async with AsyncExitStack() as stack:
        yield replace(
            service, vault=vault, ingest=await _door(stack, acting(vault, "ingest"), "", ways_in())
        )


async def test_an_upload_belongs_to_the_service_that_has_its_bytes(
    service: Service, client: Client, tmp_path: Path
) -> None:
    await client.create(data=AUDIO[:1000])
    async with another(service, tmp_path / "other") as other:
        client.service = other
        assert (await client.send("HEAD", {})).status == 503
        answer = await client.patch(1000, AUDIO[1000:])
        await problem(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) == 1
        await uploads.collect(other.vault)
        client.service = service
        await heard(service, await client.patch(1000, AUDIO[1000:]))
        client.service = other
        assert await client.offset() == len(AUDIO)


async def test_another_start_of_the_service_goes_on(service: Service, client: Client) -> None:
    """What one process wrote down another reads: the shelf keeps its name."""
    await client.create(data=AUDIO[:123_456])
    async with another(service, service.vault.shelf.file(UUID(int=0)).parent) as again:
        client.service = again
        assert await client.offset() == 123_456
        await heard(service, await client.patch(123_456, AUDIO[123_456:]))


async def test_a_sender_who_falls_silent_is_given_up_and_his_bytes_kept(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GRACE", 0.1)
    await client.create()

    async def silent() -> AsyncIterator[bytes]:
        yield AUDIO[:50_000]
        await asyncio.sleep(20)

    await problem(await client.patch(0, silent()), 503, "unavailable")
    monkeypatch.setattr(limits, "GRACE", 60)
    assert await client.offset() == 50_000


async def test_the_digest_of_the_whole_is_held_against_what_has_come(
    service: Service, client: Client
) -> None:
    digest = hashlib.sha256(AUDIO).hexdigest()
    wrong = await client.create(**{"Upload-Metadata": said(sha256="no digest")})
    assert (await problem(wrong, 400, "malformed"))["detail"].startswith("`sha256`")
    await client.create(**{"Upload-Metadata": said(sha256=digest[::-1])})
    await problem(await client.patch(0, AUDIO), 400, "digest-mismatch")
    assert (await client.send("HEAD", {})).status == 404
    await nothing_left(service)
    await client.create(**{"Upload-Metadata": said(sha256=digest)})
    await heard(service, await client.patch(0, AUDIO))
    whole = await client.create(data=AUDIO, **{"Upload-Metadata": said("b", sha256=digest[::-1])})
    await problem(whole, 400, "digest-mismatch")
    assert len(await service.rows()) == 1


def test_services_that_start_together_name_their_place_once(tmp_path: Path) -> None:
    """One of another name would take the files of the others for nobody's, and remove them."""
    together = Barrier(8)

    def start() -> Shelf:
        together.wait()
        return Shelf(tmp_path / "uploads")

    for _ in range(20):
        shutil.rmtree(tmp_path / "uploads", ignore_errors=True)
        with ThreadPoolExecutor(8) as pool:
            shelves = [each.result() for each in [pool.submit(start) for _ in range(8)]]
        assert len({shelf.place for shelf in shelves}) == 1
        assert shelves[0].lying() == {}
        assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["place"]
