"""Uploads while store, database, disk or the sender fail: told clearly, and nothing half kept."""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncpg
import pytest

from storage import sweep
from storage.objects import ObjectStore
from tests import small_disk as disk
from tests.roles import connection
from tests.services import MAX_BYTES, Faulty, Service, open_service, open_vault
from tests.sounds import tone
from tests.stores.relay import Answer, Cut, Fault, Hang, Hold, Relay
from tests.stores.servers import Server
from tests.web import database_relay
from tests.web.database_relay import DatabaseRelay
from tests.web.test_upload import problem, query

PUT_TIME = 3.0
INTENT, COMMIT = "INSERT INTO recording", "SET state = 'stored'"


@pytest.fixture(autouse=True)
def no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever fails here was foreseen: nothing ends in a 500 or in a traceback."""
    caplog.set_level(logging.INFO)
    yield
    errors = [one for one in caplog.records if one.levelno >= logging.ERROR]
    # aiohttp itself tells of what is no HTTP as of an error.
    assert [one.getMessage() for one in errors if one.name != "archive.http"] == []


@pytest.fixture
async def relay(rclone_server: Server) -> AsyncIterator[Relay]:
    async with Relay.before(rclone_server.endpoint) as relay:
        yield relay


@pytest.fixture
async def relayed(
    database_url: str, rclone_server: Server, relay: Relay, tmp_path: Path
) -> AsyncIterator[Service]:
    """An archive whose store stands behind a relay and is waited for a short time only."""
    store = await rclone_server.connect(endpoint=relay.url, patience=PUT_TIME)

    async def put(key: str, body: Any, length: int, md5: bytes, timeout: float) -> None:
        await store.put(key, body, length, md5, min(timeout, PUT_TIME))

    try:
        async with open_vault(database_url, store, tmp_path) as vault:
            quick: Any = Faulty(store, put=put)
            async with open_service(replace(vault, objects=quick)) as service:
                yield service
    finally:
        await store.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseRelay]:
    async with DatabaseRelay(database_url) as relay:
        yield relay


@pytest.fixture
async def behind(
    database: DatabaseRelay, rclone_store: ObjectStore, tmp_path: Path
) -> AsyncIterator[Service]:
    """An archive whose database stands behind a relay."""
    async with open_vault(database.url, rclone_store, tmp_path) as vault:
        async with open_service(vault) as service:
            yield service


async def unavailable(answer: aiohttp.ClientResponse) -> None:
    await problem(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0


async def kept(service: Service, call_id: str, audio: bytes, params: dict[str, str]) -> None:
    """The retry succeeds, and afterwards there is this one recording and nothing else."""
    answer = await service.put(call_id, audio, params)
    assert answer.status in (200, 201), await answer.text()
    identifier = (await answer.json())["id"]
    await service.sweep_everything()
    assert [str(row["id"]) for row in await service.rows()] == [identifier]
    assert [identifier in holding.key for holding in await service.holdings()] == [True]
    assert [act for act, _ in await service.acts()].count("stored") == 1
    heard = await service.get(f"/v1/recordings/{identifier}/audio")
    assert await heard.read() == audio


# The object store


@pytest.mark.parametrize(
    "fault",
    [Answer(503), Answer(500), Answer(403), Hang(), Cut(up=50_000), Cut(down=0)],
    ids=["503", "500", "403", "hangs", "cut", "reply-lost"],
)
async def test_a_store_that_fails_an_upload(relayed: Service, relay: Relay, fault: Fault) -> None:
    audio, params = tone(10), query()
    relay.next(fault, method="PUT")
    await unavailable(await relayed.put("c", audio, params))
    assert await relayed.rows() == []
    await kept(relayed, "c", audio, params)


async def test_what_a_store_failed_is_collected_without_a_retry(
    relayed: Service, relay: Relay
) -> None:
    relay.next(Cut(down=0), method="PUT")
    await unavailable(await relayed.put("c", tone(), query()))
    assert len(await relayed.holdings()) == 1
    await relayed.sweep_everything()
    assert await relayed.holdings() == []
    async with connection(relayed.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM recording") == 0


async def test_a_put_that_lands_after_the_first_sweep(relayed: Service, relay: Relay) -> None:
    audio, params = tone(), query()
    relay.next(Hold(), method="PUT")
    await unavailable(await relayed.put("c", audio, params))
    await relayed.end_leases()
    await sweep.run(relayed.vault)
    assert await relayed.holdings() == []
    answer = await relayed.put("c", audio, params)
    assert answer.status == 201
    assert await relay.release() == [200]
    assert len(await relayed.holdings()) == 2
    await kept(relayed, "c", audio, params)


async def test_a_store_that_is_away_while_somebody_listens(relayed: Service, relay: Relay) -> None:
    audio = tone()
    receipt = await (await relayed.put("c", audio, query())).json()
    path = f"/v1/recordings/{receipt['id']}/audio"
    for fault in (Answer(503), Hang()):
        relay.next(fault, method="GET")
        await unavailable(await relayed.get(path))
    assert await (await relayed.get(path)).read() == audio


# The database


@pytest.mark.parametrize(
    ("text", "fault", "status"),
    [
        (INTENT, "before", 503),
        (INTENT, "after", 503),
        (INTENT, "late", 503),
        (COMMIT, "before", 503),
        (COMMIT, "after", 201),
        (COMMIT, "late", 503),
    ],
)
async def test_a_statement_whose_fate_is_unknown(
    behind: Service,
    database: DatabaseRelay,
    text: str,
    fault: database_relay.Fault,
    status: int,
) -> None:
    audio, params = tone(), query()
    database.next(text, fault)
    answer = await behind.put("c", audio, params)
    assert database.befallen == 1
    assert answer.status == status
    if status == 503:
        await unavailable(answer)
        assert all(row["state"] != "stored" for row in await behind.rows())
    else:
        assert len(await behind.rows()) == 1
    await asyncio.sleep(2 * database_relay.LATE if fault == "late" else 0)
    if (text, fault) == (INTENT, "late"):
        # It landed after it was given up: the call is held until its lease ends.
        await unavailable(await behind.put("c", audio, params))
        await behind.end_leases()
        await unavailable(await behind.put("c", audio, params))
    await kept(behind, "c", audio, params)


async def test_a_database_that_another_took_over_from(behind: Service, database_url: str) -> None:
    """It has become a standby: it reads, and takes nothing."""
    audio, params = tone(1), query()

    async def turn(what: str) -> None:
        here = {"default_transaction_read_only": "off"}
        link = await asyncpg.connect(database_url, server_settings=here)
        name = await link.fetchval("SELECT current_database()")
        await link.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {what}")
        await link.close()
        await behind.vault.pool.expire_connections()

    await turn("on")
    await unavailable(await behind.put("c", audio, params))
    await turn("off")
    await kept(behind, "c", audio, params)


async def test_a_database_that_is_away(behind: Service, database: DatabaseRelay) -> None:
    audio, params = tone(), query()
    database.away = True
    await database.cut()
    await unavailable(await behind.put("c", audio, params))
    await unavailable(await behind.get("/v1/recordings"))
    database.away = False
    await kept(behind, "c", audio, params)


@pytest.mark.parametrize("how", ["cut", "terminate"])
async def test_a_database_that_breaks_under_load(
    behind: Service, database: DatabaseRelay, how: str
) -> None:
    acknowledged: dict[str, str] = {}
    bodies = {f"c{number}": tone(0.2 + number / 10) for number in range(16)}
    params = query()

    async def insist(call_id: str) -> None:
        for _ in range(60):
            answer = await behind.put(call_id, bodies[call_id], params)
            if answer.status != 503:
                break
            await unavailable(answer)
            await asyncio.sleep(0.1)
            with suppress(Exception):
                await behind.end_leases()
        assert answer.status in (200, 201), await answer.text()
        acknowledged[call_id] = (await answer.json())["id"]

    tasks = [asyncio.create_task(insist(call_id)) for call_id in bodies]
    for _ in range(5):
        await asyncio.sleep(0.15)
        await (_terminate(behind) if how == "terminate" else database.cut())
    await asyncio.gather(*tasks)
    # The driver lends one whose end it was told of, until the line is closed too.
    await behind.vault.pool.expire_connections()
    await behind.sweep_everything()
    assert {str(row["id"]) for row in await behind.rows()} == set(acknowledged.values())
    assert len(await behind.holdings()) == len(bodies)
    told = [recording for act, recording in await behind.acts() if act == "stored"]
    assert sorted(map(str, told)) == sorted(acknowledged.values())
    for call_id, identifier in acknowledged.items():
        heard = await behind.get(f"/v1/recordings/{identifier}/audio")
        assert await heard.read() == bodies[call_id]


async def _terminate(service: Service) -> None:
    """What a fast restart of the server does to every connection."""
    with suppress(Exception):
        async with connection(service.vault.pool) as lent:
            await lent.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database()"
            )


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[None]:
    """A spool on a disk of 512 KiB."""
    with disk.small_disk(tmp_path / "spool"):
        yield


async def test_a_full_disk(small_disk: None, service: Service) -> None:
    audio, params = tone(60), query()
    assert len(audio) > 512 << 10
    await unavailable(await service.put("c", audio, params))
    form = [("metadata", '{"call_id":"d"}'), ("audio", audio)]
    assert (await service.form(form)).status in (422, 503)
    nothing_is_open(service)
    assert await service.rows() == []
    assert await service.holdings() == []
    await kept(service, "c", tone(10), params)


# The sender


def head(service: Service, *lines: str, token: str = "uploader", **fields: str) -> bytes:
    """The head of a PUT as it goes over the wire."""
    address = f"/v1/recordings/c?{urlencode(query(**fields))}"
    login = f"Authorization: Bearer {service.tokens.get(token, token)}"
    return "\r\n".join([f"PUT {address} HTTP/1.1", "Host: archive", login, *lines, "", ""]).encode()


class Sender:
    """A raw connection to the ingest door."""

    def __init__(self, service: Service) -> None:
        self._host, self._port = service.ingest.removeprefix("http://").split(":")

    async def __aenter__(self) -> "Sender":
        self.reader, self.writer = await asyncio.open_connection(self._host, int(self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def head(self) -> bytes:
        """The head of the next answer."""
        async with asyncio.timeout(20):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def status(self) -> int:
        """The status of the next answer, whose head is read."""
        return int((await self.head()).split()[1])

    async def rest(self) -> bytes:
        """All that comes until the door closes the connection."""
        async with asyncio.timeout(20):
            return await self.reader.read()


def nothing_is_open(service: Service) -> None:
    spool = str(service.vault.spool)
    places = []
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            places.append(os.readlink(f"/proc/self/fd/{entry}"))
    assert [place for place in places if place.startswith(spool)] == []
    assert os.listdir(spool) == []


async def nothing_was_kept(service: Service) -> None:
    """The upload is over, nothing of it is anywhere, and the next one is taken."""
    until = time.monotonic() + 20
    while service.vault.intakes.total():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)
    nothing_is_open(service)
    assert await service.rows() == []
    assert await service.holdings() == []
    assert [act for act, _ in await service.acts() if act == "stored"] == []
    assert (await service.put("next", tone(), query())).status == 201


async def taking(service: Service) -> None:
    """Wait until a body is being taken in."""
    until = time.monotonic() + 20
    while not service.vault.intakes.total():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["half-closes", "closes", "resets"])
@pytest.mark.parametrize("way", ["length", "chunked", "between-chunks"])
async def test_a_sender_who_vanishes_half_way(service: Service, way: str, end: str) -> None:
    audio = tone(10)
    half = audio[: len(audio) // 2]
    async with Sender(service) as sender:
        if way == "length":
            await sender.send(head(service, f"Content-Length: {len(audio)}"), half)
        elif way == "chunked":
            await sender.send(
                head(service, "Transfer-Encoding: chunked"), b"%x\r\n" % len(audio), half
            )
        else:
            await sender.send(
                head(service, "Transfer-Encoding: chunked"), b"%x\r\n" % len(half), half, b"\r\n"
            )
        await taking(service)
        if end == "half-closes":
            sender.writer.write_eof()
            assert b" 20" not in (await sender.rest())[:13]
        elif end == "resets":
            sender.writer.transport.abort()
    await nothing_was_kept(service)


async def test_a_form_that_breaks_off(service: Service) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    lines = ["Content-Type: multipart/form-data; boundary=x", "Content-Length: 500000"]
    start = head(service, *lines).replace(b"PUT /v1/recordings/c", b"POST /v1/recordings")
    for body in (part % b"audio" + tone(5), part % b"metadata" + b'{"call_id": "c'):
        async with Sender(service) as sender:
            await sender.send(start, body)
            await taking(service)
    await nothing_was_kept(service)


@pytest.mark.parametrize("seconds", [1, 60])
async def test_a_body_that_is_longer_than_its_length(service: Service, seconds: int) -> None:
    audio, params = tone(seconds), query()
    async with Sender(service) as sender:
        await sender.send(
            head(service, f"Content-Length: {len(audio)}", **params), audio + b"\0\0 and more"
        )
        status = await sender.status()
        said = await sender.rest()
    # What is too much came with the rest, or was taken for the next request.
    assert status == 400 or (status == 201 and re.search(rb"HTTP/1\.[01] 400 ", said))
    assert b"urn:call-archive:problem:malformed" in said
    assert [row["bytes"] for row in await service.rows()] == ([len(audio)] * (status == 201))
    assert (await service.put("c", audio, params)).status == (200 if status == 201 else 201)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: xchunked",),
        ("Content-Length: +5",),
        ("Content-Length: -5",),
        ("Content-Length: 5_0",),
        ("Content-Length : 5",),
    ],
)
async def test_a_length_that_can_be_read_in_two_ways(
    service: Service, lines: tuple[str, ...]
) -> None:
    async with Sender(service) as sender:
        await sender.send(head(service, *lines), b"5\r\n")
        assert await sender.status() == 400
        await sender.rest()  # it closes
    await nothing_was_kept(service)


async def test_a_slow_body_is_waited_for(service: Service) -> None:
    audio = tone(2)
    async with Sender(service) as sender:
        await sender.send(head(service, f"Content-Length: {len(audio)}"))
        for start in range(0, len(audio), 2000):
            await sender.send(audio[start : start + 2000])
            await asyncio.sleep(0.05)
        assert await sender.status() == 201


EXPECTING = "Expect: 100-continue"


@pytest.mark.parametrize(
    ("status", "lines", "token", "fields"),
    [
        (401, ("Content-Length: 5",), "cra_aaaaaaaaaaaa_" + "A" * 43, {}),
        (403, ("Content-Length: 5",), "supervisor", {}),
        (413, (f"Content-Length: {MAX_BYTES + 1}",), "uploader", {}),
        (415, ("Content-Length: 5", "Content-Encoding: gzip"), "uploader", {}),
        (422, ("Content-Length: 5",), "uploader", {"call_type": "none"}),
        (409, ("Content-Length: 5",), "uploader", {"call_type": "other"}),
        (400, ("Content-Length: 5", "Content-MD5: x"), "uploader", {}),
    ],
)
async def test_what_will_be_refused_is_refused_before_the_body_is_sent(
    service: Service, status: int, lines: tuple[str, ...], token: str, fields: dict[str, str]
) -> None:
    params = query()
    assert (await service.put("c", tone(), params)).status == 201
    fields = {"started_at": params["started_at"], **fields}
    async with Sender(service) as sender:
        await sender.send(head(service, *lines, EXPECTING, token=token, **fields))
        said = await sender.head()
        assert int(said.split()[1]) == status
        assert b"application/problem+json" in said
        assert b"\r\nConnection: close\r\n" in said
    assert len(await service.rows()) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_will_be_taken_is_asked_for(service: Service, chunked: bool) -> None:
    audio = tone(5)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(audio)}"
    async with Sender(service) as sender:
        await sender.send(head(service, length, EXPECTING))
        assert await sender.status() == 100
        sized = b"%x\r\n%b\r\n0\r\n\r\n" % (len(audio), audio)
        await sender.send(sized if chunked else audio)
        assert await sender.status() == 201
    assert [row["bytes"] for row in await service.rows()] == [len(audio)]


async def test_a_sender_who_asks_and_goes(service: Service) -> None:
    async with Sender(service) as sender:
        await sender.send(head(service, "Content-Length: 50000", EXPECTING))
        assert await sender.status() == 100
    await nothing_was_kept(service)
