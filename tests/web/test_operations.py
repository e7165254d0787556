"""The operations door: is the archive well, what is due, what was done; and who may know."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from hashlib import md5
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from archive.access import Level
from archive.errors import UnavailableError
from archive.lifecycle import State
from storage import clocks, fuse, nights, overview, tree
from storage.overview import Standing
from storage.signer import SignerError
from storage.upkeep import verify
from storage.vault import Vault
from tests import years
from tests.jobs.test_expiry import a_year_ago
from tests.rewriting import unguarded
from tests.roles import acting, connection, owned
from tests.services import Faulty, Service, open_service, set_clock
from tests.storage.upkeep.test_verify import fetch, later, put, remove
from tests.web.test_listen import upload
from tests.web.test_upload import problem
from web import gauges, operations
from web.doors import VAULT

CLOSED = ("/metrics", "/v1/expiry", "/v1/ledger", "/v1/ledger/checkpoint")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

_LABEL = r'[a-z_]+="[^"\\\n]*"'
_SAMPLE = re.compile(rf"([a-z_]+)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")
_COMMENT = re.compile(r"# (HELP|TYPE) ([a-z_]+) (.+)")


def parse(text: str) -> Samples:
    """Read the text format of Prometheus, strictly: every sample belongs to a declared family."""
    samples: Samples = {}
    declared: dict[str, set[str]] = {}
    assert text.endswith("\n")
    for line in text.removesuffix("\n").split("\n"):
        if comment := _COMMENT.fullmatch(line):
            word, name, rest = comment.groups()
            assert word not in declared.setdefault(name, set())
            declared[name].add(word)
            assert word == "HELP" or rest in ("gauge", "counter")
            continue
        found = _SAMPLE.fullmatch(line)
        assert found, line
        name, labels, value = found.groups()
        assert declared[name] == {"HELP", "TYPE"}
        pairs = frozenset(re.findall(r'([a-z_]+)="([^"]*)"', labels or ""))
        assert (name, pairs) not in samples
        samples[name, pairs] = float(value)
    return samples


async def figures(service: Service) -> Samples:
    answer = await service.operate("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return parse(await answer.text())


async def checks(service: Service) -> tuple[int, dict[str, str]]:
    """What `/readyz` says, without a key."""
    answer = await service.operate("/readyz", token=None)
    body = await answer.json()
    assert body["ready"] is (answer.status == 200)
    assert body["checks"].keys() == {*operations.PARTS, *gauges.CHECKS}
    wrong = {part: text for part, text in body["checks"].items() if text != "ok"}
    if wrong:
        await problem(answer, 503, "unavailable")
        assert all(part in body["detail"] for part in wrong)
        assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Cache-Control"] == "private, no-store"
    return answer.status, wrong


@pytest.fixture(autouse=True)
def each_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `/readyz` look again each time."""
    monkeypatch.setattr(operations, "FRESH", 0.0)


