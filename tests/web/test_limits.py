"""What a door bears: each rule by itself, then as a sender meets it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
import yarl
from aiohttp import web

from archive.access import Caller, Level
from archive.bounds import FREE, read_networks
from archive.errors import TooManyError, UnavailableError
from archive.token import Token
from storage import credentials, intake
from storage.vault import Vault
from tests.services import Service, open_service
from tests.sounds import tone
from tests.web.test_openapi import DOCUMENTS
from tests.web.test_upload import problem, query
from web import connections, doors, limits
from web.connections import Connection
from web.doors import OpenRoute
from web.keys import Keys
from web.limits import Crowd, Limits, Pace, WrongKeys


def paced(pieces: list[tuple[float, int]], *, waiting: bool = True) -> bool:
    """Whether a body goes on that comes in with pauses of so many seconds before so many bytes."""
    now, received, pace = 0.0, 0, Pace(0.0)
    for pause, size in pieces:
        until = now + pause
        while now + 1 < until:
            now += 1
            if not pace.keeps(received, now, waiting=waiting):
                return False
        now, received = until, received + size
        if not pace.keeps(received, now, waiting=waiting):
            return False
    return True


@pytest.mark.parametrize("rate", [8000, 1000, 594, 300])
def test_a_slow_line_may_take_hours(rate: int) -> None:
    """64 kbit/s, and what is spoken now in G.729 and in the slowest AMR."""
    assert paced([(1, rate)] * 3600 * 12)
    assert paced([(30, rate * 30)] * 120)


def test_who_trickles_or_falls_silent_is_given_up() -> None:
    assert not paced([(1, 200)] * 1000)
    assert not paced([(59, 1)] * 3)
    assert not paced([(61, 10**9)])
    assert not paced([(1, 10**9), (61, 1)]), "what was sent before buys no hour of silence"
    assert paced([(50, 10**6)] * 100)


def test_nobody_is_blamed_for_what_the_service_does_not_read_or_see() -> None:
    assert paced([(3600, 1)] * 10, waiting=False)
    pace = Pace(0)
    assert pace.keeps(0, 3600, waiting=True), "it stood still for an hour, and so could not look"


def test_chunks_of_speech_are_no_flood() -> None:
    for size in (8, 20, 160, 65536):
        for count in (1, 10**3, 10**6):
            wrapping = len(f"{size:x}\r\n\r\n")
            assert not limits.wrapped_too_much(count * (size + wrapping), count * size)
    assert limits.wrapped_too_much(10**6 * 6, 10**6)
    assert limits.wrapped_too_much(10**6, 0)


def test_addresses_are_counted_as_whose_they_are() -> None:
    bears = Limits(proxies=read_networks("10.0.0.1/32,fd00::/64"))
    assert bears.counted("192.0.2.1") == bears.counted("::ffff:192.0.2.1") == "192.0.2.1"
    assert bears.counted("2001:db8::1") == bears.counted("2001:db8::ffff:2") == "2001:db8::/64"
    assert bears.counted("2001:db8:0:1::1") != bears.counted("2001:db8::1")
    assert bears.counted("fe80::1%eth0") == "fe80::/64"
    for uncounted in ("10.0.0.1", "fd00::9", "", None, "a socket"):
        assert bears.counted(uncounted) == ""


def test_wrong_keys_run_out_and_come_back() -> None:
    now = 0.0
    wrong = WrongKeys(Limits(proxies=read_networks("10.0.0.1/32")), lambda: now)
    for _ in range(60):
        wrong.check("192.0.2.1")
        wrong.count("192.0.2.1")
        wrong.check("10.0.0.1")
        wrong.count("10.0.0.1")
    with pytest.raises(TooManyError) as refused:
        wrong.check("192.0.2.1")
    assert refused.value.retry_after == 1
    wrong.check("192.0.2.2")
    wrong.check("10.0.0.1")
    now = 1.5
    wrong.check("192.0.2.1")
    for number in range(limits._KNOWN + 10):
        wrong.count(f"198.18.{number // 250}.{number % 250}")
    assert len(wrong._buckets) == limits._KNOWN


class Visitor:
    """A connection that waits since then, or is busy."""

    def __init__(self, address: str = "", since: float | None = None) -> None:
        self.address, self._since, self.ended = address, since, False

    def waited(self) -> float | None:
        return self._since

    def cut(self) -> None:
        self.ended = True

    def look(self, now: float) -> None:
        """It is never looked at."""


def test_a_door_has_room_for_each_address_and_in_all() -> None:
    crowd = Crowd(Limits(connections=4, per_address=2))
    mine = [Visitor("192.0.2.1"), Visitor("192.0.2.1", since=7.0)]
    assert all(map(crowd.enter, mine))
    assert not crowd.enter(Visitor("192.0.2.1"))
    others = [Visitor("b", since=5.0), Visitor("c")]
    assert all(map(crowd.enter, others))
    assert crowd.enter(Visitor("d"))
    assert [one.ended for one in mine + others] == [False, False, True, False]
    assert crowd.enter(Visitor("e"))
    assert mine[1].ended
    assert not crowd.enter(Visitor("f")), "all are busy"
    assert len(crowd.guests) == 4
    crowd.leave(mine[0])
    crowd.leave(mine[0])
    assert crowd.enter(Visitor("192.0.2.1"))
    assert crowd.told() == ("2 idle when it was full, 1 too many in all, 1 too many of an address")
    assert crowd.told() == ""


def test_who_floods_gets_no_connection_for_a_while() -> None:
    now = 0.0
    crowd = Crowd(Limits(), lambda: now)
    for _ in range(limits.FLOODS.count):
        guest = Visitor("192.0.2.1")
        assert crowd.enter(guest)
        crowd.leave(guest)
        crowd.flooded(guest, "x")
    assert not crowd.enter(Visitor("192.0.2.1"))
    assert crowd.enter(Visitor("192.0.2.2"))
    assert crowd.enter(Visitor(""))
    now = 2.5
    assert crowd.enter(Visitor("192.0.2.1"))
    for _ in range(100):
        crowd.flooded(Visitor(""), "x")
    assert crowd.enter(Visitor("")), "a proxy is not held to what one of its clients does"


def test_one_key_never_has_all_places() -> None:
    keys, places = Keys(), 4
    stolen, mine = Token.new(), Token.new()
    guessed = replace(mine, id=stolen.id)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(keys.under_way(stolen, places))
        with pytest.raises(UnavailableError), keys.under_way(stolen, places):
            pass
        with keys.under_way(mine, places), keys.under_way(guessed, places):
            pass
    with keys.under_way(stolen, places):
        pass


def test_there_are_so_many_places(vault: Vault) -> None:
    small = replace(vault, limits=replace(vault.limits, max_concurrent=2))
    mine, other = (Caller(name, Level.UPLOADER, "pbx", None, FREE) for name in ("mine", "other"))
    with intake.slot(small, mine), intake.slot(small, mine):
        with pytest.raises(UnavailableError), intake.slot(small, other):
            pass
    assert not small.intakes


# As a sender meets them.


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the looks come soon after each other, from the next one on."""
    monkeypatch.setattr(connections, "LOOK", 0.02)


