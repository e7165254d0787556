"""Needles: what callers send is found nowhere in clear, and nowhere at all afterwards."""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from storage import recordings
from storage.database import connection
from storage.objects import ObjectStore
from tests.jobs.test_expiry import a_year_ago
from tests.services import Service
from tests.sounds import tone
from tests.stores.servers import Server, running_rclone
from tests.web.test_upload import query

NEEDLES = {
    "caller": "+358409187265",
    "callee": "+358505551734",
    "agent": "Quillberta Needlesworth",
    "queue": "queue-zyxwvut",
    "customer": "customer-8f31qq",
    "contract": "contract-7h22pp",
}
CALL_ID = "call-needle-55aa33"
WRONG = "wrong-needle-91kk"
FILE_NAME = "filename-needle-77"
SPOKEN = b"spoken-needle-in-the-audio-itself" * 40
PLAIN = sorted(
    {
        *NEEDLES.values(),
        "Needlesworth",
        "quillberta",
        "0409187265",
        "409187265",
        "505551734",
        CALL_ID,
        WRONG,
        FILE_NAME,
        "needle-in-the-audio",
    }
)


def found(where: str | bytes) -> list[str]:
    """The needles in a text, in any case, in UTF-8, in UTF-16 or as hexadecimal digits."""
    raw = where.encode() if isinstance(where, str) else where
    lowered = raw.lower()
    forms = {
        needle: [
            needle.lower().encode(),
            needle.lower().encode("utf-16-le"),
            needle.encode().hex().encode(),
        ]
        for needle in PLAIN
    }
    return [needle for needle, kinds in forms.items() if any(kind in lowered for kind in kinds)]


def talking(pitch: int = 440) -> bytes:
    """A WAV whose samples hold a text, so that audio in clear is noticed."""
    audio = bytearray(tone(3, pitch=pitch))
    audio[2000 : 2000 + len(SPOKEN)] = SPOKEN
    return bytes(audio)