async def test_one_look_is_the_answer_to_all_who_ask_meanwhile(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, go_on, look = 0, asyncio.Event(), fuse.look

    async def counted(vault: Vault) -> Any:
        nonlocal looks
        looks += 1
        await go_on.wait()
        if looks == 3:
            raise RuntimeError("a fault of ours")
        return await look(vault)

    monkeypatch.setattr(fuse, "look", counted)
    request: Any = SimpleNamespace(app={VAULT: acting(service.vault, "operations")})
    readiness = operations.Readiness()
    asking = [asyncio.create_task(readiness.answer(request)) for _ in range(20)]
    await asyncio.sleep(0)
    go_on.set()
    assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 20
    assert looks == 1
    assert (await readiness.answer(request)).status == 200
    assert looks == 2
    monkeypatch.setattr(operations, "FRESH", 3600.0)
    assert (await readiness.answer(request)).status == 200
    assert looks == 2, "it was just looked"
    untried = operations.Readiness()
    with pytest.raises(RuntimeError):
        await untried.answer(request)
    assert (await untried.answer(request)).status == 200
    assert looks == 4, "a look that failed is nobody's answer"


async def test_health_needs_no_key(service: Service) -> None:
    answer = await service.operate("/healthz", token=None)
    assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    assert await checks(service) == (200, {})
    assert (await service.operate("/openapi.json", token=None)).status == 200


@pytest.mark.parametrize("path", CLOSED)
async def test_only_auditors_and_admins_look_at_the_workings(service: Service, path: str) -> None:
    for level in Level:
        answer = await service.operate(path, token=level)
        if level in ("auditor", "admin"):
            assert answer.status == 200
        else:
            await problem(answer, 403, "forbidden")
    for token in (None, "cra_nobody", "Bearer"):
        refused = await service.operate(path, token=token)
        await problem(refused, 401, "unauthenticated")
        assert "Basic" not in refused.headers["WWW-Authenticate"].split(",")[0]
    await service.revoke("auditor")
    await problem(await service.operate(path), 401, "unauthenticated")


async def test_no_other_door_tells_of_the_workings(service: Service) -> None:
    for door in (service.ingest, service.retrieval):
        for path in (*CLOSED, "/readyz", "/healthz"):
            await problem(await service.ask("GET", door + path, "admin"), 404, "not-found")
    for path in ("/v1/recordings", "/search"):
        await problem(await service.operate(path, token="admin"), 404, "not-found")


async def test_the_figures_count_what_is_there_and_what_is_late(service: Service) -> None:
    assert (await figures(service))["archive_recordings_overdue", frozenset()] == 0
    await upload(service, "kept")
    for name in ("late", "later"):
        await upload(service, name, started_at=a_year_ago(seconds=20))
    before = await figures(service)
    assert before["archive_recordings_overdue", frozenset()] == 0
    assert before["archive_overdue_seconds", frozenset()] == 0
    assert before["archive_recordings", frozenset({("state", "stored")})] == 3
    days = len(service.vault.ring.days())
    assert before["archive_day_keys", frozenset()] == days > 365
    await service.turn_clock(timedelta(seconds=50))
    late = await figures(service)
    assert late["archive_recordings_overdue", frozenset()] == 2
    assert 25 < late["archive_overdue_seconds", frozenset()] < 60
    assert (await service.erase()).erased == 2
    after = await figures(service)
    assert after["archive_recordings_overdue", frozenset()] == 0
    assert after["archive_recordings", frozenset({("state", "stored")})] == 1
    assert after["archive_recordings", frozenset({("state", "erased")})] == 2


async def test_a_fresh_archive_is_ready_and_nothing_in_it_is_behind(vault: Vault) -> None:
    async with connection(vault.pool) as lent:
        assert await overview.standing(lent, None, 0) == NOTHING
    async with open_service(vault) as service:
        assert await checks(service) == (200, {})
        found = await figures(service)
    names = {name for name, _ in found}
    assert names == {"archive_recordings", "archive_day_keys", *(one.name for one in gauges.GAUGES)}
    states = {labels: count for (name, labels), count in found.items() if "recordings" in name}
    assert all(frozenset({("state", state)}) in states for state in State)
    assert set(states.values()) == {0}


NOTHING = Standing(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("field", "check", "most"),
    [
        ("overdue_for", "overdue", 5 * 60),
        ("day_open", "days", 26 * 3600),
        ("night", "nights", 26 * 3600),
        ("unverified", "unverified", 25 * 3600),
        ("verified", "verified", 31 * 86400),
        ("damaged", "damaged", 0),
        ("unsigned", "checkpoint", 10 * 60),
        ("held", "hold", 0),
        ("lost", "lost", 0),
        ("wrong", "rows", 0),
        ("granted", "erasures", 0),
    ],
)
def test_each_promise_has_its_limit(field: str, check: str, most: float) -> None:
    assert set(gauges.judged(replace(NOTHING, **{field: most})).values()) == {"ok"}
    wrong = gauges.judged(replace(NOTHING, **{field: most + 1}))
    assert [name for name, said in wrong.items() if said != "ok"] == [check]
    assert set(gauges.judged(NOTHING)) == set(gauges.CHECKS)


def test_what_is_for_people_to_look_at_makes_nothing_unready() -> None:
    """Strange objects may lie there for a year, and a bundle that was gone is there again."""
    seen = replace(NOTHING, unknown=1, missing=1)
    assert set(gauges.judged(seen).values()) == {"ok"}


async def test_the_figures_tell_of_a_hold_with_nothing_due(service: Service) -> None:
    assert await value(service, "archive_erasing_held") == 0
    async with connection(service.vault.pool) as lent, lent.transaction():
        await clocks.hold(lent, "somebody has to look")
    assert await value(service, "archive_erasing_held") == 1
    _, wrong = await checks(service)
    assert wrong.keys() == {"fuse", "hold"}


async def test_a_clock_that_was_put_back_has_a_figure(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE archive SET clock_mark = archive_now() - interval '1 hour'")
        assert await value(service, "archive_clock_behind_seconds") == 0
        await lent.execute("UPDATE archive SET clock_mark = archive_now() + interval '2 days'")
    assert 172_800 - 120 < await value(service, "archive_clock_behind_seconds") <= 172_800
    _, wrong = await checks(service)
    assert "behind its last mark" in wrong["fuse"]


async def test_the_figures_tell_what_the_last_comparison_and_the_last_night_saw(
    service: Service,
) -> None:
    names = [
        "archive_objects_lost",
        "archive_objects_unknown",
        "archive_ledger_bundles_wrong",
        "archive_ledger_bundles_missing",
    ]
    kept = await upload(service, "kept")
    [holding] = await service.holdings()
    await service.vault.objects.remove([holding])
    strange = f"{holding.key.split('/', 1)[0]}/strange"
    await service.vault.objects.put(strange, [b"x"], 1, md5(b"x").digest(), 10)
    await service.night()
    assert [await value(service, name) for name in names] == [1, 1, 0, 0]
    async with connection(service.vault.pool) as lent:  # a night of a clock that was ahead
        await lent.execute(
            "INSERT INTO night (ran_at, report) VALUES (archive_now() + interval '1 year', $1)",
            {"reread": {"wrong": 0, "missing": 0}},
        )
    async with unguarded(service.vault) as lent:
        await lent.execute("UPDATE ledger SET actor = 'x' WHERE recording = $1", UUID(kept))
    with pytest.raises(SignerError):
        await service.night()
    assert [await value(service, name) for name in names] == [1, 1, 1, 0]
    async with connection(service.vault.pool) as lent:
        assert "days" in (await nights.latest(lent, 1))[0][1]
    _, wrong = await checks(service)
    assert wrong.keys() >= {"lost", "rows"}


async def value(service: Service, name: str) -> float:
    return (await figures(service))[name, frozenset()]


async def about(service: Service, name: str, span: timedelta) -> bool:
    """Whether a figure is that span, give or take what a slow machine takes."""
    return 0 <= await value(service, name) - span.total_seconds() < 120


async def test_not_ready_when_a_recording_is_not_read_back_in_time(service: Service) -> None:
    await upload(service, "c1")
    await later(service, hours=24)
    assert await about(service, "archive_unverified_seconds", timedelta(hours=24))
    assert await checks(service) == (200, {})
    await later(service, hours=2)
    status, wrong = await checks(service)
    assert (status, wrong.keys()) == (503, {"unverified"})
    await verify.run(service.vault)
    assert await value(service, "archive_unverified_seconds") == 0
    await later(service, days=30)
    assert await about(service, "archive_verified_age_seconds", timedelta(days=30))
    assert await checks(service) == (200, {})
    await later(service, days=2)
    status, wrong = await checks(service)
    assert (status, wrong.keys()) == (503, {"verified"})
    await verify.run(service.vault)
    assert await checks(service) == (200, {})


async def test_not_ready_while_a_recording_is_damaged(service: Service) -> None:
    identifier = await upload(service, "c1")
    whole = await fetch(service, identifier)
    await later(service, hours=2)
    await remove(service, identifier)
    await verify.run(service.vault)
    assert await value(service, "archive_recordings_damaged") == 1
    wrong = {"damaged": "1 recordings are damaged: the log and the ledger name them"}
    assert await checks(service) == (503, wrong)
    # It is no news that it was not read back whole.
    await later(service, days=40)
    assert await value(service, "archive_unverified_seconds") == 0
    assert await checks(service) == (503, wrong)
    await put(service, identifier, whole)
    await verify.run(service.vault)
    assert await value(service, "archive_recordings_damaged") == 0
    assert await checks(service) == (200, {})


async def note_act(vault: Vault, ago: timedelta) -> None:
    """Write into the ledger what was done a while ago."""
    async with connection(vault.pool) as lent:
        await lent.execute(
            "INSERT INTO ledger_waiting (at, actor, act)"
            " VALUES (archive_now() - $1::interval, 'system', 'test')",
            ago,
        )


async def test_not_ready_when_the_nights_stay_away(vault: Vault) -> None:
    # As long as there was no night, it counts from the beginning of the ledger.
    await note_act(vault, timedelta(hours=27))
    await tree.checkpoint(vault)
    async with open_service(vault) as service:
        assert await about(service, "archive_night_age_seconds", timedelta(hours=27))
        status, wrong = await checks(service)
        assert (status, wrong.keys()) == (503, {"nights"})
        await service.night()
        assert await checks(service) == (200, {})
        for hours, expected in ((25, set()), (2, {"nights"})):
            async with connection(vault.pool) as lent:
                await lent.execute(
                    "UPDATE night SET ran_at = ran_at - make_interval(hours => $1)", hours
                )
            assert (await checks(service))[1].keys() == expected
        assert await about(service, "archive_night_age_seconds", timedelta(hours=27))


async def test_not_ready_when_the_ledger_is_not_signed(service: Service) -> None:
    await note_act(service.vault, timedelta(minutes=5))
    await tree.checkpoint(service.vault)
    assert await value(service, "archive_ledger_unsigned_seconds") == 0
    entries = await value(service, "archive_ledger_entries")
    await note_act(service.vault, timedelta(minutes=5))
    assert await about(service, "archive_ledger_unsigned_seconds", timedelta(minutes=5))
    assert await checks(service) == (200, {})
    await tree.checkpoint(service.vault)
    await note_act(service.vault, timedelta(minutes=11))
    assert (await checks(service))[1].keys() == {"checkpoint"}
    # To have a place in the ledger is not to be signed.
    await tree.sequence(service.vault)
    assert (await checks(service))[1].keys() == {"checkpoint"}
    assert await about(service, "archive_ledger_unsigned_seconds", timedelta(minutes=11))
    assert await value(service, "archive_ledger_entries") == entries + 2
    await tree.checkpoint(service.vault)
    assert await checks(service) == (200, {})


async def test_not_ready_when_a_day_does_not_close(vault: Vault) -> None:
    now = datetime.now(UTC)
    today = vault.policy.day_of(now)
    over = overview.end_of(today - timedelta(days=1), vault.policy)
    assert vault.policy.day_of(over) == today
    assert vault.policy.day_of(over - timedelta(microseconds=1)) == today - timedelta(days=1)

    def days() -> list[date]:
        return [*vault.ring.days(), today - timedelta(days=back)]

    ring: Any = Faulty(vault.ring, days=days)
    async with open_service(replace(vault, ring=ring)) as service:
        back = -1
        assert await value(service, "archive_day_open_seconds") == 0
        back = 1
        assert await about(service, "archive_day_open_seconds", now - over)
        # Two days back it ended over 24 hours ago, three days back over 26, whatever the time.
        back = 3
        status, wrong = await checks(service)
        assert (status, wrong.keys()) == (503, {"days"})


async def test_readiness_is_looked_up_by_indexes(vault: Vault) -> None:
    asked: list[tuple[str, Any]] = []

    async def fetchrow(statement: str, *values: Any) -> Any:
        asked.append((statement, values))
        return await lent.fetchrow(statement, *values)

    async with connection(vault.pool) as lent, lent.transaction():
        spy: Any = Faulty(lent, fetchrow=fetchrow)
        await overview.standing(spy, None, 0)
        [(statement, values)] = asked
        await lent.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in await lent.fetch("EXPLAIN " + statement, *values))
    for table in ("recording", "ledger", "night"):
        assert f"Seq Scan on {table}\n" not in plan
        assert f"Seq Scan on {table} " not in plan
    for index in ("due", "unverified", "verified", "damaged"):
        assert f"recording_{index} on recording" in plan


async def test_not_ready_when_an_erasure_is_late(service: Service) -> None:
    await upload(service, "late", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=50))
    await tree.checkpoint(service.vault)
    assert await checks(service) == (200, {})
    await set_clock(service.vault, timedelta(minutes=6))
    status, wrong = await checks(service)
    assert status == 503
    assert wrong["overdue"] == "1 recordings are past their time and not erased"
    assert "apart" in wrong["fuse"]


