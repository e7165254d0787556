"""Access keys at the doors: which tokens let in, from where, how often, and how much."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from archive.bounds import Bounds, until_midnight
from archive.token import Token
from storage import credentials
from tests.roles import acting, connection
from tests.services import Service, _door, ways_in
from tests.sounds import tone
from tests.web.test_faults import EXPECTING, Sender, head
from tests.web.test_upload import problem, query
from web import keys


def checksummed(text: str) -> str:
    """The token with the checksum that belongs to what stands before it."""
    return text[:-8] + credentials.read(Token(text[4:16], text[17:60]).text()).text()[-8:]


def changed(text: str, place: int) -> str:
    return text[:place] + ("a" if text[place] != "a" else "b") + text[place + 1 :]


WRONG: dict[str, Callable[[str], str]] = {
    "cut": lambda token: token[:-1],
    "without its checksum": lambda token: token[:-9],
    "another checksum": lambda token: changed(token, len(token) - 1),
    "another secret": lambda token: changed(token, 20),
    "another secret that is checksummed": lambda token: checksummed(changed(token, 20)),
    "another id": lambda token: changed(token, 5),
    "another id that is checksummed": lambda token: checksummed(changed(token, 5)),
    "another case": lambda token: token.swapcase(),
    "10 kB": lambda token: token + "a" * 10000,
    "10 kB more": lambda token: token[:20] + "a" * 10000 + token[20:],
    "not ASCII": lambda token: token[:-1] + "ä",
    "twice": lambda token: token + token,
    "something else": lambda _: "x",
}


async def test_every_wrong_token_gets_the_same_answer(service: Service) -> None:
    right = service.tokens["uploader"]
    answers = set()
    for wrong in WRONG.values():
        answer = await service.put("c", tone(), query(), token=wrong(right))
        assert answer.status == 401, await answer.text()
        answers.add((await answer.text(), answer.headers["WWW-Authenticate"]))
        login = base64.b64encode(f"pbx:{wrong(right)}".encode()).decode()
        answer = await service.put(
            "c", tone(), query(), token=None, headers={"Authorization": f"Basic {login}"}
        )
        assert answer.status == 401, await answer.text()
        answers.add((await answer.text(), answer.headers["WWW-Authenticate"]))
    for login in ("\xe4\xf6==", "x", "////", ""):
        answer = await service.put(
            "c", tone(), query(), token=None, headers={"Authorization": f"Basic {login}"}
        )
        assert answer.status == 401, login
    ((body, _),) = answers
    assert json.loads(body)["type"] == "urn:call-archive:problem:unauthenticated"
    assert await service.rows() == []
    assert (await service.put("c", tone(), query())).status == 201


@pytest.mark.parametrize("name", [name for name in WRONG if "is checksummed" not in name])
async def test_a_mistyped_token_costs_no_look_at_the_database(
    service: Service, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "authenticate", None)
    answer = await service.get("/v1/recordings", token=WRONG[name](service.tokens["supervisor"]))
    await problem(answer, 401, "unauthenticated")


async def test_a_key_is_refused_from_outside_its_networks(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    inside = await service.key("uploader", "in", bounds=Bounds.from_texts("127.0.0.0/8"))
    outside = await service.key("uploader", "out", bounds=Bounds.from_texts("10.0.0.0/8,::1"))
    assert (await service.put("c", tone(), query(), token=inside)).status == 201
    assert [line for line in caplog.records if line.levelno > logging.INFO] == []
    for pretence in ({}, {"X-Forwarded-For": "10.0.0.1"}, {"Forwarded": "for=10.0.0.1"}):
        answer = await service.put("d", tone(), query(), token=outside, headers=pretence)
        body = await problem(answer, 403, "forbidden")
        assert "this address" in body["detail"]
    assert len(await service.rows()) == 1
    assert f"key {credentials.read(outside).id} " in caplog.text
    assert "127.0.0.1" not in caplog.text
    async with connection(service.vault.pool) as lent:
        used = {row.name: row.last_used_at for row in await credentials.every(lent)}
    assert used["out"] is None


async def test_a_key_that_asks_too_often_has_to_wait(service: Service) -> None:
    eager = await service.key("supervisor", "eager", bounds=Bounds.from_texts(None, "2/h"))
    statuses = [(await service.get("/v1/recordings", token=eager)).status for _ in range(2)]
    assert statuses == [200, 200]
    answer = await service.get("/v1/recordings", token=eager)
    await problem(answer, 429, "too-many")
    assert 0 < int(answer.headers["Retry-After"]) <= 1800
    assert (await service.get("/v1/recordings")).status == 200, "others need not wait"


async def test_who_asks_before_sending_is_counted_once(service: Service) -> None:
    token = await service.key("uploader", "x", bounds=Bounds.from_texts(rate="2/h"))
    asking = {"Expect": "100-continue"}
    for call_id in "ab":
        answer = await service.put(call_id, tone(), query(), token=token, headers=asking)
        assert answer.status == 201


@pytest.mark.parametrize("what", ["networks", "rate", "quota"])
async def test_the_bounds_are_held_before_the_body_is_sent(service: Service, what: str) -> None:
    text = {"networks": "10.0.0.0/8", "rate": "1/h", "quota": "1MB"}[what]
    token = await service.key("uploader", "x", bounds=Bounds.from_texts(**{what: text}))
    if what == "rate":
        assert (await service.put("c", tone(), query(), token=token)).status == 201
    async with Sender(service) as sender:
        await sender.send(head(service, "Content-Length: 1000001", EXPECTING, token=token))
        said = await sender.head()
        assert int(said.split()[1]) == (403 if what == "networks" else 429)
        assert b"application/problem+json" in said
        assert (b"\r\nRetry-After: " in said) is (what != "networks")


@pytest.fixture
async def second(service: Service) -> AsyncIterator[Service]:
    """An ingest door of another service over the same database."""
    async with AsyncExitStack() as stack:
        yield replace(
            service, ingest=await _door(stack, acting(service.vault, "ingest"), "", ways_in())
        )


async def handed_over(service: Service) -> int:
    async with connection(service.vault.pool) as lent:
        found: int = await lent.fetchval("SELECT coalesce(sum(bytes), 0)::bigint FROM handed_over")
    return found


async def test_two_services_share_the_quota_of_a_key(service: Service, second: Service) -> None:
    audio, params = tone(), query()
    bounds = Bounds(quota=len(audio) * 5 // 2)
    token = await service.key("uploader", "pbx3", bounds=bounds)
    assert (await service.put("a", audio, params, token=token)).status == 201
    # What is not taken in is not counted.
    assert (await second.put("a", audio, params, token=token)).status == 200
    assert (await second.put("b", b"GIF89a, no sound", params, token=token)).status == 415
    assert (await second.put("b", audio, params, token=token)).status == 201
    for each in (service, second):
        answer = await each.put("c", audio, params, token=token)
        await problem(answer, 429, "too-many")
        zone = service.vault.policy.zone
        left = until_midnight(datetime.now(UTC), zone).total_seconds()
        wait = int(answer.headers["Retry-After"])
        assert abs((wait - left + 43200) % 86400 - 43200) < 600  # it may just have been midnight
    assert (await service.put("c", audio, params)).status == 201, "others go on"
    assert await handed_over(service) == 2 * len(audio)
    await service.turn_clock(timedelta(days=1))
    assert (await second.put("c2", audio, params, token=token)).status == 201


async def test_a_body_without_a_length_is_held_against_the_quota(service: Service) -> None:
    audio = tone(2)
    token = await service.key("uploader", "pbx3", bounds=Bounds(quota=len(audio) - 1))

    async def pieces() -> AsyncIterator[bytes]:
        yield audio

    answer = await service.put("a", pieces(), query(), token=token)
    await problem(answer, 429, "too-many")
    assert await service.rows() == []
    assert await handed_over(service) == 0


async def test_what_was_counted_long_ago_is_forgotten(service: Service) -> None:
    audio = tone()
    token = await service.key("uploader", "pbx3", bounds=Bounds(quota=len(audio) * 9))
    assert (await service.put("a", audio, query(), token=token)).status == 201
    assert await handed_over(service) == len(audio)
    await service.turn_clock(timedelta(days=9))
    assert (await service.put("a", audio, query(), token=token)).status != 201
    while await handed_over(service):
        await asyncio.sleep(0.01)


async def used_at(service: Service, level: str) -> datetime | None:
    async with connection(service.vault.pool) as lent:
        rows = {row.name: row for row in await credentials.every(lent)}
    return rows[f"test-{level}"].last_used_at


async def test_the_use_of_a_key_is_written_beside_the_request(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connection(service.vault.pool) as lent, lent.transaction():
        await lent.execute("SELECT FROM access_key FOR UPDATE")
        # Nobody can write to the row, and no request waits for that.
        for _ in range(3):
            assert (await service.get("/v1/recordings")).status == 200
        assert await used_at(service, "supervisor") is None
    while (first := await used_at(service, "supervisor")) is None:
        await asyncio.sleep(0.01)
    # Within the minute nothing is even begun.
    monkeypatch.setattr(keys, "_note", None)
    assert (await service.get("/v1/recordings")).status == 200
    assert await used_at(service, "supervisor") == first
    assert await used_at(service, "privacy") is None


async def test_a_key_that_is_rotated_lets_in_twice(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        token, _, _ = await credentials.rotate(
            lent, service.vault.ring, "test-supervisor", timedelta(hours=24)
        )
    assert (await service.get("/v1/recordings", token=token)).status == 200
    assert (await service.get("/v1/recordings")).status == 200
    await service.turn_clock(timedelta(hours=25))
    assert (await service.get("/v1/recordings", token=token)).status == 200
    await problem(await service.get("/v1/recordings"), 401, "unauthenticated")
    await service.revoke("supervisor")
    await problem(await service.get("/v1/recordings", token=token), 401, "unauthenticated")
