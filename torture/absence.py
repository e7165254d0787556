"""An archive of its own that can be away in several ways, and all that those need who deliver.

The service is a process of its own behind an address that stays; relays stand before its database
and its store, and the landing bucket lies beside them. Who delivers is told of nothing.
"""

import asyncio
import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from app import config
from app.landings import opened_at
from archive.access import Level
from jobs import nightly
from storage import credentials
from storage.database import connection
from tests.app.child_service import PATIENCE, Child, House
from tests.landing.conftest import EXAMPLE, Site
from tests.services import Service, open_service, open_vault
from tests.stores.relay import Relay
from tests.web import vendors
from tests.web.database_relay import DatabaseRelay
from torture.room import Room, bucket_of
from torture.systems import Pauses, Yard

LEASE = 600.0
"""Seconds that a service which died holds what it was taking in."""

SOURCES = ("freepbx", "genesys", "twilio", "recorder", "tus", "asterisk", "rtpengine")
_STARTS = 10

_CONFIG = """
[[landing]]
name = "genesys"
key = "genesys"
mapping = "genesys"
call_type = "other"
endpoint = "{endpoint}"
bucket = "{bucket}"
country = "FI"

[[webhook]]
name = "twilio"
kind = "twilio"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true
delete_after = true
public_url = "{outside}"
account = "{account}"

[[webhook]]
name = "recorder"
kind = "json"
hosts = ["127.0.0.1:{port}"]
networks = ["127.0.0.0/8"]
http = true
delete_after = true
url = ["{{notice.url}}"]
delete_url = ["{{notice.url}}"]
id = ["{{notice.id}}"]
call_id = ["{{notice.call}}"]
call_type = ["other"]
started_at = ["{{notice.start}}"]
"""


@dataclass(slots=True)
class Away:
    """The archive, and the ways in which it can be away."""

    house: House
    database: DatabaseRelay
    store: Relay
    child: Child

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        """kill -9, and started again."""
        await asyncio.to_thread(self.kill)
        yield
        await self.start()

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """SIGTERM, and started again."""
        await self.stop()
        yield
        await self.start()

    @asynccontextmanager
    async def without_database(self) -> AsyncIterator[None]:
        """Up, and its database is away."""
        self.database.away = True
        await self.database.cut()
        yield
        self.database.away = False

    @asynccontextmanager
    async def without_store(self) -> AsyncIterator[None]:
        """Up, and its object store is away."""
        self.store.away = True
        await self.store.cut()
        yield
        self.store.away = False

    async def start(self) -> None:
        """Start, and again while it ends for want of its database, as systemd does."""
        for _ in range(_STARTS):
            self.child = self.house.start()
            with suppress(AssertionError):
                await self.child.ready()
                return
            if self.child.process.poll() != 1:
                break
        raise RuntimeError(f"the service did not start: {self.child.said()[-500:]}")

    def kill(self) -> None:
        """kill -9."""
        self.child.kill()

    async def stop(self) -> None:
        """SIGTERM, and wait. Raises RuntimeError when it did not end well."""
        os.kill(self.child.process.pid, signal.SIGTERM)
        if await asyncio.to_thread(self.child.process.wait, PATIENCE):
            raise RuntimeError(f"the service did not stop well: {self.child.said()[-500:]}")


@asynccontextmanager
async def opened(room: Room, away: float) -> AsyncIterator[tuple[Service, Away, Yard]]:
    """A look behind the archive, the archive, and what those need who deliver. `away`: for how many
    seconds it will be.
    """
    url, folder = await room.database(), room.place()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store, landing = await enter(room.store()), await enter(room.store())
        vault = await enter(open_vault(url, store, folder))
        service = await enter(open_service(vault))
        await nightly.run(vault)
        host, database = await enter(vendors.vendor()), await enter(DatabaseRelay(url))
        relay = await enter(Relay.before(room.rclone.endpoint))
        file = folder / "config.toml"
        facts = {"endpoint": room.rclone.endpoint, "bucket": bucket_of(landing)}
        facts |= {"outside": vendors.OUTSIDE, "account": vendors.ACCOUNT, "port": str(host.port)}
        file.write_text(EXAMPLE.read_text() + _CONFIG.format(**facts))
        more = _environment(room, file, away)
        [place] = config.load(file, {key: more[key] for key in more if "DOORS" not in key}).landings
        landed = opened_at(place)
        stack.push_async_callback(landed.bucket.close)
        site = Site(service, landed, vault, room.rclone, facts["bucket"], file)
        server = replace(room.rclone, endpoint=relay.url)
        house = House(database.url, server, bucket_of(store), folder, more)
        archive = Away(house, database, relay, house.start())
        stack.callback(archive.kill)
        await archive.child.ready()
        yard = Yard(
            f"http://{more['ARCHIVE_DOORS_INGEST']}",
            await _keys(service),
            host,
            {},
            site,
            room.place(),
            datetime.now(UTC).replace(microsecond=0) - timedelta(hours=4),
            Pauses.of(away),
            await enter(aiohttp.ClientSession()),
            await enter(asyncio.TaskGroup()),
        )
        host.answers = [yard.serve]
        yield service, archive, yard


def _environment(room: Room, file: Path, away: float) -> dict[str, str]:
    """The door has an address that stays: those who deliver know no other."""
    return {
        "TEST_CONFIG": str(file),
        "TEST_LANDING_REST": "30" if away >= LEASE else "0.5",
        "ARCHIVE_DOORS_INGEST": f"127.0.0.1:{_port()}",
        "ARCHIVE_LANDING_GENESYS_ACCESS_KEY": room.rclone.access_key,
        "ARCHIVE_LANDING_GENESYS_SECRET_KEY": room.rclone.secret_key,
        "ARCHIVE_WEBHOOK_TWILIO_SECRET": vendors.TWILIO_TOKEN,
        "ARCHIVE_WEBHOOK_RECORDER_SECRET": vendors.JSON_SECRET,
    }


def _port() -> int:
    """A port that is free, below those that the system gives out: nobody takes it meanwhile."""
    while True:
        port = random.randrange(20000, 30000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


async def _keys(service: Service) -> dict[str, str]:
    """An uploader's key for each source."""
    vault = service.vault
    async with connection(vault.pool) as lent:
        return {
            source: await credentials.add(lent, vault.ring, source, Level.UPLOADER, source)
            for source in SOURCES
        }