@pytest.fixture
async def lonely(vault: Vault) -> AsyncIterator[tuple[Service, set[str]]]:
    """A service, and a set into which a test puts what is away: "database", "objects"."""
    away: set[str] = set()

    def acquire(**options: Any) -> Any:
        if "database" in away:
            raise ConnectionRefusedError
        return vault.pool.acquire(**options)

    async def clock() -> datetime:
        if "objects" in away:
            raise UnavailableError("The object store is away.")
        return await vault.objects.clock()

    vault = owned(vault)
    pool: Any = Faulty(vault.pool, acquire=acquire)
    objects: Any = Faulty(vault.objects, clock=clock)
    async with open_service(replace(vault, pool=pool, objects=objects)) as opened:
        yield opened, away


async def test_not_ready_while_a_store_is_away_and_ready_again_after(
    lonely: tuple[Service, set[str]],
) -> None:
    service, away = lonely
    assert await checks(service) == (200, {})
    away.add("objects")
    assert await checks(service) == (503, {"objects": "The object store is away."})
    assert (await service.operate("/v1/ledger")).status == 200
    away.add("database")
    assert await checks(service) == (503, {"database": "The database is away; try again."})
    assert (await service.operate("/healthz", token=None)).status == 200
    for path in CLOSED:
        refused = await service.operate(path)
        await problem(refused, 503, "unavailable")
        assert int(refused.headers["Retry-After"]) > 0
    away.clear()
    assert await checks(service) == (200, {})


