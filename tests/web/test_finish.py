"""The end of a door: what is in flight is finished, and nobody new is let in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from app import serve
from archive.access import Level
from storage import credentials
from storage.vault import Vault
from tests.roles import acting, connection
from tests.sounds import tone
from tests.web.test_upload import query
from web import doors, ingest

AUDIO = tone(5)


@asynccontextmanager
async def open_door(vault: Vault) -> AsyncIterator[tuple[web.AppRunner, str, dict[str, str]]]:
    """An ingest door that a test ends itself: its address, and the login of an uploader."""
    runner = doors.runner(doors.build(acting(vault, "ingest"), "", ingest.routes()), 0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with connection(vault.pool) as lent:
        token = await credentials.add(lent, vault.ring, "pbx", Level.UPLOADER)
    address = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/recordings/c1"
    try:
        yield runner, address, {"Authorization": f"Bearer {token}"}
    finally:
        await runner.cleanup()


async def test_an_upload_that_is_still_arriving_is_finished(vault: Vault) -> None:
    begun, rest = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield AUDIO[:5000]
        begun.set()
        await rest.wait()
        yield AUDIO[5000:]

    async with open_door(vault) as (runner, address, login), aiohttp.ClientSession() as session:
        sending = asyncio.create_task(
            session.put(address, params=query(), data=body(), headers=login)
        )
        await begun.wait()
        await asyncio.sleep(0.1)
        ending = asyncio.create_task(doors.finish([runner], 20))
        await asyncio.sleep(0.1)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(address, headers=login)
        assert not ending.done()
        rest.set()
        answer = await sending
        assert answer.status == 201
        assert answer.headers["Connection"] == "close"
        await asyncio.wait_for(ending, 5)


async def test_the_doors_close_while_the_jobs_are_still_at_work(vault: Vault) -> None:
    """A night takes minutes: who still came in meanwhile was killed in the middle of it."""
    may_end = asyncio.Event()

    class Night:
        async def stop(self) -> None:
            await may_end.wait()

    working: Any = Night()
    async with open_door(vault) as (runner, address, login), aiohttp.ClientSession() as session:
        ending = asyncio.create_task(serve._end([runner], working))
        await asyncio.sleep(0.2)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(address, headers=login)
        assert not ending.done()
        may_end.set()
        await asyncio.wait_for(ending, 5)


async def test_what_does_not_end_is_cut(vault: Vault) -> None:
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield AUDIO[:5000]
        begun.set()
        await asyncio.Event().wait()

    async with open_door(vault) as (runner, address, login), aiohttp.ClientSession() as session:
        sending = asyncio.create_task(
            session.put(address, params=query(), data=body(), headers=login)
        )
        await begun.wait()
        await asyncio.sleep(0.1)
        await asyncio.wait_for(doors.finish([runner], 0.3), 5)
        await asyncio.wait_for(runner.cleanup(), 5)
        with pytest.raises(aiohttp.ClientError):
            await sending


async def test_a_door_where_nothing_happens_ends_at_once(vault: Vault) -> None:
    async with open_door(vault) as (runner, _, _):
        await asyncio.wait_for(doors.finish([runner], 20), 1)
