"""Systems that send by HTTP: notices, of which one system tells a few times only, parts by tus, and
the form of rtpengine-recording.
"""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from email.utils import format_datetime
from pathlib import Path

import aiohttp
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from tests.web import vendors
from torture.systems import System, Yard, files

LONG = 50_000
"""Frames of a call that comes in parts."""

PART = 40_000
"""Bytes of a part."""

TWILIO_TRIES = 6
"""The first, and five more, the most that may be asked for (`#rc=5&rp=all`)."""

_AT_ONCE = 2
"""Forms of rtpengine's that are sent at the same time."""

_HOPELESS = (410, 413, 415, 422)
_PATIENCE = aiohttp.ClientTimeout(total=60)


@asynccontextmanager
async def twilio(yard: Yard) -> AsyncIterator[System]:
    """A notice for each recording, signed; tried five times more, and then never again."""
    path = "/v1/hooks/twilio?call_type=other"

    async def offer(number: int) -> str:
        began = format_datetime(yard.start(number))
        more = {"RecordingStartTime": began, "RecordingChannels": "1"}
        fields = vendors.twilio_fields(yard.host, number, **more)
        yard.lying[fields["RecordingUrl"].removeprefix(yard.host.url)] = system.audio(number)
        system.later(yard, tell(fields))
        return fields["CallSid"]

    async def tell(fields: Mapping[str, str]) -> None:
        signed = {"X-Twilio-Signature": vendors.sha1(path, fields)}
        for _ in range(TWILIO_TRIES):
            if await _posted(yard, path, signed, data=fields):
                return
            await asyncio.sleep(yard.pauses.first / 2)
        system.given_up.add(fields["CallSid"])

    def left() -> list[str]:
        known = {f"RE{call_id[2:]}" for call_id in system.given_up}
        return [name for name in yard.lying if "/RE" in name and name[-34:] not in known]

    system = System("twilio", offer, left)
    yield system


@asynccontextmanager
async def recorder(yard: Yard) -> AsyncIterator[System]:
    """A notice in JSON for each recording, sent until it is answered."""
    signed = {"Authorization": f"Bearer {vendors.JSON_SECRET}"}

    async def offer(number: int) -> str:
        name = f"/own/{number}"
        yard.lying[name] = system.audio(number)
        started = yard.start(number).isoformat()
        notice = {
            "id": number,
            "call": f"c-{number}",
            "start": started,
            "url": yard.host.url + name,
        }
        system.later(yard, tell(notice))
        return f"c-{number}"

    async def tell(notice: Mapping[str, object]) -> None:
        tries = 0
        while not await _posted(yard, "/v1/hooks/recorder", signed, json=notice):
            await asyncio.sleep(yard.pauses.again(tries))
            tries += 1

    def left() -> list[str]:
        return [name for name in yard.lying if name.startswith("/own/")]

    system = System("recorder", offer, left)
    yield system


async def _posted(
    yard: Yard,
    path: str,
    headers: Mapping[str, str],
    *,
    data: Mapping[str, str] | None = None,
    json: Mapping[str, object] | None = None,
) -> bool:
    """Whether a notice was taken. Raises RuntimeError for a refusal, which no later try mends."""
    url = yard.ingest + path
    try:
        async with yard.session.post(
            url, data=data, json=json, headers=headers, timeout=_PATIENCE
        ) as answer:
            said = await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return False
    if 400 <= answer.status < 500 and answer.status != 429:
        raise RuntimeError(f"a notice was refused: {answer.status} {said}")
    return answer.status < 300


@asynccontextmanager
async def tuspy(yard: Yard) -> AsyncIterator[System]:
    """tuspy sends in parts, asks where it is after each fault, and goes on there."""

    def send(number: int) -> None:
        fields = {"call_id": f"t-{number}", "call_type": "other"}
        fields["started_at"] = yard.start(number).isoformat()
        body, url = io.BytesIO(system.audio(number)), None
        login = {"Authorization": f"Bearer {yard.tokens['tus']}"}
        client = TusClient(f"{yard.ingest}/v1/uploads", headers=login)
        while not yard.over.is_set():
            try:
                uploader = client.uploader(
                    file_stream=body, url=url, chunk_size=PART, metadata=fields, retries=3,
                    retry_delay=yard.pauses.first,
                )  # fmt: skip
                if url is None:
                    uploader.set_url(uploader.create_url())
                    uploader.offset, url = 0, uploader.url
                uploader.upload()
            except TusCommunicationError as error:
                if error.status_code in _HOPELESS:
                    raise
                url = None if error.status_code == 404 else url
                time.sleep(yard.pauses.first)
            else:
                return

    async def offer(number: int) -> str:
        system.later(yard, sent(number))
        return f"t-{number}"

    async def sent(number: int) -> None:
        await asyncio.get_running_loop().run_in_executor(senders, send, number)

    with ThreadPoolExecutor(4) as senders:
        system = System("tus", offer, list, frames=LONG, every=1.5)
        try:
            yield system
        finally:
            yard.over.set()
            senders.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def rtpengine(yard: Yard) -> AsyncIterator[System]:
    """curl sends the form of rtpengine-recording, until it is taken."""
    folder = yard.place("rtpengine")

    async def offer(number: int) -> str:
        file = folder / f"{number}.wav"
        file.write_bytes(system.audio(number))
        system.later(yard, tell(number, file))
        return f"{number}@sip"

    async def tell(number: int, file: Path) -> None:
        began = yard.start(number).timestamp()
        words = ["-sS", "-o", "-", "-w", "\n%{http_code}", "--max-time", "60"]
        words += ["-u", f"rtp:{yard.tokens['rtpengine']}", "-F", f"ngfile=@{file}"]
        words += ["-H", f"X-Recording-Call-ID: {number}@sip", "-H", "X-Recording-Kind: mixed"]
        words += ["-H", f"X-Recording-Call-Start-Time: {began:.6f}"]
        words.append(f"{yard.ingest}/v1/rtpengine?call_type=other")
        tries = 0
        while not await curled(words):
            await asyncio.sleep(yard.pauses.again(tries))
            tries += 1
        file.unlink()

    async def curled(words: list[str]) -> bool:
        async with turn:
            return await _curled(*words)

    turn = asyncio.Semaphore(_AT_ONCE)
    system = System("rtpengine", offer, lambda: files(folder), every=2)
    yield system


async def _curled(*words: str) -> bool:
    """Whether what curl sent was taken. Raises RuntimeError for a refusal."""
    process = await asyncio.create_subprocess_exec(
        "curl", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    said, _ = await process.communicate()
    status = int(said.rpartition(b"\n")[2] or 0)
    if 400 <= status < 500 and status != 429:
        raise RuntimeError(f"a form was refused: {said.decode()}")
    return 200 <= status < 300
