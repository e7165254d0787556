"""Readers who are limited to queues and teams: what they find, open and hear, and what not."""

import unicodedata
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from archive.access import EVERYTHING, Level
from archive.errors import NotFoundError
from storage import credentials, ledger, reading, recordings, scopes, teams, tree
from storage.credentials import KeyRefusedError, Limits
from storage.reading import Act
from storage.scopes import Members
from storage.sealing import DamagedError, Seal
from storage.teams import TeamRefusedError
from tests.jobs.test_expiry import a_year_ago
from tests.roles import acting, connection
from tests.services import Service
from tests.web.test_listen import ago, found, upload
from tests.web.test_upload import problem

VIEW = Act("viewed", {})

CALLS = {
    "north by agent": {"agent": "Åke Öhman", "queue": "south"},
    "north by queue": {"agent": "Somebody", "queue": "North"},
    "north by both": {"agent": "åke öhman", "queue": "north"},
    "billing": {"queue": "billing", "call_type": "contract"},
    "elsewhere": {"agent": "Somebody", "queue": "south"},
    "nobody's": {},
}
"""Six calls, a day apart, newest first."""

SEEN: dict[str, tuple[Limits, list[str]]] = {
    "everything": (Limits(), list(CALLS)),
    "a queue": (Limits(queues=["BILLING"]), ["billing"]),
    "two queues": (
        Limits(queues=["north", "billing"]),
        ["north by queue", "north by both", "billing"],
    ),
    "a team": (Limits(teams=["north"]), ["north by agent", "north by queue", "north by both"]),
    "two teams": (
        Limits(teams=["billers", "north"]),
        ["north by agent", "north by queue", "north by both", "billing"],
    ),
    "a team and a queue": (
        Limits(queues=["billing"], teams=["north"]),
        ["north by agent", "north by queue", "north by both", "billing"],
    ),
    "a team and a call type": (Limits(call_types=["contract"], teams=["north"]), []),
    "a queue and its call type": (Limits(["contract"], ["billing"]), ["billing"]),
    "a queue that has no calls": (Limits(queues=["west"]), []),
}  # fmt: skip


async def kept(service: Service) -> dict[str, str]:
    """Keep the calls and the team; the recordings' ids by call."""
    await service.team("north", agents=["Åke Öhman"], queues=["north"])
    await service.team("billers", queues=["billing"])
    return {
        name: await upload(service, name, started_at=ago(days=day, hours=1), **fields)
        for day, (name, fields) in enumerate(CALLS.items())
    }


async def limited(service: Service, limits: Limits, name: str = "limited") -> str:
    async with connection(service.vault.pool) as lent:
        return await credentials.add(
            lent, service.vault.ring, name, Level.SUPERVISOR, limits=limits
        )


async def test_a_reader_finds_and_opens_what_is_in_their_scope_and_nothing_else(
    service: Service,
) -> None:
    ids = await kept(service)
    never = str(uuid4())
    for name, (limits, seen) in SEEN.items():
        token = await limited(service, limits, name.replace(" ", "-").replace("'", ""))
        assert await found(service, token) == seen, name
        assert await found(service, token, agent="somebody") == [
            each for each in seen if CALLS[each].get("agent") == "Somebody"
        ], name
        assert await found(service, token, queue="North", agent="Åke ÖHMAN") == [
            each for each in seen if each == "north by both"
        ], name
        unknown = [await (await service.get(f"/v1/recordings/{never}", token)).text()]
        for call, identifier in ids.items():
            for path in ("", "/audio", "/waveform", "/audio?format=wav"):
                answer = await service.get(f"/v1/recordings/{identifier}{path}", token)
                assert answer.status == (200 if call in seen else 404), (name, call, path)
                if answer.status == 404:
                    unknown.append(await answer.text())
            path = f"{service.retrieval}/v1/recordings/{identifier}/audio"
            assert (await service.ask("HEAD", path, token)).status == (200 if call in seen else 404)
        assert len(set(unknown)) == 1, name


async def test_pages_of_a_scope_have_no_gap_and_no_double(service: Service) -> None:
    await service.team("north", agents=["anna"], queues=["north"])
    for day in range(7):
        await upload(service, f"c{day}", agent="anna", queue="north", started_at=ago(days=day * 9))
        await upload(service, f"x{day}", agent="bo", started_at=ago(days=day * 9, hours=1))
    token = await limited(service, Limits(teams=["north"]))
    for filters in ("", "&source=pbx", "&agent=anna", "&queue=north"):
        seen: list[str] = []
        url: str | None = f"/v1/recordings?limit=2{filters}"
        while url:
            body = await (await service.get(url, token)).json()
            seen += [item["call_id"] for item in body["items"]]
            url = body["next"]
        assert seen == [f"c{day}" for day in range(7)], filters


