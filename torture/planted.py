"""What needles come in by, and lie in, besides an upload: landing buckets, notices, redacted
copies, exports. Some of each are done, some half done, and some were killed in the middle.
"""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import aiohttp
from aiohttp import web
from minio import Minio

from tests.app.child_service import Child, House
from tests.landing.conftest import EXAMPLE, TABLE
from tests.needles import CALL_ID, NEEDLES, found, talking
from tests.services import Service
from tests.stores.servers import Server
from tests.web import vendors
from tests.web.test_exports import ask, fetch, stage
from tests.web.test_redaction import CARD, redact
from tests.web.test_telephony import wire
from tests.web.vendors import Vendor, vendor

Fact = Callable[[], Awaitable[bool]]


@dataclass(slots=True)
class Outside:
    """A host that has recordings, and a landing bucket in somebody's store.

    The host is always busy, but for one recording, which it sends half of and no more.
    """

    host: Vendor
    server: Server
    bucket: str
    halfway: asyncio.Event = field(default_factory=asyncio.Event)

    def house(self, house: House, folder: Path) -> House:
        """The same services, which know of them."""
        file = folder / "config.toml"
        table = TABLE.format(
            mapping="jambonz",
            call_type="other",
            endpoint=self.server.endpoint,
            bucket=self.bucket,
            prefix="",
            ca="",
        )
        file.write_text(EXAMPLE.read_text() + vendors.config(self.host) + table)
        keys = {
            "ARCHIVE_LANDING_OTHERS_ACCESS_KEY": self.server.access_key,
            "ARCHIVE_LANDING_OTHERS_SECRET_KEY": self.server.secret_key,
        }
        more = {**house.more, **vendors.environ(), **keys, "TEST_CONFIG": str(file)}
        return replace(house, more=more)

    async def land(self, call_id: str, started_at: str, **more: str) -> None:
        """Write a recording into the bucket, with all that is known of it as metadata."""
        of = {"from": NEEDLES["caller"], "to": NEEDLES["callee"], "agent": NEEDLES["agent"]}
        said = {"call-type": "other", "started-at": started_at, **of, **more}
        said |= {"queue": NEEDLES["queue"], "customer": NEEDLES["customer"]}
        audio = talking()
        client = Minio(
            self.server.endpoint.partition("://")[2],
            access_key=self.server.access_key,
            secret_key=self.server.secret_key,
            secure=False,
        )
        await asyncio.to_thread(
            client.put_object,
            bucket_name=self.bucket,
            object_name=f"{NEEDLES['contract']}/{call_id}.wav",
            data=io.BytesIO(audio),
            length=len(audio),
            metadata=said,
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the host says."""
        if request.path != "/half.wav" or self.halfway.is_set():
            return web.Response(status=503)
        audio = talking()
        response = web.StreamResponse(headers={"Content-Length": str(2 * len(audio))})
        response.content_type = "audio/x-wav"
        await response.prepare(request)
        await response.write(audio)
        self.halfway.set()
        await asyncio.sleep(60)
        return response


@asynccontextmanager
async def outside(server: Server) -> AsyncIterator[Outside]:
    """A host that listens, and a new bucket."""
    bucket = f"land-{uuid4()}"
    store = await server.connect(bucket)
    try:
        async with vendor() as host:
            there = Outside(host, server, bucket)
            host.answers = [there.answer]
            yield there
    finally:
        await store.close()


async def plant(there: Outside, service: Service, ids: list[str], due: str) -> None:
    """Redact the first recording, export all and fetch it; let calls land, one of which is refused;
    tell of calls that cannot be fetched, of which one is half there when this returns.
    """
    answer = await redact(service, ids[0], CARD, why=NEEDLES["agent"])
    assert answer.status == 201, await answer.text()
    answer = await ask(service, ids, reason=NEEDLES["customer"])
    assert answer.status == 201, await answer.text()
    export = str((await answer.json())["id"])
    await until(lambda: _is(service, export, "ready"))
    answer = await fetch(service, export)
    assert answer.status == 200, await answer.text()
    assert {NEEDLES["agent"], "needle-in-the-audio"} <= {*found(await answer.read())}
    await there.land(f"{CALL_ID}-landed", due)
    await there.land(f"{CALL_ID}-refused", due, **{"call-type": NEEDLES["queue"]})
    await until(lambda: _landed(service, f"{CALL_ID}-landed"))
    for name in ("away", "half"):
        await _tell(there, service, name, due)
    async with asyncio.timeout(_PATIENCE):
        await there.halfway.wait()


async def kill_on_the_way(
    there: Outside, house: House, service: Service, ids: list[str], due: str
) -> None:
    """kill -9 of services while a copy is kept, an export made, and something taken that landed."""
    child = await house.start("b", crash_at="put").ready()
    with suppress(aiohttp.ClientError):
        await redact(at(service, child), ids[1], CARD, why=NEEDLES["agent"])
    await child.death()
    assert (await ask(service, ids, reason=NEEDLES["customer"])).status == 201
    await house.start("c", crash_at="export packed").death()
    await there.land(f"{CALL_ID}-landing", due)
    await house.start("d", crash_at="landed").death()


def at(service: Service, child: Child) -> Service:
    """The same keys, at the doors of another process."""
    return replace(service, ingest=child.ingest, retrieval=child.retrieval)


_PATIENCE = 120.0


async def until(fact: Fact) -> None:
    """Wait for something to come about."""
    deadline = time.monotonic() + _PATIENCE
    while not await fact():
        assert time.monotonic() < deadline, "it did not come about in two minutes"
        await asyncio.sleep(0.1)


async def _is(service: Service, export: str, wanted: str) -> bool:
    return await stage(service, export) == wanted


async def _landed(service: Service, call_id: str) -> bool:
    answer = await service.get(f"/v1/recordings?call_id={call_id}")
    return bool((await answer.json())["items"])


async def _tell(there: Outside, service: Service, name: str, due: str) -> None:
    call: Mapping[str, object] = {
        "id": f"{CALL_ID}-{name}",
        "type": "support",
        "start": datetime.fromisoformat(due).timestamp(),
        "way": "in",
        "from": NEEDLES["caller"],
    }
    url = f"{there.host.url}/{name}.wav?{NEEDLES['customer']}"
    told = vendors.own(there.host, {"id": name, "call": call, "download_url": url})
    answer = await wire(service, *told)
    assert (answer.status, answer.json()["new"]) == (202, 1), json.dumps(answer.json())
