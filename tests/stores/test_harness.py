"""The harness itself: a relay that does not fail as told, or a silent skip, would prove nothing."""

import asyncio
import shutil

import pytest

from tests.stores import servers
from tests.stores.relay import Cut, Hang, Relay


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1000):
        writer.write(piece)
    writer.close()


async def test_a_raw_relay_passes_cuts_and_hangs_by_connection() -> None:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Relay("127.0.0.1", port, http=False) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            await relay.cut()
            assert await reader.read() == b""
            writer.close()

            relay.next(Cut(up=3), Hang())
            cut, cutting = await asyncio.open_connection("127.0.0.1", relay.port)
            cutting.write(b"hello")
            assert len(await cut.read()) < 5
            cutting.close()

            mute, asking = await asyncio.open_connection("127.0.0.1", relay.port)
            asking.write(b"hello")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(mute.read(1), 0.2)
            asking.close()


@pytest.mark.parametrize(
    ("ci", "root", "outcome"),
    [
        ("true", False, pytest.fail.Exception),
        ("true", True, pytest.fail.Exception),
        ("", False, pytest.skip.Exception),
        ("", True, pytest.fail.Exception),
    ],
)
def test_missing_ceph_is_skipped_only_where_it_cannot_be_helped(
    monkeypatch: pytest.MonkeyPatch, ci: str, root: bool, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    found = {"apt-get": "/usr/bin/apt-get"}
    monkeypatch.setattr(shutil, "which", found.get)
    with pytest.raises(outcome, match=r"apt-get install .*radosgw"):
        servers._require_ceph()