async def test_a_change_of_a_team_counts_at_the_next_request(service: Service) -> None:
    ids = await kept(service)
    token = await limited(service, Limits(teams=["north"]))
    one, other = ids["north by agent"], ids["billing"]
    await service.team("north", queues=["billing"])
    assert (await service.get(f"/v1/recordings/{one}", token)).status == 404
    assert (await service.get(f"/v1/recordings/{other}", token)).status == 200
    async with connection(service.vault.pool) as lent:
        await teams.remove(lent, "north")
    assert (await service.get(f"/v1/recordings/{other}", token)).status == 404
    assert await found(service, token) == []


async def test_what_a_scope_hides_costs_the_work_of_what_never_was(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await kept(service)
    vault = acting(service.vault, "retrieval")
    token = await limited(service, Limits(teams=["north"]))
    async with connection(vault.pool) as lent:
        login = await credentials.authenticate(lent, vault.ring, credentials.read(token))
        # One whose day is closed, its key destroyed, is no quicker either.
        await lent.execute(
            "UPDATE recording SET expires_on = '2020-01-01' WHERE id = $1", ids["elsewhere"]
        )
    done: list[str] = []

    def note(owner: Any, name: str, what: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def noted(*arguments: Any, **named: Any) -> Any:
            done.append(what(*arguments))
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, noted)

    note(Seal, "unwrap", lambda *_: "opened")
    note(reading, "scope_terms", lambda _, among: f"{len(among)} terms")
    for name in ("fetch", "fetchrow", "fetchval", "execute"):
        note(asyncpg.Connection, name, lambda _, text, *__: text)
    works = []
    for identifier in (
        uuid4(),
        *(UUID(ids[call]) for call in ("billing", "elsewhere", "nobody's")),
    ):
        done.clear()
        with pytest.raises(NotFoundError):
            await reading.get(vault, login.caller, identifier, login.now, VIEW)
        works.append(list(done))
    assert works[0].count("2 terms") == 1
    assert "opened" not in works[0]
    assert works == [works[0]] * 4
    done.clear()
    one = UUID(ids["north by agent"])
    await reading.get(vault, login.caller, one, login.now, VIEW)
    assert done == [*works[0], "opened"]
    monkeypatch.undo()
    assert [act for act in await service.acts() if act[0] == "viewed"] == [("viewed", str(one))]


async def test_a_row_with_a_foreign_term_is_not_opened(service: Service) -> None:
    ids = await kept(service)
    vault = service.vault
    token = await limited(service, Limits(queues=["billing"]))
    async with connection(vault.pool) as lent:
        login = await credentials.authenticate(lent, vault.ring, credentials.read(token))
        await lent.execute(
            "INSERT INTO term SELECT e.expires_on, b.hash, e.started_at, e.id FROM recording e,"
            " recording b0 JOIN term b ON b.recording = b0.id"
            " WHERE e.id = $1 AND b0.id = $2 ON CONFLICT DO NOTHING",
            ids["elsewhere"],
            ids["billing"],
        )
        row = await lent.fetchrow("SELECT * FROM recording WHERE id = $1", ids["elsewhere"])
    with pytest.raises(DamagedError, match="terms"):
        recordings.from_row(vault.ring, row, login.caller.scope)


async def test_once_erased_nobody_can_tell_whose_queue_it_was(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await upload(service, "c", queue="billing", started_at=a_year_ago(seconds=60))
    by_queue = await limited(service, Limits(queues=["billing"]), "queue")
    by_type = await limited(service, Limits(["fault_report"]), "type")
    await service.turn_all_clocks(timedelta(seconds=61), monkeypatch)
    for token in (by_queue, by_type):
        await problem(await service.get(f"/v1/recordings/{identifier}", token), 410, "gone")
    assert (await service.erase()).erased == 1
    await problem(await service.get(f"/v1/recordings/{identifier}", by_queue), 404, "not-found")
    await problem(await service.get(f"/v1/recordings/{identifier}", by_type), 410, "gone")
    certificate = f"/v1/certificates/{identifier}"
    assert (await service.get(certificate, by_queue)).status == 404
    assert (await service.get(certificate, by_type)).status == 200


async def test_the_database_alone_tells_nobody_of_a_team(service: Service) -> None:
    await service.team("north", agents=["Åke Öhman"], queues=["harbour"])
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        dump = str([*await lent.fetch("TABLE team"), *await lent.fetch("TABLE ledger")])
        entry = await lent.fetchrow("SELECT * FROM ledger WHERE act = 'team.changed'")
    for name in ("Åke", "Öhman", "harbour"):
        assert name not in dump
        assert name.encode().hex() not in dump
    assert entry is not None
    assert entry["facts"] == {"team": "north", "agents": 1, "queues": 1}
    opened = ledger.unseal(service.vault.ring, entry["ends_on"], entry["details"])
    assert opened == {"agents": ["Åke Öhman"], "queues": ["harbour"]}


async def test_the_members_of_one_team_are_no_use_in_the_row_of_another(service: Service) -> None:
    await service.team("north", queues=["north"])
    await service.team("all", queues=["north", "south"])
    token = await limited(service, Limits(teams=["north"]))
    for statement, why in (
        ("members = (SELECT members FROM team WHERE name = 'all')", "another team"),
        ("members = overlay(members PLACING '\\x00'::bytea FROM 20)", "not what was sealed"),
    ):
        async with connection(service.vault.pool) as lent:
            await lent.execute(f"UPDATE team SET {statement} WHERE name = 'north'")
            with pytest.raises(DamagedError, match=why):
                await credentials.authenticate(lent, service.vault.ring, credentials.read(token))
        assert (await service.get("/v1/recordings", token)).status == 500


@pytest.mark.parametrize(
    ("level", "limits", "why"),
    [
        (Level.SUPERVISOR, Limits(teams=["nobody"]), "no team"),
        (Level.SUPERVISOR, Limits(teams=["north", "nobody"]), "no team"),
        (Level.SUPERVISOR, Limits([]), "call types are one or more of customer_service,"),
        (Level.SUPERVISOR, Limits(["other", "others"]), "call types are one or more of"),
        (Level.SUPERVISOR, Limits(queues=[]), "one or more"),
        (Level.SUPERVISOR, Limits(teams=[]), "one or more"),
        (Level.SUPERVISOR, Limits(queues=["a", " "]), "one or more"),
        (Level.AUDITOR, Limits(queues=["a"]), "only who reads"),
        (Level.ADMIN, Limits(teams=["north"]), "only who reads"),
        (Level.UPLOADER, Limits(call_types=["other"]), "only who reads"),
    ],
)
async def test_a_limit_that_cannot_be_is_refused(
    service: Service, level: Level, limits: Limits, why: str
) -> None:
    await service.team("north", queues=["north"])
    async with connection(service.vault.pool) as lent:
        with pytest.raises(KeyRefusedError, match=why):
            await credentials.add(lent, service.vault.ring, "x", level, limits=limits)


@pytest.mark.parametrize(
    "members",
    [
        Members("north"),
        Members("no name", ("a",)),
        Members("north", (" ",)),
        Members("north", (), ("x" * 257,)),
        Members("north", ("a\nb",)),
        Members("north", tuple(map(str, range(1001)))),
    ],
)
async def test_a_team_that_cannot_be_is_refused(service: Service, members: Members) -> None:
    async with connection(service.vault.pool) as lent:
        with pytest.raises(TeamRefusedError):
            await teams.put(lent, service.vault.ring, service.vault.policy, members)
        assert await teams.every(lent, service.vault.ring) == []
        with pytest.raises(TeamRefusedError, match="no team"):
            await teams.remove(lent, "north")


async def test_what_a_scope_is_made_of_is_read_from_the_row(service: Service) -> None:
    ring = service.vault.ring
    sealed = scopes.seal(ring, Members("north", ("Anna",), ("North",)))
    row: Any = {"call_types": ["other"], "queues": ["A"], "teams": ["north"], "members": [sealed]}
    row["broken"] = False
    scope = scopes.read(ring, row)
    assert scope.call_types == {"other"}
    assert scope.among == {("queue", "a"), ("agent", "anna"), ("queue", "north")}
    empty: Any = {"call_types": None, "queues": None, "teams": ["gone"], "members": None}
    empty["broken"] = False
    assert scopes.read(ring, empty).among == frozenset()
    free: Any = dict.fromkeys(row)
    assert scopes.read(ring, free) == EVERYTHING


@pytest.mark.parametrize(("stored", "known"), [("NFD", "NFC"), ("NFC", "NFD")])
async def test_a_name_is_found_and_in_its_team_however_its_marks_are_written(
    service: Service, stored: str, known: str
) -> None:
    sent, asked = (unicodedata.normalize(form, "Äsa Mäkelä") for form in (stored, known))
    await service.team("north", agents=[asked])
    there = await upload(service, "a", agent=sent, customer=sent)
    assert await found(service, agent=asked) == ["a"]
    assert await found(service, "privacy", customer=asked.upper()) == ["a"]
    token = await limited(service, Limits(teams=["north"]))
    assert await found(service, token) == ["a"]
    answer = await service.get(f"/v1/recordings/{there}", token)
    # What is shown is what was sent.
    assert (answer.status, (await answer.json())["agent"]) == (200, sent)
