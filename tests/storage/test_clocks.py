"""The clocks: whichever is wrong, nothing is erased early."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from archive.retention import Policy
from storage import clocks
from storage.clocks import Others, Reading, judge
from storage.release import release
from tests import years
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection, owned
from tests.services import Faulty, Service, set_clock
from tests.sounds import tone
from tests.web.test_listen import upload
from tests.web.test_upload import problem, query

POLICY = Policy(ZoneInfo("Europe/Helsinki"), {})
NOON = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
CLOCKS = ("database", "service", "store", "holder")
OFF = [
    sign * timedelta(seconds=seconds)
    for seconds in (1, 3600, 86400, 31_536_000)
    for sign in (1, -1)
]


def wrong() -> Iterator[tuple[tuple[str, ...], timedelta, timedelta]]:
    """Every clock off by every amount, alone and in pairs, each of a pair by an amount of its own.

    What a clock alone is off by is told twice.
    """
    for name in CLOCKS:
        yield from (((name,), off, off) for off in OFF)
    for pair in combinations(CLOCKS, 2):
        yield from ((pair, one, other) for one in OFF for other in OFF)


def beyond(off: dict[str, timedelta], moment: datetime) -> bool:
    """Whether any clock is further from the database's than it may be."""
    database = moment + off["database"]
    apart = [abs(off[name] - off["database"]) for name in ("service", "store")]
    near = (database - clocks.APART, database, database + clocks.APART)
    holder = POLICY.day_of(moment + off["holder"])
    return max(apart) > clocks.APART or holder not in {POLICY.day_of(each) for each in near}


def offs(names: tuple[str, ...], one: timedelta, other: timedelta) -> dict[str, timedelta]:
    return dict.fromkeys(CLOCKS, timedelta()) | {names[0]: one} | {names[-1]: other}


@pytest.mark.parametrize("moment", [NOON, NOON.replace(hour=21, minute=59, second=30)])
def test_every_clock_that_is_too_far_off_is_told(moment: datetime) -> None:
    told = 0
    for names, one, other in wrong():
        off = offs(names, one, other)
        others = Others(
            moment + off["service"],
            moment + off["store"],
            POLICY.day_of(moment + off["holder"]),
        )
        faults = judge(Reading(moment + off["database"]), others, POLICY)
        assert bool(faults) is beyond(off, moment), (names, one, other)
        told += bool(faults)
        # Whoever made the database's clock go ahead by an hour or more made it stand alone.
        if off["database"] >= timedelta(hours=1):
            assert faults
    assert told > 300


@pytest.mark.parametrize(
    ("service_off", "store_off", "mark_off", "whole"),
    [
        (0, 0, None, True),
        (60, -60, -48 * 3600, True),
        (61, 0, None, False),
        (-61, 0, None, False),
        (0, 61, None, False),
        (0, -61, None, False),
        (0, 0, -48 * 3600 - 1, False),
        (0, 0, 60, True),
        (0, 0, 61, False),
        (0, 0, -31_536_000, False),
    ],
)
def test_the_limits_are_a_minute_and_two_days(
    service_off: int, store_off: int, mark_off: int | None, whole: bool
) -> None:
    mark = None if mark_off is None else NOON + timedelta(seconds=mark_off)
    others = Others(
        NOON + timedelta(seconds=service_off),
        NOON + timedelta(seconds=store_off),
        POLICY.day_of(NOON),
    )
    assert bool(judge(Reading(NOON, mark), others, POLICY)) is not whole


@pytest.mark.parametrize(
    ("second", "holder_days", "whole"),
    [(30, 0, True), (30, 1, True), (30, 2, False), (30, -1, False), (-90, 1, False)],
)
def test_the_holder_may_be_a_minute_ahead_at_midnight(
    second: int, holder_days: int, whole: bool
) -> None:
    moment = datetime(2026, 11, 24, 22, 0, tzinfo=UTC) - timedelta(seconds=abs(second))
    holder = POLICY.day_of(moment) + timedelta(days=holder_days)
    faults = judge(Reading(moment), Others(moment, moment, holder), POLICY)
    assert bool(faults) is not whole
    assert whole or "key holder" in faults[0]


async def _turn(
    service: Service, real: Any, off: dict[str, timedelta], patch: pytest.MonkeyPatch
) -> None:
    await set_clock(service.vault, off["database"])
    patch.setattr(clocks, "service_now", lambda: years.now() + off["service"])
    patch.setattr(service.vault.ring, "today", lambda: POLICY.day_of(years.now() + off["holder"]))

    async def clock() -> datetime:
        return years.now() + off["store"]

    patch.setattr(service.vault.objects, "_faults", {"clock": clock})


