"""When things happen: no night is lost, nothing due waits, nothing spins, and an end is an end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import UnavailableError
from jobs import expiry, nightly, schedule
from jobs.schedule import Schedule, missed
from storage import clocks, database, nights, tree
from storage.keyring import KeyRingError
from storage.release import release
from storage.signer import RewrittenError
from storage.upkeep import mark
from storage.vault import Vault
from tests import timed, years
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection, owned
from tests.services import Faulty, Service
from tests.web.test_listen import upload

CRON = "30 1 * * *"
HELSINKI = ZoneInfo("Europe/Helsinki")
TRIGGER = CronTrigger.from_crontab(CRON, timezone=HELSINKI)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def night_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 1, 30, tzinfo=HELSINKI).astimezone(UTC)


@asynccontextmanager
async def running(vault: Vault) -> AsyncIterator[Schedule]:
    """A schedule whose nights come only when they are made up: today's is noted as done."""
    started = Schedule(vault, CRON)
    await started.start()
    try:
        yield started
    finally:
        await started.stop()


async def test_a_full_key_store_does_not_stop_the_tidying(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the clock is not marked, and in two quiet days the fuse blows for it."""

    def full(*_: object) -> None:
        raise KeyRingError("no space left")

    monkeypatch.setattr(nightly, "make_keys", full)
    with pytest.raises(KeyRingError):
        await schedule.tidy(vault)
    async with connection(vault.pool) as lent:
        assert await lent.fetchval("SELECT clock_mark FROM archive")


async def note_night(vault: Vault) -> None:
    async with connection(vault.pool) as lent:
        await nights.record(lent, await database.now(vault.pool), {})


async def count_nights(vault: Vault) -> int:
    async with connection(vault.pool) as lent:
        return int(await lent.fetchval("SELECT count(*) FROM night"))


async def until(
    true: Callable[[], Awaitable[bool]] | Callable[[], bool], seconds: float = 20
) -> None:
    end = time.monotonic() + seconds
    while not await as_bool(true()):
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.02)


async def as_bool(value: Any) -> bool:
    return bool(await value) if isinstance(value, Awaitable) else bool(value)


moments = st.integers(0, 4 * 366 * 86400).map(lambda later: LONG_AGO + timedelta(seconds=later))


@given(moments, st.integers(0, 5 * 86400 * 1000))
def test_a_night_is_missed_exactly_when_one_was_due_since_the_last(last: datetime, ms: int) -> None:
    now = last + timedelta(milliseconds=ms)
    days = (last.astimezone(HELSINKI).date() + timedelta(days=more) for more in range(7))
    due = any(last + timedelta(seconds=1) <= night_of(day) <= now for day in days)
    assert missed(TRIGGER, last, now) is due


@given(moments, st.lists(st.tuples(st.integers(1, 200_000), st.integers(1, 200_000)), max_size=20))
def test_no_service_that_starts_late_skips_a_night(
    begin: datetime, lives: list[tuple[int, int]]
) -> None:
    """A service that comes and goes: at each of its starts every night before is made up."""
    ran = [begin]
    now = begin
    for down, up in lives:
        now += timedelta(seconds=down)
        if missed(TRIGGER, ran[-1], now):
            ran.append(now)
        end = now + timedelta(seconds=up)
        days = (now.astimezone(HELSINKI).date() + timedelta(days=more) for more in range(5))
        ran += [fire for fire in map(night_of, days) if now < fire <= end]
        start, now = now, end
        due = [fire for day in range(3) for fire in [night_of(start.date() - timedelta(days=day))]]
        latest = max(fire for fire in due if fire <= start)
        assert latest < begin + timedelta(seconds=1) or ran[-1] >= latest - timedelta(seconds=1)


def test_a_night_that_never_ran_is_missed() -> None:
    assert missed(TRIGGER, None, LONG_AGO)


def test_every_date_has_one_night_also_where_the_clock_changes() -> None:
    fired = []
    at: datetime | None = None
    now = datetime(2024, 12, 31, 22, 0, tzinfo=UTC)
    while (at := TRIGGER.get_next_fire_time(at, now)) and at.year < 2032:
        fired.append(at)
        now = at + timedelta(microseconds=1)
    days = [date(2025, 1, 1) + timedelta(days=count) for count in range(len(fired))]
    assert days[-1] == date(2031, 12, 31)
    assert [one.date() for one in fired] == days
    assert {(one.hour, one.minute) for one in fired} == {(1, 30)}
    instants = [one.astimezone(UTC) for one in fired]
    lengths = {after - before for before, after in pairwise(instants)}
    assert lengths == {timedelta(hours=hours) for hours in (23, 24, 25)}


async def test_a_first_start_and_a_missed_night_are_made_up_and_a_done_one_is_not(
    vault: Vault,
) -> None:
    expected = 0

    async def ran() -> bool:
        return await count_nights(vault) == expected

    for _ in range(2):
        expected += 1
        async with running(vault):
            await until(ran)
        # As if it had been two days ago.
        async with connection(vault.pool) as lent:
            await lent.execute("UPDATE night SET ran_at = ran_at - interval '2 days'")
    await note_night(vault)
    async with running(vault):
        await asyncio.sleep(0.5)
    assert await count_nights(vault) == 3


@pytest.mark.parametrize(
    "error", [UnavailableError("away"), KeyRingError("no ring"), ValueError("unforeseen")]
)
async def test_a_night_that_could_not_be_is_tried_again(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real, tries = nightly.run, []

    async def failing(given: Vault) -> nightly.Night:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise error
        return await real(given)

    monkeypatch.setattr(nightly, "run", failing)
    monkeypatch.setattr(schedule, "RETRY", 0.3)

    async def ran() -> bool:
        return await count_nights(vault) == 1

    async with running(vault):
        await until(ran)
        await asyncio.sleep(0.8)
    assert len(tries) == 3
    assert all(after - before >= 0.29 for before, after in pairwise(tries))


async def test_what_is_due_is_erased_at_its_instant(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(hours=1))
    end = (await service.rows())[0]["expires_at"]
    ahead = end - timedelta(seconds=4) - years.now()
    await service.turn_all_clocks(ahead, monkeypatch)
    await note_night(service.vault)

    async def erased() -> bool:
        return [row["state"] for row in await service.rows()] == ["erased"]

    async with running(service.vault):
        await until(erased)
        late = years.now() + ahead - end
    assert timedelta(0) <= late < timedelta(minutes=1)
    assert not await service.holdings()
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        at = await lent.fetchval("SELECT at FROM ledger WHERE act = 'erased'")
    assert timedelta(0) <= at - end < timedelta(minutes=1)


async def test_a_database_that_is_put_back_under_a_service_ends_its_work(service: Service) -> None:
    await note_night(service.vault)
    await upload(service, "c1")
    await tree.checkpoint(service.vault)
    async with running(service.vault) as schedule:
        await asyncio.sleep(1.5)
        assert not schedule.rewritten.is_set()
        async with connection(service.vault.pool) as lent:
            await lent.execute("UPDATE ledger_head SET size = size - 1")
        await asyncio.wait_for(schedule.rewritten.wait(), 60)


async def test_the_end_waits_for_what_is_running_and_lets_nothing_more_begin(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await note_night(vault)
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), []
    started = 0

    async def slow(_: Vault) -> bool:
        nonlocal started
        started += 1
        begun.set()
        await may_end.wait()
        ended.append(time.monotonic())
        return True

    monkeypatch.setattr(expiry, "run_if_due", slow)
    monkeypatch.setattr(schedule, "PULSE", 0.02)
    running_one = Schedule(vault, CRON)
    await running_one.start()
    await asyncio.wait_for(begun.wait(), 10)
    stopping = asyncio.create_task(running_one.stop())
    await asyncio.sleep(0.2)
    assert not stopping.done()
    may_end.set()
    await asyncio.wait_for(stopping, 5)
    assert len(ended) == started == 1
    await asyncio.sleep(0.2)
    assert started == 1


async def test_the_end_breaks_off_what_takes_too_long(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night, or a store that hangs: a supervisor would kill the service before its end."""
    begun, broken = asyncio.Event(), asyncio.Event()

    async def endless(_: Vault) -> nightly.Night:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            broken.set()
        raise AssertionError

    monkeypatch.setattr(nightly, "run", endless)
    monkeypatch.setattr(schedule, "END", 0.3)
    running_one = Schedule(vault, CRON)
    await running_one.start()
    await asyncio.wait_for(begun.wait(), 10)
    await asyncio.wait_for(running_one.stop(), 5)
    assert broken.is_set()


async def test_a_clock_that_is_put_back_holds_nothing_up(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await note_night(vault)
    looks = 0

    async def look(_: Vault) -> bool:
        nonlocal looks
        looks += 1
        return True

    off = timedelta()

    class Put(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + off

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Put)
    monkeypatch.setattr(schedule, "PULSE", 0.02)
    monkeypatch.setattr(expiry, "run_if_due", look)
    async with running(vault):
        await until(lambda: looks > 2)
        off, seen = timedelta(hours=-1), looks
        await until(lambda: looks > seen + 2)


async def test_a_night_that_somebody_else_has_done_is_not_done_again(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "RETRY", 0.05)
    async with running(vault):

        async def ran() -> bool:
            return await count_nights(vault) > 0

        await until(ran)
        await asyncio.sleep(0.5)
    assert await count_nights(vault) == 1


async def test_a_night_whose_time_the_clock_jumped_over_is_made_up(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "RETRY", 0.05)
    await note_night(vault)
    async with running(vault):
        async with connection(vault.pool) as lent:
            await lent.execute("UPDATE night SET ran_at = ran_at - interval '2 days'")

        async def ran() -> bool:
            return await count_nights(vault) == 2

        await until(ran)


async def test_the_watch_goes_on_whatever_it_meets(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no jobs run it alone sees that the database was put back."""
    met: list[Exception] = [LookupError("a tile is missing"), RewrittenError("put back")]

    async def agree(_: Vault) -> None:
        if met:
            raise met.pop(0)

    monkeypatch.setattr(schedule, "WATCH", 0.02)
    monkeypatch.setattr(schedule.tree, "agree", agree)
    rewritten = asyncio.Event()
    watching = asyncio.create_task(schedule.watch(vault, rewritten))
    await asyncio.wait_for(rewritten.wait(), 5)
    watching.cancel()


async def test_the_watch_sees_that_a_standby_took_over(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schedule.tidy(vault)
    monkeypatch.setattr(schedule, "WATCH", 0.02)
    rewritten = asyncio.Event()
    watching = asyncio.create_task(schedule.watch(vault, rewritten))
    await asyncio.sleep(0.5)
    assert not rewritten.is_set()
    path = vault.signer.directory / mark.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "timeline": "00000007"}))
    await asyncio.wait_for(rewritten.wait(), 10)
    watching.cancel()


async def test_reading_back_is_due_each_minute_and_is_broken_off_at_the_end(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await note_night(vault)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(_: Vault) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(schedule.verify, "run", slow)
    assert schedule.VERIFY == 60
    monkeypatch.setattr(schedule, "VERIFY", 0.1)
    running_one = Schedule(vault, CRON)
    await running_one.start()
    await asyncio.wait_for(begun.wait(), 10)
    await asyncio.wait_for(running_one.stop(), 5)
    assert ended.is_set()


async def test_a_stop_before_the_start_and_a_second_one_are_harmless(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await note_night(vault)
    looks = 0

    async def look(_: Vault) -> bool:
        nonlocal looks
        looks += 1
        return True

    monkeypatch.setattr(schedule, "PULSE", 0.02)
    monkeypatch.setattr(schedule.expiry, "run_if_due", look)
    idle = Schedule(vault, CRON)
    await idle.stop()
    await idle.start()
    async with asyncio.timeout(5):
        while not looks:
            await asyncio.sleep(0.02)
    await idle.stop()
    await idle.stop()
    seen = looks
    await asyncio.sleep(0.2)
    assert looks == seen


async def test_while_the_store_is_away_the_pulse_rests_and_then_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(hours=1))
    await service.turn_all_clocks(timedelta(hours=1, seconds=1), monkeypatch)
    await note_night(service.vault)
    asked: list[float] = []
    real = service.vault.objects
    away = True

    async def clock() -> datetime:
        asked.append(time.monotonic())
        if away:
            raise UnavailableError("The object store is away.")
        return await real.clock()

    flaky: Any = Faulty(real, clock=clock)
    monkeypatch.setattr(schedule, "PULSE", 0.02)
    monkeypatch.setattr(schedule, "REST", 1.0)

    async def erased() -> bool:
        return [row["state"] for row in await service.rows()] == ["erased"]

    async with running(replace(service.vault, objects=flaky)):
        await until(lambda: len(asked) >= 3)
        away = False
        # It rests from when it began to look, and asks for the clock a moment later.
        assert all(after - before > 0.5 for before, after in pairwise([*asked]))
        await until(erased)
    assert not await service.holdings()


async def test_while_the_store_keeps_what_it_should_erase_the_pulse_rests(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(hours=1))
    await service.turn_all_clocks(timedelta(hours=1, seconds=1), monkeypatch)
    await note_night(service.vault)
    removals: list[int] = []

    async def refuse(held: list[Any]) -> list[Any]:
        removals.append(len(held))
        return held

    stubborn: Any = Faulty(service.vault.objects, remove=refuse)
    monkeypatch.setattr(schedule, "PULSE", 0.02)

    async with running(replace(service.vault, objects=stubborn)):
        await until(lambda: len(removals) >= 2)
        await asyncio.sleep(1)
    # Once by the name in the row, once what the list still shows.
    assert len(removals) == 2
    assert [row["state"] for row in await service.rows()] == ["erasing"]


async def test_a_pulse_that_fails_as_nobody_foresaw_goes_on_and_does_not_spin(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await note_night(vault)
    tries, number = list[float](), "".join(["040", "1234567"])

    async def broken(_: Vault) -> bool:
        tries.append(time.monotonic())
        raise ValueError(number)

    monkeypatch.setattr(expiry, "run_if_due", broken)
    monkeypatch.setattr(schedule, "PULSE", 0.02)
    monkeypatch.setattr(schedule, "REST", 0.4)
    async with running(vault):
        await until(lambda: len(tries) >= 3)
    assert all(after - before > 0.2 for before, after in pairwise(tries))
    assert "ValueError" in caplog.text
    assert number not in caplog.text  # drivers repeat values in their messages


async def test_the_tidying_makes_keys_collects_and_erases(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(minutes=30))
    await upload(service, "kept")
    await service.turn_all_clocks(timedelta(minutes=31), monkeypatch)
    vault = service.vault
    async with connection(vault.pool) as lent:
        await lent.execute("UPDATE archive SET clock_mark = archive_now() - interval '47 hours'")
        before = await lent.fetchval("SELECT clock_mark FROM archive")
    assert await schedule.tidy(vault)
    assert sorted(row["state"] for row in await service.rows()) == ["erased", "stored"]
    async with connection(vault.pool) as lent:
        assert await lent.fetchval("SELECT clock_mark FROM archive") - before > timedelta(hours=46)


async def test_what_needs_no_store_is_forgotten_while_it_is_away(service: Service) -> None:
    away: Any = Faulty(service.vault.objects, clock=_away, holdings=_away)
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "INSERT INTO cdr (source, call_hash, hashes, started_at, ended_at, expires_at,"
            " expires_on, received_at, actor, details) SELECT 'pbx', sha256('x'), '{}', t, t, t,"
            " t::date, t, 'key', '' FROM (SELECT archive_now() - interval '1 minute') AS past(t)"
        )
    with pytest.raises(UnavailableError):
        await schedule.tidy(replace(service.vault, objects=away))
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM cdr") == 0


async def _timed(service: Service) -> set[str]:
    return {kind for kind, _ in await timed.there(service)}


@pytest.mark.parametrize("leap", [timedelta(days=1), timedelta(days=365)])
async def test_a_clock_that_leaps_ends_nothing_that_it_alone_says_is_over(
    service: Service, leap: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notice that was answered is lost for good when it goes: nobody sends it again."""
    await timed.plant(service, a_year_ago(minutes=50), "c")
    whole = await timed.there(service)
    assert {kind for kind, _ in whole} == timed.KINDS
    await service.turn_clock(leap)
    await schedule.tidy(service.vault)
    with suppress(KeyRingError):  # a key of a day that is long over, by the holder's clock
        await service.night()
    assert await timed.there(service) == whole
    await service.turn_all_clocks(timedelta(minutes=55), monkeypatch)
    await schedule.tidy(service.vault)
    assert await timed.there(service) == {}


async def test_a_night_by_a_clock_that_leapt_is_none_once_the_clock_is_right(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until that clock is there again, a year later, no night would be missed, and days that are
    not over would be closed.
    """
    vault = service.vault
    await service.turn_clock(timedelta(days=365))
    with suppress(KeyRingError):
        await service.night()
    await note_night(vault)
    await service.turn_clock(timedelta())
    async with connection(vault.pool) as lent:
        assert await nights.last(lent) is None
    assert await schedule.tidy(vault)
    await note_night(vault)
    async with connection(vault.pool) as lent:
        last = await nights.last(lent)
    assert last is not None
    assert missed(TRIGGER, last, last + timedelta(days=1))


@pytest.mark.parametrize("store", ["away", "wrong"])
async def test_a_store_that_is_away_vouches_for_no_clock_and_doubts_none(
    service: Service, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await timed.plant(service, a_year_ago(minutes=50), "c")
    await service.turn_all_clocks(timedelta(minutes=55), monkeypatch)
    clock = _away if store == "away" else _a_year_behind
    asked: Any = Faulty(service.vault.objects, clock=clock)
    with suppress(UnavailableError):  # of the expiry, which asks the store as well
        await schedule.tidy(replace(service.vault, objects=asked))
    assert await _timed(service) == (set() if store == "away" else timed.KINDS)


async def _a_year_behind() -> datetime:
    return datetime.now(UTC) - timedelta(days=365)


async def test_people_who_release_the_fuse_through_today_believe_the_clock(
    service: Service,
) -> None:
    await timed.plant(service, a_year_ago(minutes=50), "c")
    await service.turn_clock(timedelta(minutes=55))
    today = service.vault.policy.day_of(await database.now(service.vault.pool))
    await release(owned(service.vault), today - timedelta(days=1))
    await schedule.tidy(service.vault)
    assert await _timed(service) == timed.KINDS
    await release(owned(service.vault), today)
    await schedule.tidy(service.vault)
    assert await _timed(service) == set()


async def test_what_holds_the_erasing_of_recordings_holds_nothing_else(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference in the frozen sets says nothing of a notice; a clock does."""
    await timed.plant(service, a_year_ago(minutes=50), "c")
    async with connection(service.vault.pool) as lent:
        await clocks.hold(lent, "somebody has to look")
    await service.turn_all_clocks(timedelta(minutes=55), monkeypatch)
    await schedule.tidy(service.vault)
    assert [row["state"] for row in await service.rows()] == ["stored"]
    assert await _timed(service) == set()


async def test_while_the_clock_is_in_doubt_what_else_ends_an_export_ends_it(
    service: Service,
) -> None:
    await timed.plant(service, a_year_ago(minutes=50), "c")
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE export SET ended = 'withdrawn'")
    await service.turn_clock(timedelta(days=365))
    await schedule.tidy(service.vault)
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT ended FROM export WHERE erased_at IS NOT NULL") == (
            "withdrawn"
        )


async def test_a_night_without_a_store_begins_nothing(service: Service) -> None:
    """It is tried again each minute: each time everything would be frozen anew."""
    away: Any = Faulty(service.vault.objects, clock=_away)
    with pytest.raises(UnavailableError):
        await nightly.run(replace(service.vault, objects=away))
    assert "days.frozen" not in [act for act, _ in await service.acts()]


async def test_records_that_cannot_be_matched_hold_up_no_night(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nightly.cdrs, "match", _away)
    await nightly.run(service.vault)
    assert "records of calls were not all matched" in caplog.text
    assert "night.done" in [act for act, _ in await service.acts()]


async def _away(*_: object, **__: object) -> None:
    raise UnavailableError("It is away.")
