"""Erasing at the instant: what is gone, what is left, and what stops it."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from hashlib import md5
from typing import Any

import pytest

from archive.errors import UnavailableError
from jobs import expiry, nightly
from storage import clocks, ledger, removal
from storage.four_eyes import RefusedError
from storage.keyring import NoDayKeyError
from storage.release import release
from storage.sealing import Seal
from storage.vault import Vault
from tests import years
from tests.roles import connection, owned
from tests.services import Faulty, Service
from tests.sounds import tone
from tests.web.test_listen import found, upload
from tests.web.test_upload import problem

TOMBSTONE = {"id", "source", "call_type", "expires_on", "state", "epoch"}


def when_over(day: date) -> timedelta:
    """How far the clocks are to be turned so that this day is just over, at any time of a day."""
    return datetime.combine(day + timedelta(days=1), time(0, 10), years.HELSINKI) - years.now()


def a_year_ago(**later: float) -> str:
    """A moment whose year ends that much from now, on the calendar of Helsinki."""
    return years.due_in(**later).isoformat()


async def test_at_the_instant_the_recording_is_gone_everywhere(service: Service) -> None:
    kept = await upload(service, "kept", agent="Bo")
    gone = await upload(service, "gone", agent="Anna", started_at=a_year_ago(seconds=40))
    path = f"/v1/recordings/{gone}"
    assert (await service.get(path + "/audio")).status == 200
    await service.turn_clock(timedelta(seconds=30))
    assert (await service.erase()).erased == 0
    assert (await service.get(path)).status == 200
    await service.turn_clock(timedelta(seconds=41))
    # Reads are barred by the clock alone, before any job has run.
    for part in ("", "/audio", "/waveform", "/audio?format=mp3"):
        await problem(await service.get(path + part), 410, "gone")
    assert await found(service) == ["kept"]
    assert await found(service, agent="Anna") == []
    report = await service.erase()
    assert (report.erased, report.failed, report.stopped) == (1, 0, "")
    await problem(await service.get(path), 410, "gone")
    rows = {str(row["id"]): row for row in await service.rows()}
    assert rows[kept]["state"] == "stored"
    assert {name for name, value in rows[gone].items() if value is not None} == TOMBSTONE
    assert all(kept in holding.key for holding in await service.holdings())
    async with connection(service.vault.pool) as lent:
        owners = await lent.fetch("SELECT DISTINCT recording::text FROM term")
    assert [row["recording"] for row in owners] == [kept]
    acts = [act for act, recording in await service.acts() if recording == gone]
    assert acts == ["stored", "listened", "viewed", "erased"]


async def test_erasing_again_erases_nothing_twice(service: Service) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=30))
    assert (await service.erase()).erased == 1
    assert (await service.erase()).erased == 0
    assert [act for act, _ in await service.acts()].count("erased") == 1


async def test_a_call_that_was_erased_is_not_taken_in_again(service: Service) -> None:
    moment = a_year_ago(seconds=20)
    await upload(service, "gone", started_at=moment)
    await service.turn_clock(timedelta(seconds=30))
    params = {"call_type": "fault_report", "started_at": moment}
    await problem(await service.put("gone", tone(), params), 422, "invalid")
    await service.erase()
    await problem(await service.put("gone", tone(), params), 422, "invalid")


async def _nothing(*_: object) -> list[object]:
    return []


async def _away(*_: object) -> None:
    raise UnavailableError("The object store is away.")


@pytest.mark.parametrize(
    ("fault", "still_there", "unknown"),
    [({"remove": _nothing}, 1, 0), ({"holdings": _away}, 0, 1), ({"remove": _away}, 0, 1)],
)
async def test_what_the_store_does_not_erase_is_never_called_erased(
    service: Service, fault: dict[str, Any], still_there: int, unknown: int
) -> None:
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=30))
    vault = service.vault
    broken: Any = Faulty(vault.objects, **fault)
    service.vault = replace(vault, objects=broken)
    report = await service.erase()
    assert (report.erased, report.still_there, report.unknown) == (0, still_there, unknown)
    assert "erased" not in [act for act, _ in await service.acts()]
    await problem(await service.get(f"/v1/recordings/{gone}"), 410, "gone")
    service.vault = vault
    if still_there:
        # What the store would not erase is left alone until the lease is over.
        assert (await service.erase()).erased == 0
        await service.end_leases()
    assert (await service.erase()).erased == 1
    assert not await service.holdings()


async def test_a_worker_whose_lease_is_over_cannot_finish(service: Service) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=30))
    slow = await removal.claim(service.vault)
    await service.end_leases()
    quick = await removal.claim(service.vault)
    assert [claim.id for claim in slow] == [claim.id for claim in quick]
    assert (await removal.erase(service.vault, slow)).erased == []
    assert len((await removal.erase(service.vault, quick)).erased) == 1
    assert [act for act, _ in await service.acts()].count("erased") == 1


async def test_what_is_due_is_claimed_in_batches_that_grow(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that is killed again and again finishes small ones, and never a large one."""
    asked: list[int] = []
    claim = removal.claim

    async def counted(vault: Vault, through: date | None, limit: int) -> list[removal.Claim]:
        asked.append(limit)
        return await claim(vault, through, limit)

    monkeypatch.setattr(removal, "claim", counted)
    monkeypatch.setattr(removal, "BATCH", 4)
    monkeypatch.setattr(expiry, "FIRST", 1)
    await several_due(service, 12)
    assert (await service.erase()).erased == 12
    assert asked == [1, 4, 4, 4]


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each recording is a batch of its own."""
    monkeypatch.setattr(removal, "BATCH", 1)
    monkeypatch.setattr(expiry, "FIRST", 1)


async def several_due(service: Service, count: int) -> None:
    for index in range(count):
        await upload(service, f"c{index}", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=30))


async def test_while_one_batch_is_erased_the_next_is_and_no_third_is_claimed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one(monkeypatch)
    await several_due(service, 5)
    two_at_once = asyncio.Event()
    erase = removal.erase
    claimed: list[int] = []

    async def slow(*args: Any) -> removal.Outcome:
        rows = await service.rows()
        claimed.append(sum(row["state"] == "erasing" for row in rows))
        if claimed[-1] == 2:
            two_at_once.set()
        await asyncio.wait_for(two_at_once.wait(), 10)
        return await erase(*args)

    monkeypatch.setattr(removal, "erase", slow)
    assert (await service.erase()).erased == 5
    assert max(claimed) == 2
    assert [act for act, _ in await service.acts()].count("erased") == 5


async def test_a_store_that_is_away_for_the_next_look_breaks_no_batch_off(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what is claimed would wait for the end of its lease, with nothing due meanwhile."""
    one_by_one(monkeypatch)
    await several_due(service, 3)
    objects = service.vault.objects
    looks = 0

    async def clock() -> datetime:
        nonlocal looks
        if (looks := looks + 1) == 2:
            raise UnavailableError("the store is away")
        return await objects.clock()

    faulty: Any = Faulty(objects, clock=clock)
    with pytest.raises(UnavailableError):
        await expiry.run(replace(service.vault, objects=faulty))
    assert [row["state"] for row in await service.rows()].count("erased") == 1
    assert (await service.erase()).erased == 2


