"""The schema holds by itself what the code promises: steps, ledger, and what each state has."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from ipaddress import ip_network
from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import pytest

from archive.errors import UnavailableError
from archive.lifecycle import STEPS, State
from storage import database, ledger, schema, tree
from storage.schema import SchemaError
from storage.vault import Vault
from tests.postgres import Postgres
from tests.roles import connection

Link: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def link(database_url: str) -> AsyncIterator[Link]:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


def full(state: State, **other: Any) -> dict[str, Any]:
    """A row as it has to be in a state."""
    now = datetime.now(UTC)
    held = state in (State.RECEIVING, State.ERASING, State.ABANDONED)
    always = {
        "id": uuid4(),
        "source": "pbx",
        "call_type": "other",
        "expires_on": date(2027, 11, 24),
        "state": str(state),
        "lease_until": now if held else None,
    }
    known = {
        "attempt": uuid4(),
        "call_hash": uuid4().bytes,
        "digest": b"d",
        "started_at": now,
        "expires_at": now,
        "rule": "P1Y",
        "received_at": now,
        "duration": 1.0,
        "bytes": 1,
        "channels": 1,
        "sample_rate": 8000,
        "codec": "pcm_s16le",
        "container": "wav",
        "flaws": [],
        "header": b"h",
        "details": b"s",
    }
    sealed = ("call_hash", "digest", "header", "details")
    if state is State.ERASED:
        known = {}
    if state is State.ABANDONED:
        known = {name: value for name, value in known.items() if name not in sealed}
    return {**always, **known, **other}


async def insert(link: Link, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await link.execute(f"INSERT INTO recording ({names}) VALUES ({places})", *row.values())


async def tables(link: Link) -> set[str]:
    rows = await link.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows}


@pytest.fixture
async def bare_url(postgres: Postgres) -> AsyncIterator[str]:
    """A database of its own, without the schema."""
    await postgres.fresh_database(schema.migrate)  # it is up then
    name = f"bare_{uuid4().hex}"
    maintenance = await asyncpg.connect(postgres.url("postgres"))
    await maintenance.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    await maintenance.close()
    yield postgres.url(name)


async def test_the_schema_is_made_once(bare_url: str) -> None:
    links = [await asyncpg.connect(bare_url) for _ in range(4)]
    try:
        await asyncio.gather(*(schema.migrate(each) for each in links))
        made = await tables(links[0])
        assert {"recording", "ledger", "term", "day", "night", "migration"} <= made
        done = await links[0].fetch("SELECT * FROM migration ORDER BY number")
        assert [row["number"] for row in done] == list(range(1, len(done) + 1))
        await schema.migrate(links[1])
        assert await links[1].fetch("SELECT * FROM migration ORDER BY number") == done
        assert await links[1].fetchval("SELECT count(*) FROM archive") == 1
        assert (
            await links[1].fetchval("SELECT count(*) FROM pg_locks WHERE locktype='advisory'") == 0
        )
    finally:
        for each in links:
            await each.close()


async def test_a_migration_that_breaks_leaves_nothing_and_lets_go(
    bare_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, other = [await asyncpg.connect(bare_url) for _ in range(2)]
    try:
        with monkeypatch.context() as patch:
            broken = {1: "CREATE TABLE half (x int); SELECT 1/0"}
            patch.setattr(schema, "_migrations", lambda: broken)
            with pytest.raises(asyncpg.DivisionByZeroError):
                await schema.migrate(link)
        assert await tables(other) == {"migration"}
        await asyncio.wait_for(schema.migrate(other), 20)
        assert "recording" in await tables(link)
    finally:
        await link.close()
        await other.close()


async def test_a_newer_schema_is_refused(link: Link) -> None:
    await link.execute("INSERT INTO migration (number, sha256) VALUES (9999, '')")
    with pytest.raises(RuntimeError, match="newer"):
        await schema.migrate(link)


async def test_a_schema_of_other_files_is_refused(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same numbers: before the release the first file was changed in its place."""
    await schema.check_schema(link)
    before = await tables(link)
    with monkeypatch.context() as patch:
        known = schema._migrations()
        patch.setattr(schema, "_migrations", lambda: known | {1: known[1] + "-- another\n"})
        for look in (schema.migrate, schema.check_schema):
            with pytest.raises(SchemaError, match="archive rebuild"):
                await look(link)
    await link.execute("ALTER TABLE migration DROP sha256")  # older still
    for look in (schema.migrate, schema.check_schema):
        with pytest.raises(SchemaError, match="archive rebuild"):
            await look(link)
    assert await tables(link) == before


