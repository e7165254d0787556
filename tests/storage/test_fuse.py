"""The exact fuse: what the ledger does not bear out, what was not frozen, and what is too much."""

import json
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from archive import story
from storage import borne, ledger, removal, tree
from storage.release import release
from tests import years
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection, owned
from tests.services import Faulty, Service
from tests.web.test_listen import upload
from tests.web.test_upload import problem


async def execute(service: Service, sql: str, *arguments: Any) -> None:
    async with connection(service.vault.pool) as lent:
        await lent.execute(sql, *arguments)


async def fetchval(service: Service, sql: str, *arguments: Any) -> Any:
    async with connection(service.vault.pool) as lent:
        return await lent.fetchval(sql, *arguments)


async def multiply(service: Service, identifier: str, count: int, *, told: bool) -> None:
    """More rows like this one; `told`: the ledger tells that they were stored."""
    await tree.sequence(service.vault)
    await execute(
        service,
        "WITH made AS (INSERT INTO recording SELECT (jsonb_populate_record(r, jsonb_build_object("
        "'id', gen_random_uuid(), 'attempt', gen_random_uuid(), 'call_hash',"
        " '\\x' || replace(gen_random_uuid()::text, '-', '')))).*"
        " FROM recording r, generate_series(1, $2) WHERE r.id = $1 RETURNING id)"
        " INSERT INTO ledger_waiting (actor, act, recording, facts)"
        " SELECT actor, act, made.id, facts FROM made, ledger"
        " WHERE ledger.recording = $1 AND act = 'stored' AND $3",
        UUID(identifier),
        count,
        told,
    )


async def facts_of(service: Service) -> list[tuple[str, Any]]:
    """Each act with its facts, in their order."""
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT act, facts FROM ledger ORDER BY position")
    return [(row["act"], row["facts"]) for row in rows]


def today(service: Service, **later: float) -> date:
    return service.vault.policy.day_of(years.now() + timedelta(**later))


async def fuse_of(service: Service) -> str:
    ready = await (await service.operate("/readyz", token=None)).json()
    return str(ready["checks"]["fuse"])


MOVES = [
    "expires_at = archive_now() - interval '1 second'",
    "expires_at = archive_now() - interval '1 second', expires_on = $2",
    "expires_at = expires_at - interval '1 microsecond'",
    "expires_on = expires_on - 1",
    "rule = 'P1M Europe/Helsinki v1'",
]


@pytest.mark.parametrize("sequenced", [True, False])
@pytest.mark.parametrize("moved", MOVES)
async def test_a_row_that_was_moved_is_not_erased_and_stops_the_erasing(
    service: Service, monkeypatch: pytest.MonkeyPatch, moved: str, sequenced: bool
) -> None:
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    other = await upload(service, "moved", started_at=a_year_ago(seconds=25))
    if sequenced:
        await tree.sequence(service.vault)
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    await execute(
        service,
        f"UPDATE recording SET {moved} WHERE id = $1 AND $2::date IS NOT NULL",
        UUID(other),
        today(service),
    )
    report = await service.erase()
    assert report.erased == 0
    assert f"does not bear out 1 of the recordings that are due next ({other})" in report.stopped
    assert report.stopped in await fuse_of(service)
    await problem(await service.get(f"/v1/recordings/{other}"), 410, "gone")
    # Nor does a claim take it that was made without a look at the fuse.
    assert [str(claim.id) for claim in await removal.claim(service.vault)] == [due]
    assert {str(row["id"]) for row in await service.rows() if row["state"] == "stored"} == {other}