async def test_the_days_tell_what_is_due_erased_and_failing(service: Service) -> None:
    for name in ("a", "b"):
        await upload(service, name, started_at=a_year_ago(days=3))
    due_on = (await service.rows())[0]["expires_on"]
    soon = due_on.isoformat()
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day = (await service.rows())[-1]["expires_on"].isoformat()
    await service.turn_clock(timedelta(seconds=40))

    async def seen(**span: date) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        query = "&".join(f"{name.rstrip('_')}={value}" for name, value in span.items())
        page = await (await service.operate(f"/v1/expiry?{query}")).json()
        days = [one["day"] for one in page["days"]]
        assert days == sorted(days)
        return {one.pop("day"): one for one in page["days"]}, page

    days, page = await seen()
    assert days[soon] == {"due": 2, "erased": 0, "failed": 0, "closed_at": None}
    assert days[day]["due"] == 1
    assert page["overdue"] == 1
    oldest = datetime.fromisoformat(page["oldest_overdue"])
    assert timedelta(0) < years.now() + timedelta(seconds=40) - oldest < timedelta(minutes=1)
    vault = service.vault
    stubborn: Any = Faulty(vault.objects, remove=_keep)
    service.vault = replace(vault, objects=stubborn)
    assert (await service.erase()).still_there == 1
    await service.end_leases()
    days, page = await seen()
    assert days[day] == {"due": 1, "erased": 0, "failed": 1, "closed_at": None}
    service.vault = vault
    assert (await service.erase()).erased == 1
    days, page = await seen()
    assert days[day] == {"due": 0, "erased": 1, "failed": 0, "closed_at": None}
    assert (page["overdue"], page["oldest_overdue"]) == (0, None)
    only, _ = await seen(from_=due_on - timedelta(days=1), to=due_on + timedelta(days=1))
    assert only.keys() == {soon}
    none, _ = await seen(from_=due_on + timedelta(days=1), to=due_on - timedelta(days=1))
    assert none == {}


