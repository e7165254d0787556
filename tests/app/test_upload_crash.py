"""kill -9 within an upload in parts: no byte that was told is lost, and nothing is doubled."""

import asyncio
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from storage import steps
from tests.app.test_crash import Services, at, heard, services
from tests.roles import connection
from tests.services import Service
from tests.web.test_uploads import AUDIO, Client, said

__all__ = ["services"]

PARTS = range(0, len(AUDIO), 90_000)


async def insisted(client: Client) -> aiohttp.ClientResponse:
    """Go on as a client does that asks where it is, until the upload is done."""
    while True:
        answer = await client.send("HEAD", {})
        assert answer.status == 200, answer.status
        offset = int(answer.headers["Upload-Offset"])
        if offset == len(AUDIO):
            return answer
        answer = await client.patch(offset, AUDIO[offset : offset + 90_000])
        assert answer.status == 204, await answer.text()


async def one_recording(service: Service, answer: aiohttp.ClientResponse) -> None:
    rows = await service.rows()
    assert [row["state"] for row in rows] == ["stored"]
    await service.sweep_everything()
    assert answer.headers["Location"].endswith(str(rows[0]["id"]))
    assert await heard(service, str(rows[0]["id"])) == AUDIO
    assert len(await service.holdings()) == 1


@pytest.mark.parametrize("step", steps.UPLOAD)
async def test_a_kill_in_an_upload(
    service: Service, services: Services, tmp_path: Path, step: str
) -> None:
    child = await services.start(crash_at=step)
    client = Client(at(service, child))
    await client.create()
    told = 0
    with pytest.raises(aiohttp.ClientError):
        for start in PARTS:
            answer = await client.patch(start, AUDIO[start : start + 90_000])
            told = int(answer.headers["Upload-Offset"])
    await child.death()

    client.service = at(service, await services.start())
    assert told <= await client.offset()
    await one_recording(client.service, await insisted(client))
    lying = tmp_path / "a" / "uploads"
    async with asyncio.timeout(90):
        while {path.name for path in lying.iterdir()} != {"place"}:
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("step", ["received", "intended", "put", "committed"])
async def test_a_kill_while_the_last_part_is_taken_in(
    service: Service, services: Services, step: str
) -> None:
    child = await services.start(crash_at=step)
    client = Client(at(service, child))
    await client.create(data=AUDIO[:90_000])
    with pytest.raises(aiohttp.ClientError):
        await client.patch(90_000, AUDIO[90_000:])
    await child.death()
    client.service = at(service, await services.start())
    if step in ("intended", "put"):
        assert (await client.send("HEAD", {})).status == 503  # the killed one still holds the call
        await service.end_leases()
        assert (await client.send("HEAD", {})).status in (200, 503)
    await one_recording(client.service, await insisted(client))


async def test_kills_at_any_moment(service: Service, services: Services) -> None:
    """Parts of any size, and a kill while one is on its way, over and over."""
    client = Client(service)
    position = 0
    child = await services.start()
    client.service = at(service, child)
    await client.create(**{"Upload-Metadata": said("call")})
    for number in range(4):
        end = position + 60_000 + 1000 * number
        sending = asyncio.create_task(client.patch(position, AUDIO[position:end]))
        await asyncio.sleep(0.01 * number)
        child.kill()
        told = position
        with suppress(aiohttp.ClientError):
            told = int((await sending).headers["Upload-Offset"])
        child = await services.start()
        client.service = at(service, child)
        position = await client.offset()
        assert told <= position <= end
    await one_recording(client.service, await insisted(client))
    async with connection(service.vault.pool) as lent:
        assert not await lent.fetchval("SELECT count(*) FROM upload WHERE recording IS NULL")
