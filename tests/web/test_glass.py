"""Breaking the glass: asked with a reason, granted by whom the reader named, over in an hour."""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from archive.access import Caller, Level
from archive.errors import ForbiddenError, MalformedError, NotFoundError
from storage import accounts, credentials, glass, ledger, overview, persons, tree
from tests.roles import acting, connection
from tests.services import Service, stop_clock
from tests.web.test_listen import found, upload
from tests.web.test_upload import problem

WHY = "Threat in call 4711"


@pytest.fixture
async def reader(service: Service) -> str:
    """A supervisor who knows of nothing that is here."""
    await upload(service, "hidden", queue="south")
    return await service.key("supervisor", "reader", queues=["north"], person="rea")


async def post(service: Service, url: str, token: str, body: Any = None) -> aiohttp.ClientResponse:
    return await service.session.post(url, json=body, headers=service._login(token))


async def ask(service: Service, token: str, approver: str = "test-privacy", **more: Any) -> Any:
    body = {"reason": WHY, "approver": approver, "minutes": 30, **more}
    return await post(service, f"{service.retrieval}/v1/glass", token, body)


async def asked(service: Service, token: str, approver: str = "test-privacy", **more: Any) -> str:
    answer = await ask(service, token, approver, **more)
    assert answer.status == 201, await answer.text()
    return str((await answer.json())["id"])


async def grant(service: Service, identifier: str, token: str = "privacy") -> int:
    door = service.operations if token in ("admin", "auditor") else service.retrieval
    return (await post(service, f"{door}/v1/glass/{identifier}/grant", token)).status


async def end(service: Service, identifier: str, token: str) -> int:
    door = service.operations if token == "admin" else service.retrieval
    return (await service.ask("DELETE", f"{door}/v1/glass/{identifier}", token)).status


async def broken(service: Service) -> int:
    async with connection(service.vault.pool) as lent:
        return (await overview.standing(lent, None, None)).glass


@pytest.mark.parametrize("approver", ["privacy", "admin"])
async def test_who_was_named_lets_a_reader_know_of_everything_for_a_while(
    service: Service, reader: str, approver: str
) -> None:
    one = await asked(service, reader, f"test-{approver}")
    assert await found(service, reader) == []
    assert await broken(service) == 0
    assert await grant(service, one, approver) == 200
    assert await found(service, reader) == ["hidden"]
    assert await broken(service) == 1
    assert await grant(service, one, approver) == 404, "it is granted once"
    await service.turn_clock(timedelta(minutes=29))
    assert await found(service, reader) == ["hidden"]
    await service.turn_clock(timedelta(minutes=30, seconds=5))
    assert await found(service, reader) == []
    assert await broken(service) == 1, "the alarm goes on for an hour"
    await service.turn_clock(timedelta(minutes=91))
    assert await broken(service) == 0


@pytest.mark.parametrize("who", ["reader", "privacy"])
async def test_either_ends_it(service: Service, reader: str, who: str) -> None:
    service.tokens["reader"] = reader
    one = await asked(service, reader)
    await grant(service, one)
    assert await end(service, one, "supervisor") == 404
    assert await end(service, one, "admin") == 404
    assert await found(service, reader) == ["hidden"]
    assert await end(service, one, who) == 204
    assert await found(service, reader) == []
    assert await end(service, one, who) == 404
    # What was asked for can be taken back before it is granted.
    other = await asked(service, reader)
    assert await end(service, other, who) == 204
    assert await grant(service, other) == 404


async def test_nobody_else_grants_it(service: Service, reader: str) -> None:
    second = await service.key("privacy", "second", person="second")
    one = await asked(service, reader)
    assert await grant(service, one, "admin") == 404
    assert await grant(service, one, second) == 404
    assert await grant(service, one, reader) == 403
    assert await grant(service, one, "auditor") == 403
    assert await found(service, reader) == []
    await service.turn_clock(timedelta(hours=24, seconds=5))
    assert await grant(service, one) == 404


async def test_an_approver_is_another_person_who_may(service: Service) -> None:
    mine = await service.key("privacy", "mine", queues=["north"], person="anna")
    await service.key("admin", "also-mine", person="anna")
    await service.key("privacy", "gone", person="gone")
    await service.key("admin", "nobodys")
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE access_key SET revoked_at = archive_now() WHERE name = 'gone'")
    taken = ("mine", "also-mine", "gone", "nobodys", "nobody", "test-supervisor", "test-auditor")
    for name in taken:
        await problem(await ask(service, mine, name), 400, "malformed")
    await problem(
        await ask(service, await service.key("supervisor", "of-nobody")), 400, "malformed"
    )
    await service.key("privacy", "other", person="bo")
    for name in ("test-admin", "other"):
        assert (await ask(service, mine, name)).status == 201
    assert (await ask(service, mine, "test-admin", minutes=30.0)).status == 201
    for wrong in ({"minutes": 61}, {"minutes": 0}, {"minutes": True}, {"minutes": "5"},
                  {"minutes": 1.5}, {"minutes": []}, {"reason": " "}, {"approver": 7}):  # fmt: skip
        await problem(
            await ask(service, mine, **{"approver": "test-admin", **wrong}), 400, "malformed"
        )


@pytest.mark.parametrize("name", ["\0", "test-admin\0", "\ud800"])
async def test_a_name_that_nothing_can_have_is_no_approvers(service: Service, name: str) -> None:
    await problem(await ask(service, "privacy", name), 400, "malformed")


