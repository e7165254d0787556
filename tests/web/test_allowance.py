"""What is being sent stops when its key is revoked, and goes on while it holds."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import yarl

from archive.errors import UnavailableError
from storage import credentials, early, playback
from tests.roles import connection, owned
from tests.services import Service
from tests.sounds import tone
from tests.web.test_listen import upload
from tests.web.test_upload import problem
from web import allowance

LONG = 1200  # seconds, 19 MB: more than the sockets on the way hold


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allowance.LOOK < 1, "a key is looked at more than once a second"
    monkeypatch.setattr(allowance, "LOOK", 0.05)


@asynccontextmanager
async def listening(
    service: Service, audio: bytes, shown: str = ""
) -> AsyncIterator[asyncio.StreamReader]:
    """Begin to listen, with the supervisor's key or this header, and read no more than the head."""
    identifier = await upload(service, "c", audio, agent="Anna", queue="north")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", yarl.URL(service.retrieval).port, limit=4096
    )
    writer.write(
        f"GET /v1/recordings/{identifier}/audio HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"{shown or 'Authorization: Bearer ' + service.tokens['supervisor']}\r\n\r\n".encode()
    )
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield reader
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> int:
    """How many bytes come until the end of the connection, whichever it is."""
    received = 0
    try:
        while piece := await reader.read(65536):
            received += len(piece)
    except ConnectionResetError:
        pass
    return received


async def _rotate(service: Service, overlap: timedelta) -> None:
    async with connection(service.vault.pool) as lent:
        await credentials.rotate(lent, service.vault.ring, "test-supervisor", overlap)


async def _limit(service: Service, types: list[str]) -> None:
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE access_key SET call_types = $1 WHERE source IS NULL"
            " AND level = 'supervisor'", types)  # fmt: skip


async def _set(service: Service, what: str) -> None:
    async with connection(service.vault.pool) as lent:
        await lent.execute(f"UPDATE access_key SET {what} WHERE name = 'test-supervisor'")


async def _erase(service: Service) -> None:
    """Two people have it erased before its time."""
    (row,) = await service.rows()
    for who in ("privacy", "admin"):
        await early.ask(owned(service.vault), row["id"], "request", service.tokens[who])


async def _narrow(service: Service, agent: str) -> None:
    """Limit the listener to a team, of which this agent is."""
    await service.team("narrow", agents=[agent])
    await _set(service, "teams = '{narrow}'")


ENDS: dict[str, Callable[[Service], Awaitable[None]]] = {
    "revoked": lambda service: service.revoke("supervisor"),
    "rotated": lambda service: _rotate(service, timedelta()),
    "limited": lambda service: _limit(service, ["other"]),
    "level": lambda service: _set(service, "level = 'privacy'"),
    "erased": lambda service: _erase(service),
    "other queue": lambda service: _set(service, "queues = '{south}'"),
    "other team": lambda service: _narrow(service, "bo"),
}


@pytest.mark.parametrize("how", ENDS)
async def test_a_stream_stops_when_its_key_ends(
    service: Service, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    audio = tone(LONG)
    async with listening(service, audio) as reader:
        await ENDS[how](service)
        # The listener takes nothing meanwhile: what comes after the cut are the sockets' leavings.
        while "an answer was cut off: the key" not in caplog.text:
            await asyncio.sleep(0.01)
        assert await rest(reader) < len(audio) / 2


async def test_a_stream_stops_when_nobody_can_say_whether_its_key_holds(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> bool:
        raise UnavailableError("The database is away; try again.")

    audio = tone(LONG)
    async with listening(service, audio) as reader:
        monkeypatch.setattr(credentials, "holds", away)
        while "an answer was cut off: the key" not in caplog.text:
            await asyncio.sleep(0.01)
        assert await rest(reader) < len(audio) / 2


async def test_a_stream_goes_on_while_its_key_holds(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    looked = 0
    real = credentials.holds

    async def counted(*arguments: object) -> bool:
        nonlocal looked
        held = await real(*arguments)  # type: ignore[arg-type]
        looked += 1
        return held

    monkeypatch.setattr(credentials, "holds", counted)
    audio = tone(LONG)
    async with listening(service, audio) as reader:
        await _rotate(service, timedelta(hours=1))
        await _limit(service, ["fault_report", "other"])
        await _narrow(service, "ANNA")
        await _set(service, "queues = '{south}'")
        seen = looked
        while looked < seen + 3:
            await asyncio.sleep(0.01)
        assert await rest(reader) == len(audio)
    assert caplog.text == ""
    end = looked
    for _ in range(5):
        await asyncio.sleep(0.05)
    assert looked == end, "nobody looks once it is sent"


@pytest.mark.parametrize("what", ["waveform", "audio?format=mp3"])
async def test_what_is_still_being_made_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    making = asyncio.Event()

    async def slow(*_: object) -> None:
        making.set()
        await asyncio.Event().wait()

    class Slow:
        __aenter__ = slow

        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr(playback, "waveform", slow)
    monkeypatch.setattr(playback, "copied", lambda *_: Slow())
    identifier = await upload(service, "c")
    asked = asyncio.create_task(service.get(f"/v1/recordings/{identifier}/{what}"))
    await making.wait()
    await service.revoke("supervisor")
    await problem(await asked, 401, "unauthenticated")
