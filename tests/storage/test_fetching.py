"""Fetching from real servers on loopback: what is allowed, what is tried again, and what is not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from archive.reach import Reach
from archive.recording import Call
from archive.webhook import Webhook
from jobs import fetching as fetching_jobs
from jobs.fetching import Fetching
from jobs.schedule import tidy
from storage import fetching, notices
from storage.s3 import StoreError
from storage.vault import Vault
from tests.jobs.test_expiry import a_year_ago
from tests.roles import acting, connection
from tests.services import MAX_BYTES, Faulty, Service
from tests.web.test_operations import figures
from tests.web.vendors import AUDIO, Vendor, configured, fetch, hurry, rows, started, status, vendor


@pytest.fixture
async def host() -> AsyncIterator[Vendor]:
    async with vendor() as found:
        yield found


@pytest.fixture
def hooks(host: Vendor) -> dict[str, Webhook]:
    return configured(host)


async def ask(
    vault: Vault, url: str, number: int = 1, *, hook: str = "own", delete: str = "", **more: str
) -> None:
    """A notice, as the door keeps it."""
    fields: dict[str, Any] = {
        "call_id": f"c-{number}",
        "call_type": "other",
        "started_at": started().isoformat(),
        **more,
    }
    call = Call.from_fields(fields, vault.policy, started())
    details = {"fields": fields, "url": url, "delete_url": delete, "sha512": ""}
    assert await notices.ask(acting(vault, "ingest"), hook, str(number), call.expiry, details)


async def only(vault: Vault) -> dict[str, Any]:
    [row] = await rows(vault)
    return row


async def failing(service: Service) -> float:
    return (await figures(service))["archive_notices_failing", frozenset()]


async def calls(vault: Vault) -> int:
    async with connection(vault.pool) as lent:
        return int(await lent.fetchval("SELECT count(*) FROM recording WHERE state = 'stored'"))


async def test_what_is_not_there_yet_is_asked_for_again_later(
    service: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    vault = service.vault
    host.answers = [status(404), status(503), status(500), lambda _: AUDIO]
    await ask(vault, f"{host.url}/x.wav")
    said = ["its host answers 404", "its host answers 503", "its host answers 500"]
    for tries, why in enumerate(said, 1):
        assert await fetch(vault, hooks) == 1
        row = await only(vault)
        assert (row["state"], row["failure"], row["tries"]) == ("waiting", why, tries)
        assert await fetch(vault, hooks) == 0
        await hurry(vault)
    assert await failing(service) == 0
    await service.turn_clock(timedelta(hours=2))
    assert await failing(service) == 1
    assert await fetch(vault, hooks) == 1
    row = await only(vault)
    assert (row["state"], row["details"], row["failure"]) == ("done", None, None)
    assert await calls(vault) == 1
    assert await failing(service) == 0


async def test_the_time_between_tries_doubles_up_to_its_limit(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    host.answers = [status(500)]
    await ask(vault, f"{host.url}/x.wav")
    for tries, seconds in ((0, 5), (1, 10), (9, 2560), (40, 10800)):
        async with connection(vault.pool) as lent:
            await lent.execute("UPDATE notice SET failures = $1, due_at = archive_now()", tries)
        await fetch(vault, hooks)
        async with connection(vault.pool) as lent:
            later = await lent.fetchval("SELECT due_at - archive_now() FROM notice")
        assert timedelta(0) < timedelta(seconds=seconds) - later < timedelta(minutes=1, seconds=5)


async def test_an_archive_that_is_not_ready_asks_no_host_and_blames_none(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    """However long its own store is away: it is tried each minute, and the host's first failure
    afterwards is its first.
    """

    async def away() -> None:
        raise StoreError("The object store cannot be reached.")

    await ask(vault, f"{host.url}/x.wav")
    without: Any = Faulty(vault.objects, clock=away)
    for number, seconds in enumerate((5, 10, 20, 40, *[60] * 9)):
        await fetch(replace(vault, objects=without), hooks)
        row = await only(vault)
        assert (row["state"], row["tries"], row["failures"]) == ("waiting", number + 1, 0)
        assert row["failure"] == StoreError.title
        assert await due_in(vault) <= timedelta(seconds=seconds)
        await hurry(vault)
    assert host.asked == []
    host.answers = [status(503), lambda _: AUDIO]
    await fetch(vault, hooks)
    assert await due_in(vault) <= timedelta(seconds=5)
    assert (await only(vault))["failures"] == 1
    await hurry(vault)
    await fetch(vault, hooks)
    assert (await only(vault))["state"] == "done"


async def test_a_clock_that_was_put_back_refuses_no_notice(
    service: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    vault = service.vault
    await ask(vault, f"{host.url}/x.wav")
    await service.turn_clock(timedelta(hours=-2))
    await hurry(vault)
    assert await fetch(vault, hooks) == 1
    row = await only(vault)
    assert (row["state"], row["failures"], host.asked) == ("waiting", 0, [])
    assert await due_in(vault) <= timedelta(minutes=1)
    await service.turn_clock(timedelta())
    await hurry(vault)
    assert await fetch(vault, hooks) == 1
    assert (await only(vault))["state"] == "done"


async def due_in(vault: Vault) -> timedelta:
    async with connection(vault.pool) as lent:
        later: timedelta = await lent.fetchval("SELECT due_at - archive_now() FROM notice")
    return later


async def test_a_host_that_was_away_may_say_once_that_it_is_not_ready(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    """What says nothing of the audio does not count among the five times that it was none."""
    host.answers = [*[status(503)] * 9, lambda _: b"<html>just a moment", lambda _: AUDIO]
    await ask(vault, f"{host.url}/x.wav")
    for _ in range(11):
        await fetch(vault, hooks)
        await hurry(vault)
    row = await only(vault)
    assert (row["state"], row["failures"]) == ("done", 10)


async def test_a_redirect_is_followed_where_it_may_go_and_not_with_a_password(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    async with vendor() as other:
        own = hooks["own"]
        reach = replace(own.reach, hosts=(*own.reach.hosts, f"127.0.0.1:{other.port}"))
        host.answers = [status(302, Location="/y"), status(307, Location=f"{other.url}/z")]
        await ask(vault, f"{host.url}/x")
        await fetch(vault, {"own": replace(own, reach=reach)})
        assert await calls(vault) == 1
        login = "Bearer for-the-recorder"
        assert host.asked == [("GET", "/x", login), ("GET", "/y", login)]
        assert other.asked == [("GET", "/z", "")]


async def test_a_redirect_off_the_list_is_not_followed(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    async with vendor() as inside:
        host.answers = [status(302, Location=f"{inside.url}/secret")]
        await ask(vault, f"{host.url}/x")
        await fetch(vault, hooks)
        assert (await only(vault))["failure"] == "its address is not one that is allowed"
        host.answers = [status(302, Location=f"{host.url}/x")]
        await hurry(vault)
        await fetch(vault, hooks)
        assert (await only(vault))["failure"] == "its host sends from one address to the next"
        assert inside.asked == []
        assert len(host.asked) == 1 + 1 + fetching.REDIRECTS


async def test_an_address_of_the_inside_is_not_connected_to(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    """The host is on the list, and leads to where nothing may be fetched."""
    for number, name in enumerate(("127.0.0.1", "localhost")):
        reach = Reach((f"{name}:{host.port}",), (), http=True)
        await ask(vault, f"http://{name}:{host.port}/x", number)
        await fetch(vault, {"own": replace(hooks["own"], reach=reach)})
    told = {row["failure"] for row in await rows(vault)}
    assert told == {"its host is at an address that is not allowed"}
    assert host.asked == []


async def test_a_name_that_leads_elsewhere_a_moment_later_leads_nowhere(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is asked for as often as anybody likes: what counts is what is connected to."""
    answers = ["203.0.113.9", "127.0.0.1"]
    asked: list[str] = []

    async def resolve(
        self: object, name: str, port: int = 0, family: int = socket.AF_INET
    ) -> list[dict[str, Any]]:
        asked.append(answers[min(len(asked), 1)])
        return [
            {
                "hostname": name,
                "host": asked[-1],
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]

    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", resolve)
    reach = Reach((f"media.example.fi:{host.port}",), (), http=True)
    await ask(vault, f"http://media.example.fi:{host.port}/x")
    for _ in range(2):
        await fetch(vault, {"own": replace(hooks["own"], reach=reach)})
        row = await only(vault)
        assert row["failure"] == "its host is at an address that is not allowed"
        await hurry(vault)
    assert asked == ["203.0.113.9", "127.0.0.1"]
    assert host.asked == []


async def streamed(request: web.Request, pieces: int, *, cut: bool = False) -> web.StreamResponse:
    answer = web.StreamResponse()
    answer.content_length = len(AUDIO) if cut else None
    if not cut:
        answer.enable_chunked_encoding()
    await answer.prepare(request)
    with suppress(ConnectionError):
        for _ in range(pieces):
            await answer.write(AUDIO[: 2**15])
        if cut and request.transport:
            request.transport.abort()
    return answer


@pytest.fixture
async def odd() -> AsyncIterator[Vendor]:
    """A host that sends too much, breaks off, packs, or does not say where it ends."""

    async def much(request: web.Request) -> web.StreamResponse:
        return await streamed(request, MAX_BYTES // 2**15 + 5)

    async def cut(request: web.Request) -> web.StreamResponse:
        return await streamed(request, 1, cut=True)

    async def packed(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})

    async def text(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>come back later</html>", content_type="text/html")

    app = web.Application()
    for way in (much, cut, packed, text):
        app.router.add_get(f"/{way.__name__}", way)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Vendor(runner.addresses[0][1])
    await runner.cleanup()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.0, whose body ends where the connection does: nobody can tell whether it was whole."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: audio/x-wav\r\n\r\n" + AUDIO[:20000])
    writer.close()


async def test_a_body_that_is_not_what_it_should_be(vault: Vault, odd: Vendor) -> None:
    hooks = configured(odd)
    expected = {
        "much": ("refused", "The recording is too large"),
        "cut": ("waiting", "its host broke off"),
        "packed": ("waiting", "its host sends it packed"),
        "text": ("waiting", "This is not audio that the archive takes"),
    }
    for number, way in enumerate(expected):
        await ask(vault, f"{odd.url}/{way}", number)
        await fetch(vault, hooks)
    found = [(row["state"], row["failure"]) for row in await rows(vault)]
    assert found == list(expected.values())
    assert [row["details"] is None for row in await rows(vault)] == [True, False, False, False]
    assert await calls(vault) == 0
    # What stays no audio is none in the end.
    for _ in range(fetching.TRUSTED):
        await hurry(vault)
        await fetch(vault, hooks)
    assert [row["state"] for row in await rows(vault)][1:] == ["waiting", "waiting", "refused"]


async def test_a_body_without_an_end_is_not_taken(vault: Vault) -> None:
    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        at = Vendor(server.sockets[0].getsockname()[1])
        await ask(vault, f"{at.url}/x")
        await fetch(vault, configured(at))
    assert (await only(vault))["failure"] == "its host does not say where it ends"
    assert await calls(vault) == 0


async def test_it_is_deleted_there_only_once_it_is_here_and_tried_until_it_is(
    service: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    vault = service.vault
    host.answers = [lambda _: AUDIO, status(500), status(404)]
    await ask(vault, f"{host.url}/x.wav", delete=f"{host.url}/x")
    await fetch(vault, hooks)
    row = await only(vault)
    assert (row["state"], row["failure"]) == (
        "deleting",
        "its host answers the deletion with 500",
    )
    assert await calls(vault) == 1
    await hurry(vault)
    [job] = await notices.claim(acting(vault, "ingest"), ["own"], 1)
    assert job.details == {"delete_url": f"{host.url}/x"}, "of the call nothing is left here"
    await hurry(vault)
    await fetch(vault, hooks)
    row = await only(vault)
    assert (row["state"], row["details"]) == ("done", None)
    assert [method for method, _, _ in host.asked] == ["GET", "DELETE", "DELETE"]
    acts = await service.acts()
    assert ("source.deleted", str(row["recording"])) in acts
    stored = [act for act, _ in acts].index("stored")
    assert [act for act, _ in acts].index("source.deleted") > stored


async def test_nothing_is_deleted_there_that_could_not_be_taken_in(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    host.answers = [lambda _: b"no audio at all"]
    await ask(vault, f"{host.url}/x.wav", delete=f"{host.url}/x")
    for _ in range(fetching.TRUSTED + 1):
        await fetch(vault, hooks)
        await hurry(vault)
    assert (await only(vault))["state"] == "refused"
    assert {method for method, _, _ in host.asked} == {"GET"}


async def test_two_services_never_fetch_the_same(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    for number in range(12):
        await ask(vault, f"{host.url}/{number}", number)
    services = [Fetching(acting(vault, "ingest"), hooks) for _ in range(2)]
    for each in services:
        each.start()
    for _ in range(600):
        if all(row["state"] == "done" for row in await rows(vault)):
            break
        await asyncio.sleep(0.1)
    for each in services:
        await each.stop()
    assert sorted(path for _, path, _ in host.asked) == sorted(f"/{n}" for n in range(12))
    assert {row["tries"] for row in await rows(vault)} == {1}
    assert await calls(vault) == 12


async def test_many_that_wait_do_not_wait_for_the_next_second(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an absence: here that second never comes."""
    monkeypatch.setattr(fetching_jobs, "PULSE", 3600)
    for number in range(3 * fetching_jobs.AT_ONCE):
        await ask(vault, f"{host.url}/{number}", number)
    service = Fetching(acting(vault, "ingest"), hooks)
    service.start()
    while any(row["state"] != "done" for row in await rows(vault)):
        await asyncio.sleep(0.1)
    await service.stop()
    assert await calls(vault) == 3 * fetching_jobs.AT_ONCE


async def test_a_look_that_fails_is_not_the_last_one(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, failed = notices.claim, asyncio.Event()

    async def claim(*arguments: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a fault that nobody thought of")
        return await usual(*arguments)

    monkeypatch.setattr(notices, "claim", claim)
    await ask(vault, f"{host.url}/x")
    service = Fetching(acting(vault, "ingest"), hooks)
    service.start()
    async with asyncio.timeout(60):
        while (await only(vault))["state"] != "done":
            await asyncio.sleep(0.05)
    await service.stop()
    assert failed.is_set()
    assert await calls(vault) == 1


async def test_a_notice_that_was_changed_keeps_no_other_waiting(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    working = acting(vault, "ingest")
    for number in range(2):
        await ask(vault, f"{host.url}/{number}", number)
    async with connection(vault.pool) as lent:
        changed = await lent.fetchval(
            "UPDATE notice SET details = details || '\\x00' WHERE id ="
            " (SELECT id FROM notice ORDER BY asked_at LIMIT 1) RETURNING id"
        )
    jobs = await notices.claim(working, ["own"], 9)
    assert [job.id for job in jobs] == [
        row["id"] for row in await rows(vault) if row["id"] != changed
    ]
    await fetching.work(working, hooks["own"], jobs[0])
    assert await calls(vault) == 1


async def test_who_lost_a_notice_says_nothing_more_of_it(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    working = acting(vault, "ingest")
    await ask(vault, f"{host.url}/x", delete=f"{host.url}/x")
    [lost] = await notices.claim(working, ["own"], 9)
    assert await notices.claim(working, ["own"], 9) == []
    await hurry(vault)
    [job] = await notices.claim(working, ["own"], 9)
    await fetching.work(working, hooks["own"], lost)
    await notices.failed(working, lost, "too late", final=True, ours=False)
    # It is here, but whoever holds the notice will ask for it.
    assert ("DELETE", "/x", "Bearer for-the-recorder") not in host.asked
    row = await only(vault)
    assert (row["state"], row["failure"], row["recording"]) == ("waiting", None, None)
    await fetching.work(working, hooks["own"], job)
    assert (await only(vault))["state"] == "done"
    assert [method for method, _, _ in host.asked] == ["GET", "GET", "DELETE"]
    assert await calls(vault) == 1


async def test_a_stop_in_the_middle_of_a_body_loses_nothing(
    vault: Vault, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    half, go_on = asyncio.Event(), asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.content_length = len(AUDIO)
        await answer.prepare(request)
        await answer.write(AUDIO[:1000])
        half.set()
        await go_on.wait()
        return answer

    host.answers = [stall, lambda _: AUDIO]
    await ask(vault, f"{host.url}/x")
    working = Fetching(acting(vault, "ingest"), hooks)
    working.start()
    await half.wait()
    await working.stop()
    go_on.set()
    assert await calls(vault) == 0
    row = await only(vault)
    assert (row["state"], row["failure"], row["tries"]) == ("waiting", None, 1)
    await hurry(vault)
    await fetch(vault, hooks)
    assert await calls(vault) == 1


async def test_a_notice_ends_with_the_year_of_its_call(
    service: Service,
    host: Vendor,
    hooks: dict[str, Webhook],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vault = service.vault
    host.answers = [status(404)]
    ends = a_year_ago(seconds=40)
    await ask(vault, f"{host.url}/x", started_at=ends)
    await fetch(vault, hooks)
    await service.turn_all_clocks(timedelta(minutes=2), monkeypatch)
    assert await fetch(vault, hooks) == 0
    assert await failing(service) == 0
    await tidy(service.vault)
    assert await rows(vault) == []


async def test_it_goes_on_the_ledger_as_its_webhook_and_not_as_a_key(
    service: Service, host: Vendor, hooks: dict[str, Webhook]
) -> None:
    await ask(service.vault, f"{host.url}/x")
    await fetch(service.vault, hooks)
    await service.acts()
    async with connection(service.vault.pool) as lent:
        row = await lent.fetchrow("SELECT actor FROM ledger WHERE act = 'stored'")
        source = await lent.fetchval("SELECT source FROM recording")
    assert row is not None
    assert (row["actor"], source) == ("webhook-own", "recorder")
