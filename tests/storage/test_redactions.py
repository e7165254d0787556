"""That a copy is silent where it has to be is seen outside the worker that makes it."""

import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import early, playback, steps
from storage.redactions import sounds
from storage.spool import Spool
from tests.roles import change
from tests.services import Faulty, Service
from tests.sounds import tone
from tests.storage.test_exports import grant
from tests.web.test_listen import upload
from tests.web.test_redaction import CARD, redact
from tests.web.test_upload import problem


def content(channels: int, frames: int, loud: set[tuple[int, int]]) -> bytes:
    """A WAV that is silent but in these frames and channels."""
    held = BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(
            b"".join(
                b"\x00\x01" if (frame, channel) in loud else b"\0\0"
                for frame in range(frames)
                for channel in range(channels)
            )
        )
    return held.getvalue()


PLACES = st.sets(st.tuples(st.integers(0, 19), st.integers(0, 1)), max_size=4)
CUTS = st.lists(
    st.tuples(st.integers(0, 19), st.integers(1, 6), st.sampled_from([None, 0, 1])), max_size=3
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(PLACES, CUTS, st.integers(1, 99))
def test_a_sample_within_a_cut_is_seen_however_the_pieces_fall(
    loud: set[tuple[int, int]], lengths: list[tuple[int, int, int | None]], size: int
) -> None:
    cuts = [(start, start + length, channel) for start, length, channel in lengths]
    whole = content(2, 20, loud)
    found = any(
        sounds(whole[at : at + size], at - playback.WAV_HEADER, cuts, 2)
        for at in range(0, len(whole), size)
    )
    assert found == any(
        start <= frame < stop and channel in (None, side)
        for frame, side in loud
        for start, stop, channel in cuts
    )


async def test_a_copy_that_sounds_is_not_kept(service: Service) -> None:
    """A worker that does not make it silent, since foreign code got hold of it."""
    identifier = await upload(service, "c1", tone(4))
    real = service.vault.players

    @asynccontextmanager
    async def transcode(*job: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        async with real.transcode(*job[:-1], []) as pieces:
            yield pieces

    change(service.vault, "players", Faulty(real, transcode=transcode))
    assert (await redact(service, identifier, CARD)).status == 503
    change(service.vault, "players", real)
    assert len(await service.holdings()) == 1
    assert [row["redacted"] for row in await service.rows()] == [None]


async def test_the_time_of_a_put_begins_when_its_bytes_have_been_read(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read for the MD5 afterwards would use it up, and the object could land too late."""
    seen: list[str] = []
    real = Spool.md5

    def read(spool: Spool, head: bytes) -> bytes:
        seen.append("read")
        return real(spool, head)

    monkeypatch.setattr(Spool, "md5", read)
    monkeypatch.setattr(steps, "reached", seen.append)
    identifier = await upload(service, "c1", tone(4))
    assert (await redact(service, identifier, CARD)).status == 201
    upload_steps = ["received", "read", "intended", "put", "committed"]
    assert seen == [*upload_steps, "read", "named", "put", "redacted"]


async def test_what_is_to_be_erased_early_is_not_held_by_copies(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    await grant(service, identifier)
    await problem(await redact(service, identifier, CARD), 409, "changed")
    assert len((await early.run(service.vault)).erased) == 1