async def test_an_older_server_is_refused(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "OLDEST", 990000)
    with pytest.raises(RuntimeError, match="too old"):
        await schema.migrate(link)


@pytest.mark.parametrize("before", State)
async def test_the_database_takes_the_steps_of_the_lifecycle_and_no_others(
    link: Link, before: State
) -> None:
    for after in State:
        await step(link, before, after)


async def step(link: Link, before: State, after: State) -> None:
    """Try to take a new row from one state to another."""
    row = full(before)
    await insert(link, row)
    target = full(after, id=row["id"])
    for name in full(State.STORED):
        target.setdefault(name, None)
    names = ", ".join(f"{name} = ${number}" for number, name in enumerate(target, 1))
    change = link.execute(f"UPDATE recording SET {names} WHERE id = $1", *target.values())
    allowed = {(start, end) for (start, _), end in STEPS.items()}
    if (before, after) in allowed:
        await change
        expected = after
    else:
        with pytest.raises(asyncpg.RaiseError, match=f"from {before} to {after}"):
            await change
        expected = before
    seen = await link.fetchval("SELECT state FROM recording WHERE id = $1", row["id"])
    assert seen == expected


async def test_there_is_no_other_state(link: Link) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await insert(link, {**full(State.STORED), "state": "lost"})


@pytest.mark.parametrize("state", State)
async def test_who_holds_a_recording_holds_it_until_a_time(link: Link, state: State) -> None:
    await insert(link, full(state))
    held = full(state)["lease_until"] is not None
    turned = None if held else datetime.now(UTC)
    with pytest.raises(asyncpg.CheckViolationError):
        await insert(link, full(state, lease_until=turned))


KNOWN = sorted(set(full(State.STORED)) - set(full(State.ERASED)))


async def test_what_a_state_must_have_and_must_not_have(link: Link) -> None:
    for name in KNOWN:
        await must(link, name)


async def must(link: Link, name: str) -> None:
    for state in (State.RECEIVING, State.STORED):
        with pytest.raises(asyncpg.CheckViolationError):
            await insert(link, full(state, **{name: None}))
    value = full(State.STORED)[name]
    if name != "call_hash":  # it stays, so that the call is not taken in again
        with pytest.raises(asyncpg.CheckViolationError):
            await insert(link, full(State.ERASED, **{name: value}))
    if name in ("call_hash", "digest", "header", "details"):
        with pytest.raises(asyncpg.CheckViolationError):
            await insert(link, full(State.ABANDONED, **{name: value}))


async def test_a_call_is_there_once(link: Link) -> None:
    row = full(State.STORED)
    await insert(link, row)
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert(link, {**row, "id": uuid4()})
    await insert(link, {**row, "id": uuid4(), "source": "other-pbx"})


REWRITES = (
    "UPDATE ledger SET actor = 'nobody'",
    "UPDATE ledger SET actor = 'nobody' WHERE false",
    "DELETE FROM ledger",
    "TRUNCATE ledger",
    "TRUNCATE ledger CASCADE",
    "UPDATE ledger_waiting SET actor = 'nobody'",
    "TRUNCATE ledger_waiting",
)


async def test_the_ledger_is_only_ever_added_to(link: Link) -> None:
    await link.execute("INSERT INTO ledger VALUES (0, now(), 'system', 'stored', NULL, '{}')")
    await link.execute("INSERT INTO ledger_waiting (actor, act) VALUES ('system', 'stored')")
    before = await link.fetch("SELECT * FROM ledger")
    waiting = await link.fetch("SELECT * FROM ledger_waiting")
    for rewrite in REWRITES:
        with pytest.raises(asyncpg.RaiseError):
            await link.execute(rewrite)
        assert await link.fetch("SELECT * FROM ledger") == before
        assert await link.fetch("SELECT * FROM ledger_waiting") == waiting


async def test_entries_come_in_their_order(vault: Vault) -> None:
    async with connection(vault.pool) as lent:
        for act in ("one", "two", "three"):
            await ledger.record(lent, ledger.SYSTEM, act)
    assert await tree.sequence(vault) == 3
    async with connection(vault.pool) as lent:
        page = await ledger.page(lent, 0, 2)
        rest = await ledger.page(lent, 2, 2)
    assert [entry.act for entry in page + rest] == ["one", "two", "three"]
    assert [entry.position for entry in page + rest] == [0, 1, 2]