async def _keep(held: list[Any]) -> list[Any]:
    return held


async def test_the_ledger_is_read_page_by_page_and_tells_nothing_personal(
    service: Service,
) -> None:
    identifier = await upload(service, "c1", agent="Anna", caller="0401234567")
    await service.get(f"/v1/recordings/{identifier}/audio")
    await service.get("/v1/recordings?number=0401234567")
    items: list[dict[str, Any]] = []
    first = 0
    while True:
        text = await (await service.operate(f"/v1/ledger?limit=3&from={first}")).text()
        assert "Anna" not in text
        assert "1234567" not in text
        page = await _json(service, f"/v1/ledger?limit=3&from={first}")
        assert len(page["items"]) <= 3
        if not page["items"]:
            assert page["next_from"] == first
            break
        first = page["next_from"]
        assert first == page["items"][-1]["position"] + 1
        items += page["items"]
    assert items == (await _json(service, "/v1/ledger?limit=1000"))["items"]
    assert items == (await _json(service, "/v1/ledger"))["items"]
    positions = [one["position"] for one in items]
    assert positions == list(range(len(items)))
    acts = [(one["act"], one["recording"]) for one in items]
    assert acts.count(("stored", identifier)) == 1
    assert acts[-2:] == [("listened", identifier), ("searched", None)]
    assert items[-1]["actor"] == items[-2]["actor"] != items[-3]["actor"]
    assert all(datetime.fromisoformat(one["at"]).tzinfo for one in items)
    async with connection(service.vault.pool) as lent:
        keys = {row["id"] for row in await lent.fetch("SELECT id FROM access_key")}
    assert {one["actor"] for one in items} <= {*keys, "system"}
    assert (await _json(service, f"/v1/ledger?from={10**17}"))["items"] == []


