"""What each role of the database may do, and that it may do nothing else: each tried by its login.

What is expected is read from `storage.roles.RIGHTS`, which docs/roles.md has as a table.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from archive.lifecycle import STEPS, State
from storage import ledger, schema
from storage.roles import ERASES, RIGHTS
from tests.postgres import Postgres
from tests.roles import login
from tests.storage.test_database import Link, full, insert

DOCS = Path(__file__).parents[2] / "docs/roles.md"
ACTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
VIEWS = ("told", "holder")
NEVER = ("TRUNCATE {}", "ALTER TABLE {} DISABLE TRIGGER ALL", "ALTER TABLE {} ADD x int")
"""What no role may do to any table."""

_RIGHT = re.compile(r"(SELECT|INSERT|UPDATE|DELETE)(?: \(([a-z_, ]+)\))?(?:, |$)")


def rights(text: str) -> dict[str, set[str] | None]:
    """The rights on one table: for each act its columns, None for all."""
    assert "".join(match[0] for match in _RIGHT.finditer(text)) == text
    return {
        match[1]: set(match[2].split(", ")) if match[2] else None for match in _RIGHT.finditer(text)
    }


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Link]:
    link = await asyncpg.connect(database_url)
    yield link
    await link.close()


@pytest.fixture(params=list(RIGHTS))
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def link(database_url: str, role: str) -> AsyncIterator[Link]:
    link = await asyncpg.connect(login(database_url, role))
    yield link
    await link.close()


async def columns(owner: Link) -> dict[str, list[str]]:
    """Every table and view of the schema, and its columns."""
    rows = await owner.fetch(
        "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) AS columns"
        " FROM information_schema.columns WHERE table_schema = 'public' GROUP BY 1"
    )
    return {row["table_name"]: row["columns"] for row in rows}


def attempt(act: str, table: str, column: str) -> str:
    """A statement that needs this right and touches no row, or is undone."""
    value = f"(NULL::{table}).{column}"
    return {
        "SELECT": f"SELECT {column} FROM {table} LIMIT 0",
        "INSERT": f"INSERT INTO {table} ({column}) OVERRIDING SYSTEM VALUE SELECT {value}"
        " WHERE false",
        "UPDATE": f"UPDATE {table} SET {column} = DEFAULT",
        "DELETE": f"DELETE FROM {table}",
    }[act]


async def may(link: Link, statement: str) -> bool:
    """Whether a statement is let through, as far as rights go; nothing of it stays."""
    transaction = link.transaction()
    await transaction.start()
    try:
        await link.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # Past the rights: what a view or a trigger says of it.
        assert not isinstance(error, asyncpg.PostgresSyntaxError), statement
    finally:
        await transaction.rollback()
    return True


async def test_every_right_that_is_in_the_table_and_no_other(
    owner: Link, link: Link, role: str
) -> None:
    wrong = []
    for table, names in (await columns(owner)).items():
        allowed = rights(RIGHTS[role].get(table, ""))
        for act in ACTS if table not in VIEWS else ("SELECT",):  # a view of two tables
            for name in names[:1] if act == "DELETE" else names:
                cols = allowed.get(act, set())
                expected = act in allowed and (cols is None or name in cols)
                if await may(link, attempt(act, table, name)) is not expected:
                    wrong.append(f"{act} {table}.{name}: expected {expected}")
    assert not wrong


async def test_no_role_touches_the_schema_the_clock_or_the_triggers(
    owner: Link, link: Link, role: str
) -> None:
    tables = await columns(owner)
    assert set(RIGHTS[role]) <= set(tables)
    statements = [each.format(table) for table in tables if table not in VIEWS for each in NEVER]
    statements += [
        "CREATE OR REPLACE FUNCTION archive_now() RETURNS timestamptz LANGUAGE sql VOLATILE"
        " AS 'SELECT now() + interval ''1 year'''",
        "DROP FUNCTION archive_now() CASCADE",
        "ALTER FUNCTION archive_now() RENAME TO later",
        "CREATE OR REPLACE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END'",
        "CREATE FUNCTION archive_now(text) RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'",
        "DROP TRIGGER ledger_append_only ON ledger",
        "CREATE TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SET session_replication_role = replica",
        "SET ROLE archive",
        "COPY ledger FROM PROGRAM 'true'",
        "CREATE EXTENSION file_fdw",
        "SELECT pg_read_file('PG_VERSION')",
        f"GRANT archive TO archive_{role}",
        f"GRANT SELECT ON recording TO archive_{role} WITH GRANT OPTION",
    ]
    statements += [f"SET ROLE archive_{other}" for other in RIGHTS if other != role]
    assert [each for each in statements if await _done(link, each)] == []


async def _done(link: Link, statement: str) -> bool:
    """Whether a statement did what it says; a GRANT of nothing only warns."""
    before = await link.fetchval("SELECT pg_get_functiondef('archive_now()'::regprocedure)")
    try:
        async with link.transaction():
            await link.execute(statement)
    except asyncpg.PostgresError:
        return False
    if statement.startswith("GRANT SELECT"):
        return bool(
            await link.fetchval(
                "SELECT has_table_privilege('recording', 'SELECT WITH GRANT OPTION')"
            )
        )
    assert before == await link.fetchval("SELECT pg_get_functiondef('archive_now()'::regprocedure)")
    return True


@pytest.mark.parametrize("state", [*State])
async def test_who_may_take_which_step(owner: Link, link: Link, role: str, state: State) -> None:
    """Only who erases takes the last ones, and nobody takes one that there is not."""
    taken = set()
    for to in State:
        row = full(state)
        await insert(owner, row)
        change = f"state = '{to}'"
        if to is State.ERASING and role == ERASES:
            change += ", lease_until = archive_now()"
        try:
            await link.execute(f"UPDATE recording SET {change} WHERE id = $1", row["id"])
        except asyncpg.PostgresError:
            continue
        taken.add(to)
    known = {after for (before, _), after in STEPS.items() if before is state}
    allowed: Mapping[str, set[State]] = {
        "ingest": known - {State.ERASING, State.ERASED},
        ERASES: known,
    }
    assert taken == allowed.get(role, set())


async def test_who_erases_removes_no_row_that_stands_for_a_recording(
    owner: Link, link: Link, role: str
) -> None:
    gone = set()
    for state in State:
        row = full(state)
        await insert(owner, row)
        try:
            await link.execute("DELETE FROM recording WHERE id = $1", row["id"])
        except asyncpg.InsufficientPrivilegeError:
            continue
        gone.add(state)
    assert gone == ({State.ABANDONED} if role == ERASES else set())


DECISIONS = (
    *("erasure.asked", "erasure.granted", "retention.asked", "retention.changed"),
    *("fuse.release_asked", "fuse.released", "fuse.let_go"),
    *("recording.lost", "rebuilt"),
)


@pytest.mark.parametrize("act", DECISIONS)
async def test_no_part_of_the_service_writes_down_what_people_decide(
    owner: Link, link: Link, role: str, act: str
) -> None:
    """An entry `erasure.granted` is all that it takes to have a recording erased, and one
    `recording.lost` all that it takes for the story to do without.
    """
    entry = "INSERT INTO ledger_waiting (actor, act) VALUES ('key-0', $1)"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await link.execute(entry, act)
    if can("INSERT", "ledger_waiting") >= {role}:
        await link.execute(entry, "searched")
    await owner.execute(entry, act)


@pytest.mark.parametrize(
    "act", ["erased", "day.closed", "night.done", "days.frozen", "export.erased", "reconciled"]
)
async def test_what_the_jobs_do_is_told_by_no_other_part(
    owner: Link, link: Link, role: str, act: str
) -> None:
    """On the word of such an entry a rebuild destroys, and a night's account is believed."""
    entry = f"INSERT INTO ledger_waiting (actor, act) VALUES ('system', '{act}')"
    assert await may(link, entry) is (role == ERASES)
    await owner.execute(entry)