async def test_a_batch_that_the_database_breaks_off_is_soon_tried_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one(monkeypatch)
    await several_due(service, 3)

    async def late(*_: Any, **__: Any) -> list[removal.Claim]:
        raise UnavailableError("The database took too long.")

    with monkeypatch.context() as fault:
        fault.setattr(removal, "_finish", late)
        report = await service.erase()
    assert report.erased == 0
    assert report.unknown in (1, 2)
    assert (await service.erase()).erased == 3
    assert [act for act, _ in await service.acts()].count("erased") == 3


async def test_two_workers_share_the_work_and_never_the_same_recording(service: Service) -> None:
    await several_due(service, 6)
    reports = await asyncio.gather(service.erase(), service.erase())
    assert sum(report.erased for report in reports) == 6
    assert [act for act, _ in await service.acts()].count("erased") == 6


async def test_the_night_closes_the_day_and_destroys_its_key(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=20))
    row = (await service.rows())[0]
    day, header = row["expires_on"], row["header"]
    await service.vault.objects.put(f"{day}/stray/1", [b"x"], 1, md5(b"x").digest(), 10)
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    night = await service.night()
    assert night.expiry.erased == 1
    assert night.closings == []
    assert Seal.unwrap(header, service.vault.ring.day_key(day))
    await service.turn_all_clocks(when_over(day), monkeypatch)
    night = await service.night()
    assert [(closing.day, closing.closed, closing.strays) for closing in night.closings] == [
        (day, True, 1)
    ]
    # Whoever kept a copy of the row and of the object has noise from now on.
    with pytest.raises(NoDayKeyError):
        service.vault.ring.day_key(day)
    assert not await service.holdings()
    acts = [act for act, recording in await service.acts() if recording in (gone, None)]
    assert acts[-4:] == ["days.frozen", "day.closed", "reconciled", "night.done"]
    async with connection(service.vault.pool) as lent:
        closed = [one for one in await ledger.page(lent, 0, 1000) if one.act == "day.closed"]
    receipt = closed[0].facts
    assert (receipt["day"], receipt["holder"]) == (day.isoformat(), service.vault.ring.id)
    destroyed = service.vault.ring.destroyed()[day]
    assert receipt["key_destroyed_at"] == f"{destroyed:%Y-%m-%dT%H:%M:%S.%fZ}"
    assert (await service.night()).closings == []
    page = await (await service.operate("/v1/expiry")).json()
    assert [(one["day"], one["due"], one["erased"]) for one in page["days"]] == [
        (day.isoformat(), 0, 1)
    ]
    assert page["days"][0]["closed_at"]
    assert (page["overdue"], page["oldest_overdue"]) == (0, None)


