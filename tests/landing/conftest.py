"""A landing bucket in a real store, with those who write into it."""

import asyncio
import io
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import urllib3
from minio import Minio

from app import config
from app.landings import opened_at
from jobs import landing as looks
from jobs.landing import Look
from storage import landing, leftovers
from storage.landing import Landing
from storage.vault import Vault
from tests.roles import acting, connection
from tests.services import Service
from tests.stores.servers import (  # noqa: F401
    Server,
    object_server,
    rgw_server,
)

EXAMPLE = Path(__file__).parents[2] / "config.toml"
TABLE = """
[[landing]]
name = "others"
key = "test-uploader"
mapping = "{mapping}"
call_type = "{call_type}"
endpoint = "{endpoint}"
bucket = "{bucket}"
prefix = "{prefix}"
country = "FI"
ca = "{ca}"
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A landing bucket as the service sees it, and as those see it who write into it."""

    service: Service
    place: Landing
    vault: Vault
    server: Server
    bucket: str
    config: Path

    @property
    def minio(self) -> Minio:
        """A client of its own, as another system has one."""
        at = self.server
        ca = urllib3.PoolManager(ca_certs=str(at.ca)) if at.ca else None
        address = at.endpoint.partition("://")
        return Minio(
            address[2],
            access_key=at.access_key,
            secret_key=at.secret_key,
            secure=address[0] == "https",
            http_client=ca,
        )

    async def put(self, key: str, content: bytes, **metadata: str) -> None:
        """Write an object as a system does that uses minio's client."""
        await asyncio.to_thread(
            self.minio.put_object,
            bucket_name=self.bucket,
            object_name=key,
            data=io.BytesIO(content),
            length=len(content),
            metadata={name.replace("_", "-"): text for name, text in metadata.items()} or None,
        )

    async def rclone(self, file: Path, key: str) -> None:
        """Write an object as rclone does."""
        at = self.server
        remote = {
            "TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": at.endpoint, "NO_CHECK_BUCKET": "true",
            "ACCESS_KEY_ID": at.access_key, "SECRET_ACCESS_KEY": at.secret_key,
        }  # fmt: skip
        told = {f"RCLONE_CONFIG_LAND_{name}": value for name, value in remote.items()}
        program = str(Path(sys.executable).parent / "rclone")
        command = [program, "copyto", "--config", os.devnull, str(file)]
        await asyncio.to_thread(
            subprocess.run,
            [*command, f"land:{self.bucket}/{key}"],
            env={**os.environ, **told},
            check=True,
        )

    async def look(self) -> Look:
        """What the service does twice a minute."""
        return await looks.look(self.vault, self.place)

    async def there(self) -> list[str]:
        """The key of everything that the store keeps, in every version."""
        return [held.key async for held in landing.walk(self.place)]

    async def calls(self) -> dict[str, dict[str, object]]:
        """What a supervisor finds and may hear, by call id."""
        answer = await self.service.get("/v1/recordings")
        found = {}
        for item in (await answer.json())["items"]:
            heard = await self.service.get(f"/v1/recordings/{item['id']}/audio")
            assert heard.status == 200
            found[item["call_id"]] = {**item, "audio": await heard.read()}
        return found

    async def let_come_due(self) -> None:
        """Let the time be over for which what was left is left alone."""
        async with connection(self.vault.pool) as lent:
            await lent.execute("UPDATE landing_left SET again_at = archive_now()")


Open = Callable[..., Awaitable[Site]]


@pytest.fixture
async def open_site(service: Service, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens a landing bucket in a store, as the configuration has it."""
    async with AsyncExitStack() as stack:

        async def opened(
            server: Server,
            mapping: str,
            call_type: str = "customer_service",
            prefix: str = "",
            more: str = "",
        ) -> Site:
            bucket = f"land-{uuid.uuid4()}"
            store = await server.connect(bucket)
            stack.push_async_callback(store.close)
            if server.versioned:
                from tests.stores.servers import set_versioning

                await set_versioning(store, "Enabled")
            table = TABLE.format(
                mapping=mapping,
                call_type=call_type,
                endpoint=server.endpoint,
                bucket=bucket,
                prefix=prefix,
                ca=server.ca or "",
            )
            file = tmp_path / "config.toml"
            file.write_text(EXAMPLE.read_text() + more + table)
            environ = {
                "ARCHIVE_LANDING_OTHERS_ACCESS_KEY": server.access_key,
                "ARCHIVE_LANDING_OTHERS_SECRET_KEY": server.secret_key,
            }
            [configured] = config.load(file, environ).landings
            place = opened_at(configured)
            stack.push_async_callback(place.bucket.close)
            vault = acting(service.vault, "ingest")
            async with connection(service.vault.pool) as lent:
                await leftovers.begin(lent, ["others"])
            return Site(service, place, vault, server, bucket, file)

        yield opened


def versioned(server: Server) -> Server:
    """The same server, whose new buckets keep versions."""
    return replace(server, versioned=True)
