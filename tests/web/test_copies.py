"""How many copies are made at once, and what lies on the disk meanwhile."""

import asyncio
from collections.abc import AsyncIterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from archive.access import Caller, Level
from archive.errors import UnavailableError
from storage import playback, reading
from storage.audio import places
from storage.spool import SealedFile
from tests.roles import acting
from tests.services import Service
from tests.sounds import tone
from tests.web.test_listen import upload
from tests.web.test_upload import problem

ANNA, BEN = Caller("anna", Level.SUPERVISOR), Caller("ben", Level.SUPERVISOR)


async def test_no_more_recordings_lie_in_the_spool_than_copies_are_made(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a player has nothing on the disk yet, and is told in the end to come again."""
    monkeypatch.setattr(places, "_WAIT", 0.3)
    identifier = await upload(service, "a", tone(60))
    lying: list[int] = []
    real = SealedFile.copy

    async def copy(directory: Path, pieces: AsyncIterable[bytes]) -> SealedFile:
        held = await real(directory, pieces)
        lying.append(held.fd)
        return held

    monkeypatch.setattr(SealedFile, "copy", copy)
    vault = acting(service.vault, "retrieval")
    opened = await reading.get(vault, ANNA, UUID(identifier), datetime.now(UTC))
    paths = [f"/v1/recordings/{identifier}/{end}" for end in ("audio?format=wav", "waveform")]
    async with AsyncExitStack() as stack:
        for who in (ANNA, ANNA, BEN):
            await stack.enter_async_context(playback.copied(vault, who, opened, "wav"))
        for path in paths:
            answer = await asyncio.wait_for(service.get(path), 10)
            await problem(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        assert len(lying) == 3
        body = {"spans": [{"start": 0, "stop": 1}], "reason": "a card number"}
        url = f"{service.retrieval}/v1/recordings/{identifier}/redaction"
        login = service._login("supervisor")
        redacted = await service.session.put(url, headers=login, json=body)
        assert redacted.status == 201, "one place is for what has to be silent"
    for path in paths:
        answer = await service.get(path)
        assert answer.status == 200
        assert await answer.read()


async def test_one_caller_leaves_places_for_the_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_WAIT", 0.3)
    identifier = await upload(service, "a", tone(60))
    vault = acting(service.vault, "retrieval")
    opened = await reading.get(vault, ANNA, UUID(identifier), datetime.now(UTC))
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(playback.copied(vault, ANNA, opened, "wav"))
        with pytest.raises(UnavailableError, match="Too many copies"):
            await playback.waveform(vault, ANNA, opened, 50)
        answer = await service.get(f"/v1/recordings/{identifier}/waveform")
        assert answer.status == 200
    assert len(await playback.waveform(vault, ANNA, opened, 50)) == 1