@pytest.fixture
def own_rclone(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, whose folder can be read to the last byte."""
    with running_rclone(tmp_path / "store") as server:
        yield server


@pytest.fixture
async def rclone_store(own_rclone: Server) -> AsyncIterator[ObjectStore]:
    """The store of this module's services."""
    store = await own_rclone.connect()
    yield store
    await store.close()


async def dump(service: Service) -> str:
    """Every table of the database as text, bytes as hexadecimal digits; and its statements."""
    texts = []
    async with connection(service.vault.pool) as lent:
        tables = await lent.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for table in tables:
            rows = await lent.fetch(f'SELECT t::text AS line FROM "{table["tablename"]}" t')
            texts += [row["line"] for row in rows]
        doing = await lent.fetch("SELECT query FROM pg_stat_activity")
    return "\n".join(texts + [row["query"] or "" for row in doing])


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            yield str(path.relative_to(folder)), path.read_bytes()


def unnamed(service: Service) -> list[bytes]:
    """What the open files without a name hold, wherever they are."""
    contents = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            place = os.readlink(f"/proc/self/fd/{entry}")
            if place.startswith(str(service.vault.spool)) or "(deleted)" in place:
                with open(f"/proc/self/fd/{entry}", "rb") as file:
                    contents.append(file.read())
        except OSError:
            continue
    return contents


async def errors(service: Service, identifier: str) -> list[str]:
    """Cause errors of every kind with needles in them; what the doors said."""
    full = query(**NEEDLES)
    audio = talking()
    wrong = json.dumps({**full, "call_id": WRONG, "agent": [WRONG]})
    answers = [
        await service.put(CALL_ID, talking(880), full),
        await service.put(CALL_ID, audio, {**full, "call_type": "other"}),
        await service.put(f"{WRONG}-1", audio, {**full, "call_type": WRONG}),
        await service.put(f"{WRONG}-2", audio, {**full, "started_at": WRONG}),
        await service.put(f"{WRONG}-3", audio, {**full, "agent": WRONG * 500}),
        await service.put(f"{WRONG}-4", audio, {**full, "direction": WRONG}),
        await service.put(f"{WRONG}-5", WRONG.encode() * 100, full),
        await service.put(f"{WRONG}-6", audio, full, headers={"Content-MD5": WRONG}),
        await service.put(f"{WRONG}-7", audio, full, headers={"Content-Encoding": WRONG}),
        await service.put(f"{WRONG}-8", audio, full, token=WRONG),
        await service.put(f"{WRONG}-9", audio, full, token="supervisor"),
        await service.put(f"{WRONG}-a", SPOKEN, full, content_type=f"audio/{WRONG}"),
        await service.form([("metadata", wrong)]),
        await service.form([("metadata", WRONG), ("audio", audio)]),
        await service.form([(WRONG, audio)]),
        await service.get(f"/v1/recordings?{WRONG}={WRONG}"),
        await service.get(f"/v1/recordings?call_type={WRONG}"),
        await service.get(f"/v1/recordings?cursor={WRONG}"),
        await service.get(f"/v1/recordings?started_from={WRONG}&agent={WRONG}"),
        await service.get(f"/v1/recordings/{WRONG}"),
        await service.get(f"/v1/recordings/{identifier}/audio?format={WRONG}"),
        await service.get(f"/v1/recordings/{identifier}/waveform?points={WRONG}"),
        await service.get(f"/{WRONG}"),
        await service.operate(f"/v1/ledger?from={WRONG}"),
    ]
    for answer in answers:
        assert 400 <= answer.status < 500, (answer.url, answer.status)
    return [f"{answer.headers}{await answer.text()}" for answer in answers]


async def no_http(service: Service) -> None:
    """Send what aiohttp itself refuses."""
    host, port = service.ingest.removeprefix("http://").split(":")
    for line in (
        f"PUT /v1/recordings/{CALL_ID}?agent={WRONG} HTTP/9.9",
        f"PUT /v1/{WRONG} HTTP/1.1\r\nAuthorization: Bearer {WRONG}\r\nContent-Length: {WRONG}",
        f"{WRONG}\0",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{line}\r\n\r\n".encode())
        async with asyncio.timeout(20):
            await reader.read()
        writer.close()
        await writer.wait_closed()


async def use(service: Service, identifier: str) -> None:
    """Search by every needle, and listen in every way."""
    for field in ("agent", "queue", "customer", "contract"):
        answer = await service.session.get(
            f"{service.retrieval}/v1/recordings",
            params={field: NEEDLES[field]},
            headers={"Authorization": f"Bearer {service.tokens['supervisor']}"},
        )
        assert [item["id"] for item in (await answer.json())["items"]] == [identifier]
    for number in ("0409187265", "%2B358505551734"):
        page = await service.get(f"/v1/recordings?number={number}")
        assert [item["id"] for item in (await page.json())["items"]] == [identifier]
    page = await service.get(f"/v1/recordings?call_id={CALL_ID}")
    assert [item["id"] for item in (await page.json())["items"]] == [identifier]
    path = f"/v1/recordings/{identifier}"
    for part in ("", "/audio", "/audio?format=mp3", "/audio?format=wav", "/waveform"):
        answer = await service.get(path + part)
        assert answer.status == 200
        # Personal data are in the body alone: proxies and browsers write headers down.
        assert found(str(answer.headers)) == []
        await answer.read()


async def test_what_callers_send_is_nowhere_in_clear(
    service: Service, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    params = query(started_at=a_year_ago(seconds=50), **NEEDLES)
    answer = await service.put(CALL_ID, talking(), params)
    assert answer.status == 201
    receipt = await answer.json()
    assert found(json.dumps(receipt)) == [CALL_ID]
    assert found(str(answer.headers)) == []
    identifier = receipt["id"]
    metadata = json.dumps({**query(**NEEDLES), "call_id": f"{CALL_ID}-2"})
    assert (await service.form([("audio", talking()), ("metadata", metadata)])).status == 201
    body = await (await service.get(f"/v1/recordings/{identifier}")).json()
    assert body["agent"] == NEEDLES["agent"]
    later = await service.get(f"/v1/recordings?call_id={CALL_ID}-2")
    assert len((await later.json())["items"]) == 1

    said = await errors(service, identifier)
    assert [found(one) for one in said if found(one)] == []
    await no_http(service)
    # The second call has all needles too: searches find both until the first is told apart.
    second = (await (await service.get(f"/v1/recordings?call_id={CALL_ID}-2")).json())["items"][0]
    async with connection(service.vault.pool) as lent:
        await lent.execute("DELETE FROM term WHERE recording = $1", second["id"])
    await use(service, identifier)

    text = await dump(service)
    assert identifier in text
    assert found(text) == []
    stored = dict(files(tmp_path / "store" / "data"))
    assert len(stored) == 2
    for name, content in stored.items():
        assert found(name) == []
        assert found(content) == []
    for name, content in files(tmp_path):
        assert found(name) == [], name
        assert found(content) == [], name
    lines = [logging.Formatter("%(name)s %(message)s").format(one) for one in caplog.records]
    ours = [line for line in lines if not line.startswith(("asyncio ", "tests"))]
    assert [(line, found(line)) for line in ours if found(line)] == []

    terms = await _terms(service, identifier)
    assert len(terms) >= len(NEEDLES)
    await service.turn_clock(timedelta(seconds=55))
    assert (await service.erase()).erased == 1
    await nothing_is_left(service, identifier, receipt["sha256"], tmp_path)


async def _terms(service: Service, identifier: str) -> list[int]:
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT hash FROM term WHERE recording = $1", identifier)
    return [row["hash"] for row in rows]


async def nothing_is_left(service: Service, identifier: str, sha256: str, folder: Path) -> None:
    """Not even what a needle could be compared with."""
    vault = service.vault
    assert await _terms(service, identifier) == []
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow("SELECT * FROM recording WHERE id = $1", identifier)
    assert row is not None
    text = await dump(service)
    assert sha256 not in text
    hashes = [
        recordings.call_hash(vault.ring, "pbx", CALL_ID),
        *(
            recordings.term(vault.ring.index_key(row["expires_on"]), field, value).to_bytes(
                8, "big", signed=True
            )
            for field, value in NEEDLES.items()
        ),
    ]
    assert [each for each in hashes if each.hex() in text] == []
    assert all(identifier not in name for name, _ in files(folder / "store"))


async def test_a_body_on_its_way_is_nowhere_in_clear(service: Service, tmp_path: Path) -> None:
    audio = tone(60)[:-50_000] + SPOKEN * 40
    seen: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield audio[:-1000]
        until = time.monotonic() + 20
        while not any(map(len, unnamed(service))):
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        seen.extend(unnamed(service))
        assert os.listdir(service.vault.spool) == []
        yield audio[-1000:]

    assert (await service.put(CALL_ID, pieces(), query())).status == 201
    assert max(map(len, seen)) > 500_000
    assert [found(content) for content in seen if found(content)] == []
    assert [name for name, content in files(tmp_path) if found(content)] == []
    assert os.listdir(service.vault.spool) == []


def test_a_needle_is_found_where_there_is_one() -> None:
    assert found(f"x{NEEDLES['agent'].upper()}y")
    assert found(NEEDLES["caller"].encode("utf-16-le"))
    assert found(CALL_ID.encode().hex())
    assert found(talking()) == ["needle-in-the-audio"]
    assert found("nothing") == []