async def test_nothing_is_erased_early_whichever_clocks_are_wrong(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, later in (("half", 0.5), ("twelve", 12), ("late", 24 * 200)):
        await upload(service, name, started_at=a_year_ago(hours=later))
    broken: Any = Faulty(service.vault.objects)
    service.vault = replace(service.vault, objects=broken)
    for names, one, other in wrong():
        if one != other:
            continue
        off = offs(names, one, other)
        with monkeypatch.context() as patch:
            await _turn(service, broken, off, patch)
            report = await service.erase()
        assert (report.erased, report.failed) == (0, 0), (names, one)
        if {*names} != {"holder"} or abs(one) != timedelta(hours=1):
            assert bool(report.stopped) is (abs(one) > clocks.APART), (names, one, report.stopped)
    assert [row["state"] for row in await service.rows()] == ["stored"] * 3
    await set_clock(service.vault, timedelta(minutes=31))
    monkeypatch.setattr(clocks, "service_now", lambda: years.now() + timedelta(minutes=31))

    async def ahead() -> datetime:
        return years.now() + timedelta(minutes=31)

    monkeypatch.setattr(broken, "_faults", {"clock": ahead})
    assert (await service.erase()).erased == 1


async def test_a_clock_that_is_right_is_marked_whatever_else_stops_the_erasing(
    service: Service,
) -> None:
    """Or what is mended after two days would be a clock that leapt."""
    async with connection(service.vault.pool) as lent:
        await clocks.hold(lent, "somebody has to look")
        await lent.execute("UPDATE archive SET clock_mark = archive_now() - interval '47 hours'")
        before = await lent.fetchval("SELECT clock_mark FROM archive")
    assert (await service.erase()).stopped == "somebody has to look"
    async with connection(service.vault.pool) as lent:
        row = await lent.fetchrow("SELECT clock_mark, hold FROM archive")
    assert row is not None
    assert row["clock_mark"] - before > timedelta(hours=46)
    assert row["hold"] == "somebody has to look"


async def test_a_hold_stops_until_it_is_released_through_today(service: Service) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=30))
    today = POLICY.day_of(years.now() + timedelta(seconds=30))
    # A release that was there before does not reach what comes after it.
    await release(owned(service.vault), today)
    async with connection(service.vault.pool) as lent:
        for _ in range(2):
            await clocks.hold(lent, "the database was restored")
    report = await service.erase()
    assert (report.erased, report.stopped) == (0, "the database was restored")
    ready = await (await service.operate("/readyz", token=None)).json()
    assert ready["checks"]["fuse"] == "the database was restored"
    assert (await service.night()).as_json()["stopped"] == "the database was restored"
    await release(owned(service.vault), today - timedelta(days=1))
    report = await service.erase()
    assert report.erased == 0
    assert report.stopped.startswith("the database was restored; released through")
    await release(owned(service.vault), today)
    report = await service.erase()
    assert (report.erased, report.stopped) == (1, "")
    assert [act for act, _ in await service.acts()].count("fuse.held") == 1


async def _answers(service: Service) -> list[int]:
    """What those are told who bring a call of half an hour ago, or its record, in each way."""
    audio, fields = tone(), query(started_at=(years.now() - timedelta(minutes=30)).isoformat())
    said = {**fields, "call_id": "in a form"}
    record = {"call_id": "recorded", "started_at": fields["started_at"], "duration": 60}
    with_json = {"Content-Type": "application/json"}
    return [
        (await service.put("whole", audio, fields)).status,
        (await service.form([("metadata", json.dumps(said)), ("audio", audio)])).status,
        (await service.post("/v1/cdr", json.dumps([record]).encode(), with_json)).status,
    ]


@pytest.mark.parametrize("seen_by", ["the mark", "the service"])
async def test_by_a_clock_that_was_put_back_no_call_is_refused_for_good(
    service: Service, monkeypatch: pytest.MonkeyPatch, seen_by: str
) -> None:
    """Where one machine has all clocks its mark alone tells; of another one the service's does,
    also when the database's has come as far as its mark again.
    """
    back = timedelta(hours=-1)
    if seen_by == "the mark":
        await clocks.mark(service.vault, whole=True)
        monkeypatch.setattr(clocks, "service_now", lambda: years.now() + back)
    await service.turn_clock(back)
    assert await _answers(service) == [503, 503, 503]
    wrong = await service.put("c", tone(), query(call_type="chat"))
    await problem(wrong, 422, "invalid")
    monkeypatch.setattr(clocks, "service_now", years.now)
    await service.turn_clock(timedelta())
    assert await _answers(service) == [201, 201, 200]


async def test_a_call_that_is_ahead_by_every_clock_is_refused(service: Service) -> None:
    await clocks.mark(service.vault, whole=True)
    ahead = query(started_at=(years.now() + timedelta(minutes=6)).isoformat())
    body = await problem(await service.put("c", tone(), ahead), 422, "invalid")
    assert "ahead" in body["errors"]["started_at"]