@asynccontextmanager
async def opened(service: Service, door: str = "ingest") -> AsyncIterator[Any]:
    url = yarl.URL(getattr(service, door))
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the door ends the connection."""
    with suppress(ConnectionError):
        return await reader.read()
    return b""


def upload(service: Service, *headers: str) -> bytes:
    """The head of an upload."""
    params = str(yarl.URL().with_query(query()).raw_query_string)
    lines = [
        f"PUT /v1/recordings/c?{params} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {service.tokens['uploader']}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_a_slow_head_is_ended(
    service: Service, looking: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(limits, "HEAD", 0.3)
    async with opened(service) as (reader, writer):

        async def drip() -> None:
            with suppress(ConnectionError):
                for byte in upload(service) * 1000:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await rest(reader) == b""
        dripping.cancel()
    assert "connections were ended: 1 slow heads" in caplog.text


async def test_who_says_nothing_is_ended(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IDLE", 0.2)

    async def act(request: web.Request) -> web.Response:
        return web.Response()

    async with own_door(vault, act, Limits()) as port:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HT"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            assert (b" 200 " in await rest(reader)) is said.endswith(b"\n")
            writer.close()


async def test_a_slow_body_is_given_up(
    service: Service, looking: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(limits, "GRACE", 0.3)
    for kind in ("Content-Length: 100000", "Transfer-Encoding: chunked"):
        async with opened(service) as (reader, writer):
            writer.write(upload(service, kind))
            answer = await rest(reader)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 503 " in head.splitlines()[0]
        assert b"Retry-After: 5" in head
        assert json.loads(body)["type"].endswith(":unavailable")
    assert "slow bodies" in caplog.text
    assert not [one for one in caplog.records if one.levelno > logging.WARNING]
    assert await service.rows() == []
    assert not service.vault.intakes


async def test_a_slow_form_is_given_up(
    service: Service, looking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GRACE", 0.3)

    async def form() -> AsyncIterator[bytes]:
        yield b'--X\r\nContent-Disposition: form-data; name="audio"\r\n\r\n' + tone()[:1000]
        await asyncio.sleep(60)

    kind = {"Content-Type": "multipart/form-data; boundary=X"}
    answer = await service.post("/v1/recordings", form(), kind)  # type: ignore[arg-type]
    await problem(answer, 503, "unavailable")
    assert await service.rows() == []


async def test_a_key_has_so_much_under_way_from_wherever_it_is_shown(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(vault, limits=replace(vault.limits, max_concurrent=4))
    async with open_service(small) as service, AsyncExitStack() as stack:
        other = await service.key("uploader", "other")
        half = [await stack.enter_async_context(opened(service)) for _ in range(3)]
        for number, (_, writer) in enumerate(half):
            head = upload(service, "Content-Length: 9999")
            writer.write(head.replace(b"recordings/c", b"recordings/half-%d" % number) + b"RIFF")
        while small.intakes.total() < len(half):
            await asyncio.sleep(0.01)

        with monkeypatch.context() as patched:
            patched.delattr(credentials, "authenticate")  # the database is not even asked
            for method, path in (("PUT", "recordings/c"), ("HEAD", "uploads/x"), ("POST", "cdr")):
                answer = await service.ask(method, f"{service.ingest}/v1/{path}", "uploader")
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            async with opened(service) as (reader, writer):
                writer.write(upload(service, "Content-Length: 9", "Expect: 100-continue"))
                assert b" 503 " in (await rest(reader)).splitlines()[0]
        assert (await service.put("c", tone(), query(), token=other)).status == 201

        for _, writer in half:
            writer.close()
        while (answer := await service.put("d", tone(), query())).status == 503:
            await asyncio.sleep(0.01)
        assert answer.status == 201


FLOODS: dict[str, tuple[bytes, bytes]] = {
    "tiny chunks": (b"1\r\nx\r\n" * 1000, b""),
    "chunk extensions": (b"1;" + b"x" * 60000 + b"\r\nx\r\n", b""),
    "one extension without an end": (b"x" * 60000, b"1;"),
    "trailers": (b"".join(b"X-%d: x\r\n" % number for number in range(5000)), b"0\r\n"),
    "one trailer without an end": (b"x" * 60000, b"0\r\nX: "),
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("known", [True, False])
async def test_a_flood_around_a_body_is_refused(
    service: Service, flood: str, known: bool, caplog: Any
) -> None:
    again, first = FLOODS[flood]
    head = upload(service, "Transfer-Encoding: chunked")
    if not known:
        head = head.replace(b"Bearer ", b"Bearer x")
    async with opened(service) as (reader, writer):
        writer.write(head + first)
        sent = 0

        async def go_on() -> None:
            nonlocal sent
            with suppress(ConnectionError):
                while True:
                    writer.write(again)
                    await writer.drain()
                    sent += len(again)

        flooding = asyncio.create_task(go_on())
        answer = await rest(reader)
        await asyncio.wait([flooding], timeout=20)
        assert flooding.done(), "the door listens to it still"
    assert sent < 20_000_000
    if answer:  # a connection that is reset may take its answer with it
        assert (b" 400 " if known else b" 401 ") in answer.splitlines()[0]
    assert not [one for one in caplog.records if one.levelno > logging.WARNING]
    assert not service.vault.intakes
    assert await service.rows() == []


def in_one_read(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let so many bytes of a connection come at once, however the network cut them."""
    held, take = bytearray(), Connection.data_received

    def wait(connection: Connection, data: bytes) -> None:
        held.extend(data)
        if len(held) == size:
            take(connection, bytes(held))

    monkeypatch.setattr(Connection, "data_received", wait)


