"""How many copies are made at once, and what lies on the disk meanwhile."""

import asyncio
from collections.abc import AsyncIterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from archive.access import Caller, Level
from storage import playback, reading
from storage.audio import pool
from storage.spool import SealedFile
from tests.roles import acting
from tests.services import Service
from tests.sounds import tone
from tests.web.test_listen import upload
from tests.web.test_upload import problem

ANNA = Caller("anna", Level.SUPERVISOR)


async def test_no_more_recordings_lie_in_the_spool_than_copies_are_made(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a player has nothing on the disk yet, and is told in the end to come again."""
    monkeypatch.setattr(pool, "_WAIT", 0.3)
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
        for _ in range(2):
            await stack.enter_async_context(playback.copied(vault, opened, "wav"))
        for path in paths:
            answer = await asyncio.wait_for(service.get(path), 10)
            await problem(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        assert len(lying) == 2
    for path in paths:
        answer = await service.get(path)
        assert answer.status == 200
        assert await answer.read()
