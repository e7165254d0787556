"""Needles: what callers send, in a form that is found wherever it lies in clear."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.services import Service
from tests.sounds import tone
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


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.is_file():  # and no socket
                yield str(path.relative_to(folder)), path.read_bytes()


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