async def test_a_statement_takes_no_longer_than_the_pool_has_patience(database_url: str) -> None:
    pool = await database.open_pool(database_url, size=1, patience=0.05)
    with pytest.raises(UnavailableError):
        async with connection(pool) as lent:
            await lent.execute("SELECT pg_sleep(30)")
    pool.terminate()


async def test_of_two_that_wait_for_each_other_one_is_told_to_come_again(vault: Vault) -> None:
    halves = [asyncio.Event(), asyncio.Event()]

    async def crosswise(mine: int) -> None:
        names = ("pbx-0", "pbx-1")
        async with connection(vault.pool) as lent, lent.transaction():
            await lent.execute("INSERT INTO deadlock VALUES ($1)", names[mine])
            halves[mine].set()
            await halves[1 - mine].wait()
            await lent.execute("INSERT INTO deadlock VALUES ($1)", names[1 - mine])

    async with connection(vault.pool) as lent:
        await lent.execute("CREATE TABLE deadlock (name text PRIMARY KEY)")
    ended = await asyncio.gather(crosswise(0), crosswise(1), return_exceptions=True)
    assert sorted(map(type, ended), key=str) == sorted([UnavailableError, type(None)], key=str)


async def test_what_was_the_primary_until_another_took_over_is_away(
    database_url: str, link: Link
) -> None:
    """It reads on, and takes nothing: the sender is to come again, and finds the new one."""
    name = await link.fetchval("SELECT current_database()")
    await link.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    pool = await database.open_pool(database_url, size=1)
    try:
        async with connection(pool) as lent:
            assert await lent.fetchval("SELECT count(*) FROM ledger") == 0
        with pytest.raises(UnavailableError):
            async with connection(pool) as lent:
                await ledger.record(lent, ledger.SYSTEM, "stored")
    finally:
        await pool.close()


@pytest.mark.parametrize("state", ["53100", "53200", "53300"])
async def test_a_server_whose_disk_is_full_is_away(vault: Vault, state: str) -> None:
    async with connection(vault.pool) as lent:
        await lent.execute(
            "CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{state}'; END$$;"
            " CREATE TRIGGER full_up BEFORE INSERT ON ledger_waiting"
            " FOR EACH ROW EXECUTE FUNCTION full_up()"
        )
    with pytest.raises(UnavailableError):
        async with connection(vault.pool) as lent:
            await ledger.record(lent, ledger.SYSTEM, "stored")


async def test_the_arrays_that_are_known_are_those_of_the_catalogue(link: Link) -> None:
    rows = await link.fetch(
        "SELECT a.oid, a.typname AS name, a.typelem AS elemtype, e.typname AS elemtype_name"
        " FROM pg_type a JOIN pg_type e ON e.oid = a.typelem"
        " WHERE a.typnamespace = 'pg_catalog'::regnamespace AND a.typdelim = ','"
    )
    told = {row["oid"]: dict(row) for row in rows}
    for oid, known in database.KNOWN.items():
        assert told[oid].items() <= known.items()


async def test_no_connection_asks_what_an_array_is(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(_: object, oids: list[int], __: float | None) -> None:
        raise AssertionError(f"asked what {oids} are")

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", asked)
    sent = {
        "cidr": ip_network("10.0.0.0/8"), "bytea": b"\x00", "int2": 1, "int4": 2, "int8": 3,
        "date": date(2027, 11, 24), "timestamptz": datetime.now(UTC), "uuid": uuid4(),
        "jsonb": {"a": [1]},
    }  # fmt: skip
    pool = await database.open_pool(database_url)
    try:
        for name, value in sent.items():
            assert await pool.fetchval(f"SELECT $1::{name}[]", [value, None]) == [value, None]
        assert await pool.fetchval("SELECT ARRAY[ROW(1, 2)]") == [(1, 2)]
    finally:
        await pool.close()
    assert {f"_{name}" for name in (*sent, "record")} == {
        each["name"] for each in database.KNOWN.values()
    }


async def test_a_commit_is_on_the_disk_whatever_the_database_is_set_to(
    database_url: str, link: Link
) -> None:
    name = await link.fetchval("SELECT current_database()")
    await link.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    pool = await database.open_pool(database_url, 1)
    async with database.connection(pool) as lent:
        assert await lent.fetchval("SHOW synchronous_commit") == "on"
    await pool.close()