async def test_a_row_that_the_ledger_does_not_know_is_not_erased(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    await service.erase()
    await multiply(service, due, 4, told=False)
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    report = await service.erase()
    assert report.erased == 0
    assert "does not bear out 4 of the recordings" in report.stopped
    assert report.stopped.count(", ") >= 3
    assert "…" in report.stopped
    assert due not in report.stopped


async def test_what_is_borne_out_is_claimed_from_behind_many_that_are_not(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No look takes longer for their number: each is at one page of what is due."""
    older = await upload(service, "older", started_at=a_year_ago(seconds=25))
    due = [await upload(service, f"{n}", started_at=a_year_ago(seconds=20)) for n in range(3)]
    await multiply(service, older, 30, told=False)
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    monkeypatch.setattr(removal, "BATCH", 4)
    assert len(await removal.claim(service.vault, limit=2)) == 2
    claims = await removal.claim(service.vault, limit=9)
    assert len(claims) == 2
    assert await removal.claim(service.vault, limit=9) == []
    states = {str(row["id"]): row["state"] for row in await service.rows()}
    assert {states[each] for each in (older, *due)} == {"erasing"}
    assert list(states.values()).count("stored") == 30


async def test_a_look_at_the_ledger_costs_the_same_in_a_large_one_without_statistics(
    service: Service,
) -> None:
    """As after a restore: nobody has counted yet what is in its columns."""
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    await multiply(service, due, 3000, told=True)
    await tree.sequence(service.vault)
    asked: list[tuple[str, Any]] = []

    async def fetch(statement: str, *values: Any) -> Any:
        asked.append((statement, values))
        return await lent.fetch(statement, *values)

    await service.turn_clock(timedelta(seconds=30))
    async with connection(service.vault.pool) as lent:
        spy: Any = Faulty(lent, fetch=fetch)
        found = await borne.look(spy, 100)
        [(statement, values)] = asked
        explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}"
        ((plan,),) = await lent.fetch(explain, *values)
    assert (len(found.days), found.unborne) == (1, 0)
    assert json.loads(plan)[0]["Plan"]["Shared Hit Blocks"] < 2000, "20 for each of a hundred"


async def test_a_second_entry_does_not_bear_a_moved_row_out(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = await upload(service, "moved", started_at=a_year_ago(days=100))
    await execute(
        service,
        "WITH moved AS (UPDATE recording SET expires_at = archive_now(),"
        " expires_on = (archive_now() AT TIME ZONE 'Europe/Helsinki')::date WHERE id = $1"
        " RETURNING *) INSERT INTO ledger_waiting (actor, act, recording, facts)"
        " SELECT 'pbx', 'stored', id, jsonb_build_object('day', expires_on, 'rule', rule, 'due',"
        " to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')) FROM moved",
        UUID(moved),
    )
    report = await service.erase()
    assert report.erased == 0
    assert "does not bear out 1 " in report.stopped


async def test_a_row_that_came_back_from_a_rebuild_is_borne_out(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    await execute(
        service,
        "INSERT INTO ledger_waiting (actor, act, recording, facts) SELECT 'system', 'rebuilt',"
        " recording, facts FROM told WHERE act = 'stored' AND recording = $1",
        UUID(due),
    )
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    report = await service.erase()
    assert (report.erased, report.stopped) == (1, "")


async def test_a_release_lets_go_what_stood_there_and_nothing_that_comes_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await upload(service, "first", started_at=a_year_ago(days=100))
    later = await upload(service, "later", started_at=a_year_ago(days=100))
    move = "UPDATE recording SET expires_at = archive_now(), expires_on = $2 WHERE id = $1"
    await execute(service, move, UUID(first), today(service))
    assert (await service.erase()).erased == 0
    came = await release(owned(service.vault), today(service))
    assert (came.done, came.people, came.let_go) == (True, 1, 1)
    await execute(service, move, UUID(later), today(service))
    report = await service.erase()
    assert report.erased == 1
    assert f"({later})" in report.stopped
    assert ("fuse.let_go", first) in await service.acts()
    assert [str(row["id"]) for row in await service.rows() if row["state"] == "stored"] == [later]
    # It was not erased as it was stored, which no proof forgets; the page says so.
    page = await service.get(f"/v1/certificates/{first}/page?lang=en")
    assert (page.status, "was another one" in await page.text()) == (200, True)
    async with connection(service.vault.pool) as lent:
        entries = await ledger.page(lent, 0, 1000)
    faults = story.read(entry.text for entry in entries).faults
    assert f"{first} is erased by another due time" in str(faults)


async def _added(service: Service, one: str, other: str) -> None:
    await multiply(service, one, 1, told=False)


async def _moved(service: Service, one: str, other: str) -> None:
    await execute(
        service,
        "UPDATE recording SET expires_on = (SELECT expires_on FROM recording WHERE id = $2)"
        " WHERE id = $1",
        UUID(one),
        UUID(other),
    )


async def _removed(service: Service, one: str, other: str) -> None:
    await execute(service, "DELETE FROM recording WHERE id = $1", UUID(one))


async def _replaced(service: Service, one: str, other: str) -> None:
    await _added(service, one, other)
    await _removed(service, one, other)


async def _stored_and_removed(service: Service, one: str, other: str) -> None:
    await _removed(service, await upload(service, "new", started_at=a_year_ago(days=100)), other)


DIFFERENCES: list[tuple[Callable[[Service, str, str], Awaitable[None]], list[str]]] = [
    (_added, ["frozen 2, of them now 3;"]),
    (_moved, ["frozen 2, of them now 1;", "frozen 1, of them now 2;"]),
    (_removed, ["frozen 2, of them now 1;"]),
    (_replaced, ["frozen 2, of them now 2, but others;"]),
    (_stored_and_removed, ["frozen 2, of them now 2; stored since 1, of them now 0"]),
]


@pytest.mark.parametrize(("change", "told"), DIFFERENCES)
async def test_the_night_finds_whatever_changed_a_frozen_day(
    service: Service,
    change: Callable[[Service, str, str], Awaitable[None]],
    told: list[str],
) -> None:
    one, _, other = [
        await upload(service, name, started_at=a_year_ago(days=days))
        for name, days in (("one", 100), ("two", 100), ("three", 200))
    ]
    assert (await service.night()).expiry.stopped == ""
    await upload(service, "since", started_at=a_year_ago(days=150))
    assert (await service.night()).expiry.stopped == ""
    await change(service, one, other)
    night = await service.night()
    for each in told:
        assert each in night.expiry.stopped
    assert night.as_json()["stopped"] == await fuse_of(service)
    # It is told once, and stops until people have looked.
    assert (await service.night()).expiry.stopped == night.expiry.stopped
    await release(owned(service.vault), today(service))
    assert (await service.night()).expiry.stopped == ""
    assert [act for act, _ in await service.acts()].count("fuse.held") == 1


async def test_a_frozen_set_that_was_changed_in_the_database_is_noticed(service: Service) -> None:
    await upload(service, "one", started_at=a_year_ago(days=100))
    await service.night()
    await execute(service, "UPDATE frozen SET count = 2")
    night = await service.night()
    assert "not what the ledger tells" in night.expiry.stopped


async def test_the_ledger_tells_each_night_what_is_frozen(service: Service) -> None:
    for name, days in (("one", 100), ("two", 100), ("three", 200)):
        await upload(service, name, started_at=a_year_ago(days=days))
    await tree.sequence(service.vault)
    size = await fetchval(service, "SELECT size FROM ledger_head")
    await service.night()
    facts = await fetchval(service, "SELECT facts FROM ledger WHERE act = 'days.frozen'")
    assert (facts["days"], facts["recordings"], facts["upto"]) == (2, 3, size)
    assert len(facts["root"]) == 64


async def test_a_day_is_compared_before_its_first_erasure(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        gone = await upload(service, name, started_at=a_year_ago(seconds=30))
    await service.night()
    await execute(service, "DELETE FROM recording WHERE id = $1", UUID(gone))
    await service.turn_all_clocks(timedelta(seconds=40), monkeypatch)
    report = await service.erase()
    assert report.erased == 0
    assert "frozen 2, of them now 1;" in report.stopped
    await release(owned(service.vault), today(service, seconds=40))
    assert (await service.erase()).erased == 1


async def test_tombstones_stay_in_the_frozen_set(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "first", started_at=a_year_ago(seconds=20))
    await upload(service, "second", started_at=a_year_ago(seconds=40))
    await service.night()
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    assert (await service.erase()).erased == 1
    assert (await service.night()).expiry.stopped == ""
    await service.turn_all_clocks(timedelta(seconds=60), monkeypatch)
    assert (await service.erase()).erased == 1
    assert (await service.night()).expiry.stopped == ""


async def test_more_than_is_usual_and_was_not_known_stops_the_erasing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    await multiply(service, due, 100, told=True)
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    report = await service.erase()
    assert report.erased == 0
    day = today(service, seconds=30)
    assert (
        f"101 recordings that were not known a day ago fall due on {day}, more than 100"
        in report.stopped
    )
    await release(owned(service.vault), day)
    assert (await service.erase()).erased == 101


async def test_a_storm_waits_for_people_however_long_it_is_known(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next nights freeze it and it is no news any more: it is held all the same."""
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    await multiply(service, due, 100, told=True)
    day = await fetchval(service, "SELECT expires_on FROM recording LIMIT 1")
    for later in (timedelta(minutes=1), timedelta(hours=12), timedelta(hours=25)):
        await service.turn_all_clocks(later, monkeypatch)
        await service.night()
        report = await service.erase()
        assert report.erased == 0
        assert f"on {day} more falls due than was known" in report.stopped
    held = [why for act, why in await facts_of(service) if act == "fuse.held"]
    assert held == [{"why": f"on {day} more falls due than was known a day before and is usual"}]
    await release(owned(service.vault), today(service, hours=25))
    assert (await service.erase()).erased == 101


async def test_what_people_let_go_is_known_and_what_comes_later_is_not(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    await multiply(service, due, 100, told=True)
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    assert (await service.erase()).erased == 0
    day = today(service, seconds=30)
    await release(owned(service.vault), day)
    assert (await service.erase()).erased == 101
    await tree.sequence(service.vault)
    await upload(service, "later", started_at=a_year_ago(seconds=32))
    await service.turn_all_clocks(timedelta(seconds=40), monkeypatch)
    assert (await service.erase()).erased == 1
    last = await upload(service, "last", started_at=a_year_ago(seconds=42))
    await multiply(service, last, 120, told=True)
    await service.turn_all_clocks(timedelta(seconds=60), monkeypatch)
    report = await service.erase()
    assert report.erased == 0
    assert "recordings that were not known a day ago fall due" in report.stopped


async def test_as_many_as_three_usual_days_stop_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    await execute(
        service,
        "INSERT INTO recording (id, source, call_type, expires_on, state) SELECT"
        " gen_random_uuid(), 'pbx', 'other', (SELECT expires_on FROM recording) - back, 'erased'"
        " FROM generate_series(1, 30) back, generate_series(1, 40)",
    )
    await multiply(service, due, 119, told=True)
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    assert (await service.erase()).erased == 120
    due = await upload(service, "more", started_at=a_year_ago(seconds=32))
    await service.turn_all_clocks(timedelta(seconds=60), monkeypatch)
    report = await service.erase()
    assert report.erased == 0
    assert "more than 120" in report.stopped


async def test_a_storm_that_was_frozen_a_day_ago_stops_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = await upload(service, "due", started_at=a_year_ago(hours=30))
    await multiply(service, due, 150, told=True)
    await service.night()
    await service.turn_all_clocks(timedelta(hours=31), monkeypatch)
    report = await service.erase()
    assert (report.erased, report.stopped) == (151, "")
