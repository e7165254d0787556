"""Every cell of the table of access, asked of the real doors and compared with the model."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from archive.access import Level
from archive.bounds import Bounds
from archive.listening import Rules
from archive.recording import CallType
from archive.token import Token
from storage import credentials, recordings, removal, teams
from storage.credentials import Limits
from storage.vault import Vault
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection
from tests.services import FREELY, Service, open_service, ways_in
from tests.sounds import tone
from tests.web import access_table as table
from tests.web.access_table import KEYS, LEVELS, LINES, SCOPES, STATES, Line, Reach
from tests.web.test_listen import ago, upload
from tests.web.test_openapi import plain
from tests.web.test_upload import query
from web import operations, retrieval

EVERYTHING = SCOPES[0]
AT_ONCE = 6


def test_every_route_of_every_door_has_its_line_with_its_levels() -> None:
    """A route that is new, or gone, or given to another level, is to be judged here first."""
    doors = {
        "ingest": ways_in(),
        "retrieval": retrieval.routes(),
        "operations": operations.routes(),
    }
    found = {
        (door, route.method, plain(route.path), getattr(route, "levels", frozenset()))
        for door, routes in doors.items()
        for route in routes
    }
    assert found == {(line.door, line.method, line.path, line.levels) for line in LINES}
    assert len(found) == len(LINES)


def test_the_words_of_the_table_are_those_of_the_code() -> None:
    assert tuple(Level) == table.LEVELS
    assert tuple(CallType) == table.CALL_TYPES
    assert {line.kind for line in LINES} <= table.ANSWERS.keys()


def test_the_page_is_what_the_table_says() -> None:
    """Made anew by `python -m tests.web.access_table`."""
    assert table.PAGE.read_text("utf-8") == table.page()


@dataclass
class World:
    """An archive with a recording of each call type in each state, and a key for each scope."""

    service: Service
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    calls: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    asked: int = 0

    async def ask(
        self, line: Line, token: str | None, call_type: str, state: str
    ) -> tuple[int, str]:
        """The status of one cell, and its type of problem."""
        one = self.ids.get((call_type, state)) or str(uuid4())
        call = f"{call_type} {state}"
        path = line.path.replace("{name}", "0/009").replace("{day}", "2020-01-01")
        path = path.replace("{id}", one).replace("{call_id}", call)
        path = path.replace("{path}", "other/call.wav").replace("{session}", "0" * 16)
        sent: dict[str, Any] = {}
        if line.kind == "upload":
            sent = {"data": tone(), "params": self.calls.get((call_type, state), query())}
        if line.kind == "reason":
            sent = {"json": {"reason": "complaint"}}
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        url = getattr(self.service, line.door) + path
        request = self.service.session.request(
            line.method, url, headers=headers, allow_redirects=False, **sent
        )
        async with request as answer:
            told = await answer.read()
            problem = answer.content_type == "application/problem+json" and bool(told)
            kind = (await answer.json())["type"].rpartition(":")[2] if problem else ""
            self.asked += 1
            return answer.status, kind

    async def hold(
        self,
        line: Line,
        level: str,
        key: str,
        scope: Reach,
        cell: tuple[str, str],
        token: str | None,
    ) -> None:
        """Compare one cell with the model."""
        found = await self.ask(line, token, *cell)
        model = table.expected(line, level, key, scope, *cell)
        if found[0] != model[0] or (model[1] and found[1] and found[1] != model[1]):
            where = f"{line.door} {line.method} {line.path}, {level}, {key}, {scope.name}, {cell}"
            self.wrong.append(f"{where}: {found}, and not {model}")


@pytest.fixture
async def world(vault: Vault) -> AsyncIterator[World]:
    rules = Rules(reason_for=frozenset({table.ASKS_REASON[1]}), recordings_per_hour=500)
    async with open_service(replace(vault, listening=rules), FREELY) as service:
        yield await _made(World(service))


async def _made(world: World) -> World:
    service = world.service
    later = {"erased": 1, "erasing": 2, "due": 3}
    for state in ("stored", *later):
        for kind in table.CALL_TYPES:
            hours = later.get(state)
            started = a_year_ago(hours=hours) if hours else ago(days=1)
            call = query(started_at=started, call_type=kind, agent=table.AGENT, queue=table.QUEUE)
            world.calls[kind, state] = call
            world.ids[kind, state] = await upload(service, f"{kind} {state}", **call)
    for kind in table.CALL_TYPES:
        for state in ("receiving", "abandoned"):
            one = UUID(world.ids[kind, "stored"])
            world.ids[kind, state] = await _unfinished(service, one, kind, state)
            world.calls[kind, state] = world.calls[kind, "stored"]
    await service.turn_clock(timedelta(hours=1, minutes=30))
    await removal.erase(service.vault, await removal.claim(service.vault))
    await service.turn_clock(timedelta(hours=2, minutes=30))
    await removal.claim(service.vault)
    await service.turn_clock(timedelta(hours=3, minutes=30))
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT id, state FROM recording")
    states = {str(row["id"]): row["state"] for row in rows}
    for (_, state), identifier in world.ids.items():
        assert states[identifier] == ("stored" if state == "due" else state)
    await _give_keys(world)
    return world


async def _unfinished(service: Service, like: UUID, kind: str, state: str) -> str:
    """A row as an upload leaves it on its way, or when it was given up."""
    identifier = uuid4()
    call = recordings.call_hash(service.vault.ring, "pbx", f"{kind} {state}")
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "INSERT INTO recording (id, source, call_type, expires_on, state, lease_until, attempt,"
            " call_hash, digest, started_at, expires_at, rule, received_at, duration, bytes,"
            " channels, sample_rate, codec, container, flaws, header, details)"
            " SELECT $1, source, call_type, expires_on, 'receiving',"
            " archive_now() + interval '1 day', attempt, $3, digest, started_at, expires_at, rule,"
            " received_at, duration, bytes, channels, sample_rate, codec, container, flaws, header,"
            " details"
            " FROM recording WHERE id = $2",
            identifier,
            like,
            call,
        )
        # Its terms come with its commit; were they there already, it would be none the more seen.
        await lent.execute(
            "INSERT INTO term SELECT expires_on, hash, started_at, $1 FROM term"
            " WHERE recording = $2",
            identifier,
            like,
        )
        if state == "abandoned":
            await lent.execute(
                "UPDATE recording SET state = 'abandoned', call_hash = NULL, digest = NULL,"
                " header = NULL, details = NULL WHERE id = $1",
                identifier,
            )
    return str(identifier)


async def _give_keys(world: World) -> None:
    service = world.service
    for team, (agents, queues) in table.TEAMS.items():
        await service.team(team, agents, queues)
    async with connection(service.vault.pool) as lent:
        for number, scope in enumerate(SCOPES):
            for level in sorted(table.READ):
                limits = Limits(scope.call_types, scope.queues, scope.teams)
                world.tokens[level, scope.name] = await credentials.add(
                    lent, service.vault.ring, f"{level}-{number}", Level(level), limits=limits
                )
        await teams.remove(lent, "removed")
    for level in LEVELS:
        world.tokens.setdefault((level, EVERYTHING.name), service.tokens[level])


async def _together(cells: list[Any]) -> None:
    """A few at a time, as they are in the list."""
    for start in range(0, len(cells), AT_ONCE):
        await asyncio.gather(*cells[start : start + AT_ONCE])


CELLS = [(kind, state) for kind in table.CALL_TYPES for state in STATES]


@pytest.mark.timeout(900)  # thousands of requests, on whatever machine
async def test_every_level_route_call_type_scope_and_state(world: World) -> None:
    # A reason opens what is asked for afterwards, and an upload makes a recording: both come last.
    lines = sorted(LINES, key=lambda line: line.kind in ("reason", "upload"))
    cells = []
    for line in lines:
        for level in LEVELS:
            scopes = SCOPES if level in table.READ and line.kind in table.ABOUT_ONE else SCOPES[:1]
            # Where nothing is asked of a recording, one cell tells of all.
            wanted = CELLS if line.kind in (*table.ABOUT_ONE, "upload") else CELLS[:1]
            cells += [(line, level, scope, cell) for scope in scopes for cell in wanted]
    await _together(
        [
            world.hold(line, level, "valid", scope, cell, world.tokens[level, scope.name])
            for line, level, scope, cell in cells
            if line.path != "/readyz"
        ]
    )
    assert world.wrong == []
    assert world.asked > 6000
    await _check_ledger(world, cells)
    print(f"{world.asked} cells were asked")


async def _check_ledger(world: World, cells: list[Any]) -> None:
    """What was let out is on the ledger once, and nothing that was not."""
    acts = {
        "details": "viewed",
        "redaction": "viewed",
        "audio": "listened",
        "reason": "reason.given",
    }
    expected: Counter[tuple[str, str]] = Counter()
    for line, level, scope, cell in cells:
        # That nothing of it is redacted (404) tells of a recording as well.
        seen = replace(line, kind="details") if line.kind == "redaction" else line
        status, _ = table.expected(seen, level, "valid", scope, *cell)
        if line.kind in acts and status in (200, 201) and line.method != "HEAD":
            act = "listened" if line.path.endswith("waveform") else acts[line.kind]
            expected[act, world.ids[cell]] += 1
    told = Counter(
        (act, identifier)
        for act, identifier in await world.service.acts()
        if identifier and act in acts.values()
    )
    assert told == expected


@pytest.mark.timeout(900)
async def test_every_scope_finds_what_it_covers_and_nothing_else(world: World) -> None:
    stored = {kind: world.ids[kind, "stored"] for kind in table.CALL_TYPES}
    filters = {"": set(stored), "&agent=åke": set(stored), "&queue=north&agent=Åke": set(stored)}
    filters |= {f"&call_type={kind}": {kind} for kind in stored}
    filters |= {"&queue=south": set(), "&agent=North": set()}
    for (level, name), token in world.tokens.items():
        if level not in table.READ:
            continue
        scope = next(scope for scope in SCOPES if scope.name == name)
        for text, kinds in filters.items():
            answer = await world.service.get(f"/v1/recordings?limit=200{text}", token)
            found = {item["id"] for item in (await answer.json())["items"]}
            assert found == {stored[kind] for kind in kinds & scope.inside}, (level, name, text)


@pytest.mark.timeout(900)
async def test_every_level_route_and_state_of_the_key(vault: Vault) -> None:
    async with open_service(vault, FREELY) as service:
        await _every_key(World(service))


async def _every_key(world: World) -> None:
    service = world.service
    tokens = {(level, key): await _token(service, level, key) for level in LEVELS for key in KEYS}
    cell = ("other", "never")
    await _together(
        [
            world.hold(line, level, key, EVERYTHING, cell, tokens[level, key])
            for line in LINES
            for level in LEVELS
            for key in KEYS
        ]
    )
    assert world.wrong == []
    assert world.asked == len(LINES) * len(LEVELS) * len(KEYS)


async def _token(service: Service, level: str, key: str) -> str | None:
    """A token of a key of this level that is in this state."""
    if key in ("unknown", "misspelt"):
        return Token.new().text() if key == "unknown" else service.tokens[level][:-1]
    if key == "none":
        return None
    name = f"{level}-{key.replace(' ', '-')}"
    bounds = Bounds.from_texts("192.0.2.0/24") if key == "from elsewhere" else Bounds()
    token = await service.key(level, name, bounds=bounds)
    async with connection(service.vault.pool) as lent:
        if key.startswith("rotated"):
            overlap = timedelta(hours=1 if key == "rotated" else 0)
            await credentials.rotate(lent, service.vault.ring, name, overlap)
        if key == "revoked":
            await credentials.revoke(lent, name)
    return token