async def test_a_day_with_anything_left_is_not_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day = (await service.rows())[0]["expires_on"]
    await service.turn_all_clocks(when_over(day), monkeypatch)
    working = service.vault
    broken: Any = Faulty(working.objects, remove=_nothing)
    service.vault = replace(working, objects=broken)
    closing = (await service.night()).closings[0]
    assert (closing.closed, closing.why) == (False, "1 recordings of it are not erased yet")
    assert service.vault.ring.day_key(day)
    service.vault = working
    await service.end_leases()
    assert (await service.night()).closings[0].closed


async def test_a_day_that_the_night_left_open_is_closed_soon_after(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day = (await service.rows())[0]["expires_on"]
    assert await nightly.catch_up(service.vault)
    await service.turn_all_clocks(when_over(day), monkeypatch)
    # Before a night has come by, nothing is closed: the night is for that.
    assert await nightly.catch_up(service.vault)
    assert day not in service.vault.ring.destroyed()
    claims = await removal.claim(service.vault)
    assert not (await service.night()).closings[0].closed
    assert not await nightly.catch_up(service.vault)
    assert len((await removal.erase(service.vault, claims)).erased) == 1
    assert await nightly.catch_up(service.vault)
    assert day in service.vault.ring.destroyed()
    assert [act for act, _ in await service.acts()].count("day.closed") == 1


async def test_a_day_whose_canary_lives_is_not_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day = (await service.rows())[0]["expires_on"]
    await service.turn_all_clocks(when_over(day), monkeypatch)
    working = service.vault
    lying: Any = Faulty(working.ring, destroy=lambda day: datetime.now(UTC))
    service.vault = replace(working, ring=lying)
    (closing,) = (await service.night()).closings
    assert not closing.closed
    assert "still opens" in closing.why
    assert ("day.closed", None) not in await service.acts()
    service.vault = working
    assert (await service.night()).closings[0].closed
    assert day in service.vault.ring.destroyed()


async def test_the_fuse_stops_erasing_and_a_person_lets_it_go_on(service: Service) -> None:
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=20))
    assert (await service.erase()).stopped == ""
    await service.turn_clock(timedelta(hours=49))
    report = await service.erase()
    assert report.erased == 0
    assert "past its last mark" in report.stopped
    assert "apart" in report.stopped
    await problem(await service.get(f"/v1/recordings/{gone}"), 410, "gone")
    assert await service.holdings()
    ready = await service.operate("/readyz", token=None)
    assert ready.status == 503
    assert "apart" in (await ready.json())["checks"]["fuse"]
    async with connection(service.vault.pool) as lent:
        today = service.vault.policy.day_of((await clocks.read(lent)).database)
    with pytest.raises(RefusedError, match="today"):
        await release(owned(service.vault), today + timedelta(days=1))
    # A release of an earlier day does not reach this recording's.
    await release(owned(service.vault), today - timedelta(days=30))
    assert (await service.erase()).erased == 0
    await release(owned(service.vault), today)
    assert (await service.erase()).erased == 1
    assert not await service.holdings()


async def test_what_is_or_will_be_due_is_named_with_its_reason(service: Service) -> None:
    soon = await upload(service, "soon", started_at=a_year_ago(days=2))
    later = await upload(service, "later")
    now = years.now()
    assert await removal.due(service.vault, now) == []
    due = await removal.due(service.vault, now + timedelta(days=3))
    assert [str(one.id) for one in due] == [soon]
    assert "P1Y Europe/Helsinki v1" in due[0].why
    everything = await removal.due(service.vault, now + timedelta(days=400))
    assert [str(one.id) for one in everything] == [soon, later]
