"""Needles: what callers send is found nowhere in clear, and nowhere at all afterwards."""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from storage import recordings
from tests.jobs.test_expiry import a_year_ago
from tests.needles import CALL_ID, NEEDLES, SPOKEN, errors, files, found, no_http, talking, use
from tests.roles import connection
from tests.services import Service
from tests.sounds import tone
from tests.stores.servers import Server, running_rclone
from tests.web.test_upload import query


@pytest.fixture
def rclone_server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, whose folder can be read to the last byte."""
    with running_rclone(tmp_path / "store") as server:
        yield server


async def dump(service: Service) -> str:
    """Every table of the database as text, bytes as hexadecimal digits; and its statements."""
    texts = []
    async with connection(service.vault.pool) as lent:
        tables = await lent.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for table in tables:
            rows = await lent.fetch(f'SELECT t::text AS line FROM "{table["tablename"]}" t')
            texts += [row["line"] for row in rows]
        doing = await lent.fetch("SELECT query FROM pg_stat_activity")
    return "\n".join(texts + [row["query"] or "" for row in doing])


def unnamed(service: Service) -> list[bytes]:
    """What the open files without a name hold, wherever they are."""
    contents = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            place = os.readlink(f"/proc/self/fd/{entry}")
            if place.startswith(str(service.vault.spool)) or "(deleted)" in place:
                with open(f"/proc/self/fd/{entry}", "rb") as file:
                    contents.append(file.read())
        except OSError:
            continue
    return contents


async def test_what_callers_send_is_nowhere_in_clear(
    service: Service, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    params = query(started_at=a_year_ago(seconds=50), **NEEDLES)
    answer = await service.put(CALL_ID, talking(), params)
    assert answer.status == 201
    receipt = await answer.json()
    assert found(json.dumps(receipt)) == [CALL_ID]
    assert found(str(answer.headers)) == []
    identifier = receipt["id"]
    metadata = json.dumps({**query(**NEEDLES), "call_id": f"{CALL_ID}-2"})
    assert (await service.form([("audio", talking(660)), ("metadata", metadata)])).status == 201
    body = await (await service.get(f"/v1/recordings/{identifier}")).json()
    assert body["agent"] == NEEDLES["agent"]
    later = await service.get(f"/v1/recordings?call_id={CALL_ID}-2")
    assert len((await later.json())["items"]) == 1

    said = await errors(service, identifier)
    assert [found(one) for one in said if found(one)] == []
    await no_http(service)
    # The second call has all needles too: searches find both until the first is told apart.
    second = (await (await service.get(f"/v1/recordings?call_id={CALL_ID}-2")).json())["items"][0]
    async with connection(service.vault.pool) as lent:
        await lent.execute("DELETE FROM term WHERE recording = $1", second["id"])
    await use(service, identifier)

    text = await dump(service)
    assert identifier in text
    assert found(text) == []
    stored = dict(files(tmp_path / "store" / "data"))
    assert len(stored) == 2
    for name, content in stored.items():
        assert found(name) == []
        assert found(content) == []
    for name, content in files(tmp_path):
        assert found(name) == [], name
        assert found(content) == [], name
    lines = [logging.Formatter("%(name)s %(message)s").format(one) for one in caplog.records]
    ours = [line for line in lines if not line.startswith(("asyncio ", "tests"))]
    assert [(line, found(line)) for line in ours if found(line)] == []

    terms = await _terms(service, identifier)
    assert len(terms) >= len(NEEDLES)
    hashes = [*map(str, terms), *_hashes(service, receipt["sha256"])]
    assert [each for each in hashes if each not in text] == []
    await service.turn_clock(timedelta(seconds=55))
    assert (await service.erase()).erased == 1
    await nothing_is_left(service, identifier, [*hashes, receipt["sha256"]], tmp_path)


async def _terms(service: Service, identifier: str) -> list[int]:
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT hash FROM term WHERE recording = $1", identifier)
    return [row["hash"] for row in rows]


def _hashes(service: Service, sha256: str) -> list[str]:
    """The keyed hashes of a call's name and its audio, as the dump has them."""
    ring = service.vault.ring
    by_name = recordings.call_hash(ring, "pbx", CALL_ID)
    return [by_name.hex(), recordings.digest_hash(ring, bytes.fromhex(sha256)).hex()]


async def nothing_is_left(
    service: Service, identifier: str, hashes: list[str], folder: Path
) -> None:
    """Not even what a needle could be compared with."""
    assert await _terms(service, identifier) == []
    text = await dump(service)
    assert identifier in text
    assert [each for each in hashes if each in text] == []
    assert all(identifier not in name for name, _ in files(folder / "store"))


async def test_a_body_on_its_way_is_nowhere_in_clear(service: Service, tmp_path: Path) -> None:
    audio = tone(60)[:-50_000] + SPOKEN * 40
    seen: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield audio[:-1000]
        until = time.monotonic() + 20
        while not any(map(len, unnamed(service))):
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        seen.extend(unnamed(service))
        assert os.listdir(service.vault.spool) == []
        yield audio[-1000:]

    assert (await service.put(CALL_ID, pieces(), query())).status == 201
    assert max(map(len, seen)) > 500_000
    assert [found(content) for content in seen if found(content)] == []
    assert [name for name, content in files(tmp_path) if found(content)] == []
    assert os.listdir(service.vault.spool) == []


def test_a_needle_is_found_where_there_is_one() -> None:
    assert found(f"x{NEEDLES['agent'].upper()}y")
    assert found(NEEDLES["caller"].encode("utf-16-le"))
    assert found(CALL_ID.encode().hex())
    assert found(talking()) == ["needle-in-the-audio"]
    assert found("nothing") == []