async def test_a_flood_is_noticed_before_all_that_is_there_was_parsed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = upload(service, "Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 40_000
    judge, seen = limits.wrapped_too_much, [0]

    def judged(wire: int, received: int) -> bool:
        seen.append(received)
        return judge(wire, received)

    in_one_read(monkeypatch, len(flood))
    monkeypatch.setattr(limits, "wrapped_too_much", judged)
    async with opened(service) as (reader, writer):
        writer.write(flood)
        answer = await rest(reader)
    assert 0 < max(seen) <= connections.PIECE
    assert b" 400 " in answer.splitlines()[0]


async def test_a_head_is_noticed_before_all_that_is_there_was_parsed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: %s\r\n" % (b"x" * 8000) * 60
    refuse, seen = Connection._refuse_head, list[int]()

    def refused(connection: Connection) -> None:
        seen.append(connection._wire)
        refuse(connection)

    in_one_read(monkeypatch, len(flood))
    monkeypatch.setattr(Connection, "_refuse_head", refused)
    async with opened(service) as (reader, writer):
        writer.write(flood)
        answer = await rest(reader)
    assert limits.HEAD_BYTES < seen[0] <= limits.HEAD_BYTES + connections.PIECE
    assert len(seen) == 1
    assert b" 400 " in answer.splitlines()[0]


HEADS = {
    "fields": b"".join(b"X-%d: x\r\n" % number for number in range(200)),
    "a long field": b"X: " + b"x" * 20_000,
    "a long name": b"X" * 20_000,
    "bytes": (b"X: %s\r\n" % (b"x" * 8000) * 90)[: limits.HEAD_BYTES],
}


@pytest.mark.parametrize("head", HEADS)
async def test_a_head_has_its_bounds(service: Service, head: str) -> None:
    async with opened(service, "retrieval") as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        text = HEADS[head]
        for start in range(0, len(text), 4000):
            writer.write(text[start : start + 4000])
            with suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0)
        answer = await rest(reader)
    assert b" 400 " in answer.splitlines()[0]
    assert b"urn:call-archive:problem:malformed" in answer
    assert b"XXX" not in answer