async def _json(service: Service, path: str) -> Any:
    answer = await service.operate(path)
    assert answer.status == 200
    return await answer.json()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/ledger?limit=0",
        "/v1/ledger?limit=1001",
        "/v1/ledger?limit=-1",
        "/v1/ledger?limit=",
        "/v1/ledger?limit=%D9%A1",
        "/v1/ledger?from=-1",
        "/v1/ledger?from=x",
        "/v1/ledger?from=9999999999999999999",
        "/v1/ledger?before=3",
        "/v1/ledger?limit=3&limit=4",
        "/v1/expiry?from=yesterday",
        "/v1/expiry?to=2026-02-30",
        "/v1/expiry?from=",
        "/v1/expiry?day=2026-11-24",
        "/v1/expiry?from=2026-11-24&from=2026-11-25",
    ],
)
async def test_what_a_parameter_cannot_be_is_said(service: Service, path: str) -> None:
    told = await problem(await service.operate(path), 400, "malformed")
    name = path.split("?")[1].split("=")[0]
    if name in ("before", "day"):
        assert "There is no such parameter here" in told["detail"]
    else:
        assert f"`{name}`" in told["detail"]


async def test_the_door_is_only_read(service: Service) -> None:
    for path in ("/healthz", "/readyz", *CLOSED):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = await service.ask(method, service.operations + path, "admin")
            await problem(answer, 405, "method")
            assert "GET" in answer.headers["Allow"]


async def test_not_ready_when_the_key_ring_is_lost(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    ring = service.vault.spool.parent / "ring"
    away = ring.with_name("ring-away")
    ring.rename(away)
    try:
        status, found = await checks(service)
        lost = await service.get("/v1/recordings")
    finally:
        away.rename(ring)
    assert status == 503
    assert "archive check" in found["keys"]
    assert lost.status == 500
    # The operator is told what to do in the log; the caller is not told where keys lie.
    assert "ring" in caplog.text
    assert "ring" not in await lost.text()
    assert (await checks(service))[0] == 200


async def test_a_tile_beyond_what_any_ledger_can_have_is_not_there(service: Service) -> None:
    name = "entries/x999/x999/x999/x999/x999/999"
    await problem(await service.operate(f"/v1/ledger/tile/{name}"), 404, "not-found")
