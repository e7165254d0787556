"""Where the doors listen: unix sockets, with what a dead service leaves and a living one holds."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from app import listening
from app.config import Door
from app.listening import Listener
from app.values import Address
from archive.bounds import Bounds
from storage.objects import ObjectStore
from storage.vault import Vault
from tests.app.child_service import Child, House
from tests.roles import acting
from tests.services import Service, open_service
from tests.sounds import tone
from tests.stores.servers import Server
from tests.web.test_upload import query
from web import doors, ingest, retrieval


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "door.sock"


def test_a_socket_is_for_user_and_group_alone(path: Path) -> None:
    before = os.umask(0o077)
    try:
        with listening.bind(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_a_socket_that_a_dead_service_left_is_taken_over(path: Path) -> None:
    listening.bind(path).close()
    assert path.is_socket()
    with listening.bind(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_at_which_somebody_answers_is_left_alone(path: Path) -> None:
    with listening.bind(path) as living:
        with pytest.raises(OSError):
            listening.bind(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            living.accept()[0].close()


def test_one_whose_queue_is_full_is_somebodys(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, Held() as clients:
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(3):
            client = clients.hold(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(OSError):
            listening.bind(path)
        assert path.is_socket()


class Held:
    """Sockets that are closed at the end."""

    def __enter__(self) -> "Held":
        self._held: list[socket.socket] = []
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._held:
            each.close()

    def hold(self, each: socket.socket) -> socket.socket:
        self._held.append(each)
        return each


def test_any_other_file_is_left_alone(path: Path) -> None:
    path.write_text("a letter")
    with pytest.raises(OSError):
        listening.bind(path)
    assert path.read_text() == "a letter"


async def door(stack: AsyncExitStack, vault: Vault, path: Path, routes: list[doors.Route]) -> None:
    runner = doors.runner(doors.build(vault, "http://calls.example.fi", routes), 5)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listener = Listener(runner, Door(Address(socket=path), None, None, None), None)
    assert await listener.start(stack) == f"unix:{path}"


async def test_both_doors_work_over_sockets_and_networks_bind_a_key_there(
    service: Service, path: Path
) -> None:
    """A recording comes in and is heard; a key that may come from some networks comes from none."""
    other = path.with_name("retrieval.sock")
    bound = await service.key("uploader", "bound", bounds=Bounds.from_texts("127.0.0.0/8,::/0"))
    async with AsyncExitStack() as stack:
        await door(stack, acting(service.vault, "ingest"), path, ingest.routes())
        await door(stack, acting(service.vault, "retrieval"), other, retrieval.routes())
        sent = tone(30)
        for token, status in ((bound, 403), (service.tokens["uploader"], 201)):
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
                headers = {"Authorization": f"Bearer {token}"}
                answer = await session.put(
                    "http://door/v1/recordings/c-1", params=query(), data=sent, headers=headers
                )
                assert answer.status == status, await answer.text()
        identifier = (await answer.json())["id"]
        headers = {"Authorization": f"Bearer {service.tokens['supervisor']}"}
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(other))) as session:
            heard = await session.get(
                f"http://door/v1/recordings/{identifier}/audio", headers=headers
            )
            assert await heard.read() == sent
    assert not path.exists()
    assert not other.exists()


@pytest.fixture
def child(
    database_url: str, rclone_server: Server, rclone_store: ObjectStore, tmp_path: Path
) -> Iterator[Child]:
    bucket = rclone_store._bucket._path.removeprefix("/")
    more = {"ARCHIVE_DOORS_INGEST": f"unix:{tmp_path}/ingest.sock"}
    child = House(database_url, rclone_server, bucket, tmp_path, more).start()
    yield child
    child.kill()


async def test_the_service_and_the_client_meet_at_a_socket(
    child: Child, vault: Vault, tmp_path: Path
) -> None:
    path = tmp_path / "ingest.sock"
    async with AsyncExitStack() as stack:
        await child.ready()
        assert f"ingest      unix:{path}\n" in child.said()
        service = await stack.enter_async_context(open_service(vault))
        file = tmp_path / "call.wav"
        file.write_bytes(tone())
        words = ["upload", str(file), "--call-type", "other", "--started-at", query()["started_at"]]
        environment = {
            **os.environ,
            "ARCHIVE_URL": f"unix:{path}",
            "ARCHIVE_TOKEN": service.tokens["uploader"],
            "XDG_STATE_HOME": str(tmp_path),
        }
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", *words, env=environment, stdout=subprocess.PIPE
        )
        said, _ = await command.communicate()
        assert command.returncode == 0, said
        assert [row["state"] for row in await service.rows()] == ["stored"]
    child.process.terminate()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(child.process.wait, 60) == 0
    assert not path.exists()