STORED = {"day": "2027-11-26", "due": "2027-11-26T12:00:00.000000Z", "rule": "P1Y"}


@pytest.mark.parametrize(
    ("recording", "facts", "whole"),
    [
        (uuid4(), STORED, True),
        (None, STORED, False),
        (uuid4(), {}, False),
        (uuid4(), STORED | {"day": "soon"}, False),
        (uuid4(), STORED | {"day": None}, False),
        (uuid4(), {"day": "2027-11-26", "due": "2027-11-26T12:00:00.000000Z"}, False),
    ],
)
async def test_that_a_recording_is_stored_is_told_by_who_takes_it_in(
    link: Link, role: str, recording: UUID | None, facts: dict[str, object], *, whole: bool
) -> None:
    """With what it is looked for by: a night would look for what no day has."""
    entry = (
        "INSERT INTO ledger_waiting (actor, act, recording, facts) VALUES ('k', 'stored', $1, $2)"
    )
    if whole and role == "ingest":
        await link.execute(entry, recording, json.dumps(facts))
        return
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await link.execute(entry, recording, json.dumps(facts))


@pytest.mark.parametrize(
    ("actor", "act", "facts"),
    [
        ("k", "x", f'{{"entries": "{"x" * 70_000}"}}'),
        ("k", "x", f'{{"entries": {[*range(1000, 20_000)]}}}'),
        ("k", "x", '{"entries": [1e100000]}'),
        ("k", "x", '["a"]'),
        ("k", "x", "3"),
        ("k", "x" * 1024, "{}"),
        ("k" * 70_000, "x", "{}"),
    ],
)
async def test_nobody_writes_more_than_an_entry_can_be(
    link: Link, role: str, actor: str, act: str, facts: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await link.execute(
            "INSERT INTO ledger_waiting (actor, act, facts) VALUES ($1, $2, $3)", actor, act, facts
        )


@pytest.mark.parametrize(
    ("day", "details", "whole"),
    [("'2027-11-26'", "NULL", False), ("NULL", "'x'", False), ("'2027-11-26'", "'x'", True)],
)
async def test_sealed_details_come_with_the_day_of_their_key(
    link: Link, role: str, day: str, details: str, whole: bool
) -> None:
    entry = (
        "INSERT INTO ledger_waiting (actor, act, ends_on, details)"
        f" VALUES ('key-0', 'searched', {day}, {details})"
    )
    assert await may(link, entry) is (whole and role in can("INSERT", "ledger_waiting"))


ACCOUNTS = (
    "INSERT INTO account (id, name, level, password) VALUES ('person-0', 'anna', 'auditor', 'x')",
    "INSERT INTO account (id, name, level, subject)"
    " VALUES ('person-1', 'bo', 'auditor', sha256('bo'))",
    "INSERT INTO session (id, account, idle, ends_at)"
    " VALUES (sha256('his'), 'person-1', '1 hour', archive_now() + interval '1 hour')",
)


@pytest.mark.parametrize(
    ("change", "who"),
    [
        ("UPDATE account SET level = 'privacy' WHERE id = 'person-0'", set[str]()),
        ("UPDATE account SET teams = NULL WHERE id = 'person-0'", set[str]()),
        ("UPDATE account SET level = 'privacy' WHERE id = 'person-1'", {"sign_in"}),
        ("UPDATE account SET person = 'x' WHERE id = 'person-1'", set[str]()),
        ("UPDATE session SET account = 'person-0'", set[str]()),
        ("DELETE FROM session", {"sign_in"}),
        (ACCOUNTS[2].replace("his", "mine").replace("person-1", "person-0"), {"sign_in"}),
    ],
)
async def test_nobodys_login_makes_more_of_an_account(
    owner: Link, link: Link, role: str, change: str, who: set[str]
) -> None:
    """Neither by its level nor by a session that is put under another one."""
    for each in ACCOUNTS:
        await owner.execute(each)
    assert await may(link, change) is (role in who)
    await owner.execute(change)


@pytest.mark.parametrize("act", DECISIONS)
async def test_who_gives_places_puts_no_decision_there_that_did_not_wait(
    database_url: str, owner: Link, act: str
) -> None:
    link = await asyncpg.connect(login(database_url, "sequencer"))
    about = uuid4() if act.startswith("erasure") or act == "fuse.let_go" else None
    await owner.execute(
        "INSERT INTO ledger_waiting (actor, act, recording) VALUES ('key-0', $1, $2)", act, about
    )
    place = (
        "WITH taken AS (DELETE FROM ledger_waiting WHERE number > $3 RETURNING *)"
        " INSERT INTO ledger SELECT $1 + row_number() OVER (ORDER BY number) - 1, at, {}, act,"
        " {}, {}, NULL, NULL, NULL FROM taken WHERE act = $2"
    )
    true = ("actor", "recording", "facts")
    for words in (
        ("'key-1'", *true[1:]),
        ("actor", "gen_random_uuid()", "facts"),
        ("actor", "recording", '\'{"keys": ["a", "b"]}\'::jsonb'),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await link.execute(place.format(*words), 0, act, 0)
    assert await link.execute(place.format(*true), 0, act, 0) == "INSERT 0 1"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await link.execute(
            "INSERT INTO ledger SELECT 1, at, actor, act, recording, facts FROM ledger"
        )
    # The owner does, when a database is rebuilt from what was published.
    await owner.execute("INSERT INTO ledger SELECT 1, at, actor, act, recording, facts FROM ledger")
    await link.close()


def test_these_are_all_decisions() -> None:
    """As the sources write them: what is asked for, granted or let go; a loss and its mending."""
    acts = r"[\"'](erasure\.\w+|retention\.\w+|fuse\.\w+|recording\.lost|rebuilt)[\"']"
    found = set[str]()
    for name in ("early", "policy", "release", "borne", "upkeep/rebuild"):
        text = (Path(__file__).parents[2] / f"storage/{name}.py").read_text()
        found |= set(re.findall(acts, text))
    assert found == set(DECISIONS)


async def test_what_a_step_takes_with_it_is_the_schemas_to_do(owner: Link) -> None:
    row = full(State.RECEIVING)
    await insert(owner, row)
    for state, change in (
        (State.STORED, ""),
        (State.ERASING, ", lease_until = archive_now()"),
        (State.ERASED, ""),
    ):
        await owner.execute(
            f"UPDATE recording SET state = '{state}'{change} WHERE id = $1", row["id"]
        )
        found = dict(await owner.fetchrow("SELECT * FROM recording WHERE id = $1", row["id"]) or {})
        assert (found["lease_until"] is None) is (state is not State.ERASING)
    left = {name for name, value in found.items() if value is not None}
    # The hash stays as long as the call would be kept: who claims what is due takes it away.
    assert left == {"id", "source", "call_type", "expires_on", "state", "epoch", "call_hash"}


async def test_the_logins_have_nothing_beside_their_rights(owner: Link, role: str) -> None:
    row = await owner.fetchrow(
        "SELECT rolcanlogin, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication"
        " OR rolbypassrls OR rolinherit AS more,"
        " EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) AS member"
        " FROM pg_roles r WHERE rolname = $1",
        f"archive_{role}",
    )
    assert row is not None
    assert tuple(row) == (True, False, False)


async def test_an_owner_who_may_make_no_roles_is_told_how(postgres: Postgres) -> None:
    """And the roles that an administrator makes are given their rights at the next start."""
    name, other = f"own_{uuid4().hex[:8]}", "ingest"
    admin = await asyncpg.connect(postgres.url("postgres"))
    await admin.execute(f"CREATE ROLE {name} LOGIN")
    await admin.execute(f"CREATE DATABASE {name} OWNER {name}")
    url = postgres.url(name).replace("://archive@", f"://{name}@")
    owner = await asyncpg.connect(url)
    missing = await schema.migrate(owner)
    assert len(missing) == len(RIGHTS)
    assert any(f"CREATE ROLE {name}_{other} LOGIN" in each for each in missing)
    await admin.execute("".join(missing))
    assert await schema.migrate(owner) == []
    link = await asyncpg.connect(url.replace(f"://{name}@", f"://{name}_{other}@"))
    await schema.check_schema(link)
    assert await may(link, "SELECT id FROM recording")
    assert not await may(link, "SELECT details FROM recording")
    await link.close()
    await owner.close()
    await admin.execute(f"DROP DATABASE {name}")
    for each in RIGHTS:
        await admin.execute(f"DROP ROLE {name}_{each}")
    await admin.execute(f"DROP ROLE {name}")
    await admin.close()


async def test_a_right_that_was_given_besides_is_taken_at_the_next_start(
    database_url: str, owner: Link
) -> None:
    await owner.execute("GRANT SELECT ON recording TO archive_ingest")
    await owner.execute("GRANT EXECUTE ON FUNCTION may_erase() TO archive_ingest")
    await owner.execute("GRANT EXECUTE ON FUNCTION may_grant() TO archive_ingest")
    await schema.migrate(owner)
    link = await asyncpg.connect(login(database_url, "ingest"))
    assert not await may(link, "SELECT header FROM recording")
    assert not await may(link, "SELECT may_erase()")
    assert not await may(link, "SELECT may_grant()")
    await link.close()


def can(act: str, table: str, column: str = "") -> set[str]:
    """The roles that may do this."""
    found = set()
    for role, tables in RIGHTS.items():
        allowed = rights(tables.get(table, ""))
        columns = allowed.get(act, set())
        if act in allowed and (columns is None or not column or column in columns):
            found.add(role)
    return found


def test_what_the_roles_are_for() -> None:
    """Said once more, apart from the table: what is tried above is whatever stands there."""
    for column in ("header", "details"):
        assert can("SELECT", "recording", column) == {"retrieval", "jobs"}
        assert can("UPDATE", "recording", column) == set()
    assert can("INSERT", "account", "password") | can("INSERT", "team") == set()
    assert can("SELECT", "account", "level") == can("SELECT", "session")
    assert can("SELECT", "session") == {"retrieval", "operations", "sign_in"}
    for column in ("password", "factor", "subject", "name"):
        assert can("SELECT", "account", column) == {"sign_in"}
    for column in ("level", "call_types", "queues", "teams", "password", "factor"):
        assert can("UPDATE", "account", column) == {"sign_in"}
    assert can("INSERT", "account") == can("INSERT", "session") == {"sign_in"}
    assert can("DELETE", "session") == {"sign_in"}
    assert can("UPDATE", "session", "account") | can("UPDATE", "session", "ends_at") == set()
    assert can("UPDATE", "account", "person") | can("UPDATE", "access_key", "person") == set()
    assert can("INSERT", "account", "person") | can("INSERT", "account", "password") == set()
    assert can("UPDATE", "glass", "reader") | can("UPDATE", "glass", "lasts") == set()
    assert can("UPDATE", "policy") | can("INSERT", "policy") == set()
    assert can("SELECT", "term") == {"retrieval", "jobs"}
    assert can("UPDATE", "recording", "state") == {"ingest", "jobs"}
    for column in ("expires_at", "expires_on", "rule", "started_at", "attempt", "call_type"):
        assert can("UPDATE", "recording", column) == set()
    assert can("DELETE", "recording") == can("DELETE", "term") == {"jobs"}
    assert can("INSERT", "recording") == {"ingest"}
    assert can("INSERT", "ledger") == can("DELETE", "ledger_waiting") == {"sequencer"}
    assert can("UPDATE", "ledger") | can("DELETE", "ledger") == set()
    # A search's terms and the reason of an act: the owner's command alone opens them.
    assert can("SELECT", "ledger", "details") == set()
    assert can("SELECT", "ledger_waiting", "details") == {"sequencer"}
    for column in ledger.COLUMNS.split(", "):
        assert can("SELECT", "ledger", column) == {"retrieval", "operations", "jobs", "sequencer"}
    assert can("UPDATE", "ledger_waiting") | can("INSERT", "ledger_waiting", "at") == set()
    assert can("INSERT", "access_key") | can("DELETE", "access_key") == set()
    assert can("UPDATE", "access_key", "secret") | can("UPDATE", "access_key", "level") == set()
    assert can("UPDATE", "archive", "ring") | can("UPDATE", "archive", "rebuilding") == set()
    assert can("UPDATE", "archive") == can("UPDATE", "day") == {"jobs"}
    assert ERASES == "jobs"


def table() -> str:
    """RIGHTS as docs/roles.md has them."""
    lines = ["| table | " + " | ".join(f"`{role}`" for role in RIGHTS) + " |"]
    lines.append("|---" * (len(RIGHTS) + 1) + "|")
    for name in sorted({table for tables in RIGHTS.values() for table in tables}):
        cells = (RIGHTS[role].get(name, "").replace(" (", "&nbsp;(") for role in RIGHTS)
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def test_the_page_has_the_table() -> None:
    assert table() in DOCS.read_text()


async def test_every_table_is_somebodys_or_the_owners_alone(owner: Link) -> None:
    used = {table for tables in RIGHTS.values() for table in tables}
    assert set(await columns(owner)) == used
