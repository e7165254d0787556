"""The operations door: is the archive well, what is due, what was done; and who may know."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from archive.access import Level
from archive.errors import UnavailableError
from storage.database import connection
from storage.vault import Vault
from tests.jobs.test_expiry import a_year_ago
from tests.services import Faulty, Service, open_service, set_clock
from tests.web.test_listen import upload
from tests.web.test_upload import problem

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
    assert body["checks"].keys() == {"database", "objects", "keys", "fuse", "overdue", "ledger"}
    return answer.status, {part: text for part, text in body["checks"].items() if text != "ok"}


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
    for path in ("/v1/recordings", "/"):
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


async def test_not_ready_when_an_erasure_is_late(service: Service) -> None:
    await upload(service, "late", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=50))
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
    today = service.vault.policy.day_of(datetime.now(UTC))
    for name in ("a", "b"):
        await upload(service, name, started_at=a_year_ago(days=3))
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
    soon = (today + timedelta(days=3)).isoformat()
    assert days[soon] == {"due": 2, "erased": 0, "failed": 0, "closed_at": None}
    assert days[day]["due"] == 1
    assert page["overdue"] == 1
    oldest = datetime.fromisoformat(page["oldest_overdue"])
    assert timedelta(0) < datetime.now(UTC) + timedelta(seconds=40) - oldest < timedelta(minutes=1)
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
    only, _ = await seen(from_=today + timedelta(days=2), to=today + timedelta(days=4))
    assert only.keys() == {soon}
    none, _ = await seen(from_=today + timedelta(days=4), to=today + timedelta(days=2))
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