async def test_a_head_after_a_large_body_has_its_own_bounds(service: Service) -> None:
    audio = tone(30)
    head = upload(service, f"Content-Length: {len(audio)}")
    async with opened(service) as (reader, writer):
        for _ in range(3):
            writer.write(head[:20])
            await writer.drain()
            writer.write(head[20:] + audio)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.split(b" ")[1] in (b"200", b"201")
            length = int(answer.partition(b"Content-Length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)


async def test_an_answer_that_nobody_takes_is_ended(
    service: Service, looking: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    one = (await (await service.put("a", tone(600), query())).json())["id"]
    monkeypatch.setattr(limits, "UNTAKEN", 0.3)
    async with opened(service, "retrieval") as (_, writer):
        token = service.tokens["supervisor"]
        path = f"/v1/recordings/{one}/audio?format=wav"
        ask = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.transport.pause_reading()
        writer.write(ask.encode())
        async with asyncio.timeout(60):
            while "answers that nobody took" not in caplog.text:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def own_door(
    vault: Vault, act: Callable[[web.Request], Awaitable[web.StreamResponse]], bears: Limits
) -> AsyncIterator[int]:
    runner = doors.runner(doors.build(vault, "", [OpenRoute("GET", "/", act)], bears=bears), 1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_request_without_an_end_is_ended(
    vault: Vault, looking: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(limits, "WHOLE", 0.3)

    async def act(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with own_door(vault, act, Limits()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await rest(reader) == b""
        writer.close()
    assert "requests without an end" in caplog.text


async def test_an_address_has_so_many_connections(vault: Vault) -> None:
    async def act(request: web.Request) -> web.Response:
        return web.Response(text="here")

    ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with own_door(vault, act, Limits(connections=4, per_address=2)) as port:

        async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))

        async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
            writer.write(ask)
            try:
                return b"200 OK" in await reader.readuntil(b"here")
            except (ConnectionError, asyncio.IncompleteReadError):
                return False

        held = [await connect("127.0.0.9") for _ in range(6)]
        assert [await answered(*one) for one in held] == [True, True, False, False, False, False]
        others = [await connect(f"127.0.0.{number}") for number in (10, 11, 12)]
        assert [await answered(*one) for one in others] == [True] * 3
        assert not await answered(*held[0]), "it made room, and had waited longest"
        assert await answered(*held[1])
        for _, writer in held + others:
            writer.close()


async def test_many_wrong_keys_of_an_address_are_told_to_wait(service: Service) -> None:
    async def ask(token: str | None) -> Any:
        return await service.ask("GET", f"{service.retrieval}/v1/recordings", token)

    refusals = [await ask("nobody" if number % 2 else None) for number in range(80)]
    assert refusals[0].status == 401
    answer = refusals[-1]
    await problem(answer, 429, "too-many")
    assert int(answer.headers["Retry-After"]) == 1
    assert (await ask("supervisor")).status in (200, 429), "a second may have gone by"
    told = DOCUMENTS["retrieval"]["paths"]["/v1/recordings"]["get"]["responses"]
    assert "429" in told
    # The other doors count for themselves, and what needs no key is open.
    assert (await service.operate("/metrics")).status == 200
    assert (await service.get("/openapi.json")).status == 200