async def test_an_account_and_a_key_of_one_person_are_not_two(service: Service) -> None:
    await upload(service, "hidden", queue="south")
    names = ("anna", "boss")
    async with connection(service.vault.pool) as lent:
        for name, level in zip(names, (Level.SUPERVISOR, Level.ADMIN), strict=True):
            await accounts.add(lent, service.vault.ring, name, level)
        reader, boss = [
            str(await lent.fetchval("SELECT id FROM account WHERE name = $1", name))
            for name in names
        ]
    await service.key("privacy", "annas", person="anna.k")
    vault, caller = acting(service.vault, "retrieval"), Caller(reader, Level.SUPERVISOR)

    async def asked(approver: str) -> Any:
        return await glass.ask(vault, caller, approver, timedelta(minutes=5), WHY)

    async def say(name: str, person: str) -> None:
        async with connection(service.vault.pool) as lent:
            await persons.of_account(lent, name, person)

    for person in (None, "anna.k"):  # as long as nobody said it, and then
        if person:
            await say("anna", person)
        for approver in ("annas", "boss", boss):
            with pytest.raises(MalformedError):
                await asked(approver)
    await say("boss", "bo")
    granter = acting(service.vault, "operations"), Caller(boss, Level.ADMIN)
    for approver in ("boss", boss):
        await glass.grant(*granter, await asked(approver))
    # What is said between the asking and the granting counts as well.
    late = await asked("boss")
    await say("boss", "anna.k")
    with pytest.raises(NotFoundError):
        await glass.grant(*granter, late)
    async with connection(service.vault.pool) as lent:
        await accounts.lock(lent, "boss")
    await say("boss", "bo")
    with pytest.raises(MalformedError):
        await asked("boss")


async def test_it_is_told_and_by_ids_alone(
    service: Service, reader: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    one = await asked(service, reader)
    await grant(service, one)
    await end(service, one, "privacy")
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT * FROM ledger WHERE act LIKE 'glass.%' ORDER BY position")
    key, approver = reader.split("_")[1], service.tokens["privacy"].split("_")[1]
    assert [(row["act"], row["actor"]) for row in rows] == [
        ("glass.asked", key),
        ("glass.broken", approver),
        ("glass.ended", approver),
    ]
    assert {row["facts"]["glass"] for row in rows} == {one}
    opened = ledger.unseal(service.vault.ring, rows[0]["ends_on"], rows[0]["details"])
    assert opened == {"reason": WHY}
    assert f"{approver} lets {key}" in caplog.text
    assert "4711" not in caplog.text + str([row["facts"] for row in rows])


async def test_it_makes_no_listener_of_who_is_none(service: Service) -> None:
    identifier = await upload(service, "c")
    for level in ("auditor", "admin", "uploader"):
        await problem(await ask(service, level), 403, "forbidden")
        async with connection(service.vault.pool) as lent:
            await lent.execute(
                "INSERT INTO glass SELECT gen_random_uuid(), id, 'x', '1 hour', archive_now(),"
                " archive_now(), archive_now() + interval '59 minutes' FROM access_key"
                " WHERE name = $1",
                f"test-{level}",
            )
        await problem(
            await service.get(f"/v1/recordings/{identifier}/audio", level), 403, "forbidden"
        )


async def test_it_ends_at_its_instant_and_not_before(service: Service, reader: str) -> None:
    at, instant = datetime.now(UTC), timedelta(microseconds=1)
    await stop_clock(service.vault, at)
    old, late, one = [await asked(service, reader) for _ in range(3)]
    await stop_clock(service.vault, at + glass.WAITS)
    assert await grant(service, old) == 404
    await stop_clock(service.vault, at + glass.WAITS - instant)
    assert await grant(service, late) == 200
    assert await end(service, late, "privacy") == 204
    assert await grant(service, late) == 404
    at += glass.WAITS - instant
    assert await grant(service, one) == 200
    await stop_clock(service.vault, at + timedelta(minutes=30) - instant)
    assert await found(service, reader) == ["hidden"]
    await stop_clock(service.vault, at + timedelta(minutes=30))
    assert await found(service, reader) == []
    assert await end(service, one, "privacy") == 404, "it is over by itself"
    await stop_clock(service.vault, at + timedelta(minutes=30) - instant)
    assert await end(service, one, "privacy") == 204


@pytest.mark.parametrize(("minutes", "status"), [(1, 201), (60, 201), (0, 400), (61, 400)])
async def test_it_lasts_an_hour_at_the_most(
    service: Service, reader: str, minutes: int, status: int
) -> None:
    assert (await ask(service, reader, minutes=minutes)).status == status
    async with connection(service.vault.pool) as lent:
        login = await credentials.authenticate(lent, service.vault.ring, credentials.read(reader))
    lasts = timedelta(minutes=minutes)
    if status == 201:
        await glass.ask(
            acting(service.vault, "retrieval"), login.caller, "test-privacy", lasts, WHY
        )
    else:
        with pytest.raises(MalformedError):
            await glass.ask(
                acting(service.vault, "retrieval"), login.caller, "test-privacy", lasts, WHY
            )


@pytest.mark.parametrize("level", Level)
async def test_the_verbs_themselves_know_who_may(service: Service, level: Level) -> None:
    """Whatever a route may say."""
    vault, caller, one = acting(service.vault, "retrieval"), Caller("k", level), uuid4()

    async def refused(may: set[str], verb: Callable[..., Awaitable[Any]], *words: Any) -> None:
        expected = (MalformedError, NotFoundError) if level in may else ForbiddenError
        with pytest.raises(expected):
            await verb(vault, caller, *words)

    await refused({"supervisor", "privacy"}, glass.ask, "nobody", timedelta(minutes=1), WHY)
    await refused({"privacy", "admin"}, glass.grant, one)
    await refused({"supervisor", "privacy", "admin"}, glass.end, one)
