"""Rows against objects: what is told, what is removed, and what is left alone."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, timedelta
from hashlib import md5
from typing import Any
from uuid import UUID, uuid4

import pytest

from storage import recordings, sweep, tree
from storage.holdings import Holding
from storage.signer import SignerError
from storage.upkeep import comparison, listed, mark, reconcile
from storage.upkeep.strays import Why
from tests.jobs.test_expiry import a_year_ago, when_over
from tests.roles import connection
from tests.services import Faulty, Service
from tests.web.test_listen import ago, upload


async def put(service: Service, key: str, body: bytes = b"stray") -> str:
    await service.vault.objects.put(key, [body], len(body), md5(body).digest(), 10)
    return key


async def stored(service: Service, identifier: str) -> tuple[date, str]:
    """The expiry day of a recording, and its object's key."""
    row = next(row for row in await service.rows() if str(row["id"]) == identifier)
    return row["expires_on"], recordings.object_key(row["expires_on"], row["id"], row["attempt"])


async def run(service: Service, *, repair: bool = True) -> reconcile.Report:
    return await reconcile.run(service.vault, repair=repair)


async def keys(service: Service) -> list[str]:
    return sorted(holding.key for holding in await service.holdings())


async def abandon(service: Service, day: date, seconds: int) -> str:
    """An upload that was given up, whose time is over in so many seconds; its object's key."""
    identifier, attempt = uuid4(), uuid4()
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "INSERT INTO recording (id, source, call_type, expires_on, state, lease_until, attempt)"
            " VALUES ($1, 'pbx', 'other', $2, 'abandoned', archive_now() + $3, $4)",
            identifier,
            day,
            timedelta(seconds=seconds),
            attempt,
        )
    return await put(service, recordings.object_key(day, identifier, attempt))


async def test_of_an_archive_that_is_whole_there_is_nothing_to_tell(service: Service) -> None:
    for number in range(3):
        await upload(service, f"kept-{number}", started_at=ago(days=number * 40, hours=1))
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=30))
    await service.erase()
    await tree.checkpoint(service.vault)  # the archive's own objects are nobody's strays
    report = await run(service)
    assert report == reconcile.Report(objects=3, recordings=3)
    assert not report.failed
    assert [act for act, _ in await service.acts()][-1] == "reconciled"


@pytest.mark.parametrize("body", [None, b"short"])
async def test_a_recording_whose_object_is_not_there_whole_is_lost(
    service: Service, body: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    identifier = await upload(service, "c1")
    await upload(service, "c2")
    _, key = await stored(service, identifier)
    await service.vault.objects.remove([Holding(key, "object")])
    if body:
        await put(service, key, body)
    report = await run(service)
    assert (report.recordings, report.lost.count, report.lost.named) == (2, 1, [identifier])
    assert report.failed
    assert identifier in caplog.text
    assert (await service.get(f"/v1/recordings/{identifier}")).status == 200


async def test_what_no_row_names_is_put_on_the_list_and_left_alone(service: Service) -> None:
    day, _ = await stored(service, await upload(service, "c1"))
    strange = [
        await put(service, recordings.object_key(day, uuid4(), uuid4())),
        await put(service, f"{day}/not-one-of-ours"),
        await put(service, "elsewhere/1"),
        await put(service, f"{day}/{str(uuid4()).upper()}/{uuid4()}"),
    ]
    for _ in range(2):
        report = await run(service)
        assert sorted(report.unknown.named) == sorted(strange)
        assert (report.lost.count, report.removed, report.failed) == (0, 0, True)
        assert len(await service.holdings()) == 5


async def test_a_night_keeps_no_name_that_the_archive_did_not_give(service: Service) -> None:
    day, _ = await stored(service, await upload(service, "c1"))
    ours = await put(service, recordings.object_key(day, uuid4(), uuid4()))
    foreign = [await put(service, "rec/+358401234567.wav"), await put(service, f"{day}/+35840")]
    shown = (await service.night()).reconciled.unknown
    assert sorted(shown.named) == sorted([ours, *foreign])
    async with connection(service.vault.pool) as lent:
        report = await lent.fetchval("SELECT report FROM night")
    assert report["reconciled"]["unknown_objects"] == [ours]
    assert report["reconciled"]["unknown"] == 3
    assert "35840" not in json.dumps(report)


async def test_an_object_that_comes_after_its_recording_was_erased_goes(service: Service) -> None:
    identifier = await upload(service, "gone", started_at=a_year_ago(seconds=20))
    _, key = await stored(service, identifier)
    await service.turn_clock(timedelta(seconds=30))
    await service.erase()
    for late in (key, key.rsplit("/", 1)[0] + f"/{uuid4()}"):
        await put(service, late)
    assert (await run(service, repair=False)).due[Why.ERASED] == 2
    assert len(await service.holdings()) == 2
    assert (await run(service)).removed == 2
    assert await service.holdings() == []
    told = [recording for act, recording in await service.acts() if act == "object.removed"]
    assert told == [identifier] * 2
    assert (await run(service)).removed == 0


async def test_what_was_given_up_goes_when_its_time_is_over(service: Service) -> None:
    day, kept = await stored(service, await upload(service, "c1"))
    over, not_yet = await abandon(service, day, -5), await abandon(service, day, 300)
    report = await run(service)
    assert (report.due[Why.ABANDONED], report.removed) == (1, 1)
    assert not report.failed
    assert await keys(service) == sorted([kept, not_yet])
    assert over not in await keys(service)


async def test_what_is_under_way_is_left_alone(service: Service) -> None:
    identifier = await upload(service, "c1", started_at=a_year_ago(seconds=20))
    _, key = await stored(service, identifier)
    await service.turn_clock(timedelta(seconds=30))
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "UPDATE recording SET state = 'erasing', lease_until = archive_now() - interval '1 h'"
        )
    assert await run(service) == reconcile.Report(objects=1)
    assert await keys(service) == [key]


async def test_what_comes_under_a_day_that_is_closed_is_late_and_goes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await upload(service, "kept")
    identifier = await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day, key = await stored(service, identifier)
    await service.turn_all_clocks(when_over(day), monkeypatch)
    await service.night()
    assert day in service.vault.ring.destroyed()
    for late in (key, f"{day}/nobody's", recordings.object_key(day, uuid4(), uuid4())):
        await put(service, late)
    report = await run(service)
    assert (report.due[Why.DAY_CLOSED], report.removed) == (3, 3)
    assert await keys(service) == [(await stored(service, kept))[1]]
    assert not report.failed


async def test_an_upload_in_parts_goes_when_nobody_can_be_sending_it(service: Service) -> None:
    day, key = await stored(service, await upload(service, "c1"))
    bucket = service.vault.objects._bucket
    for name in (recordings.object_key(day, uuid4(), uuid4()), "elsewhere/1"):
        await bucket.call("POST", {"uploads": ""}, key=name)
    assert (await run(service)).due[Why.UNFINISHED] == 0
    real = service.vault.objects

    async def later() -> Any:
        return await real.clock() + timedelta(hours=2)

    turned: Any = Faulty(real, clock=later)
    service.vault = replace(service.vault, objects=turned)
    report = await run(service)
    assert (report.due[Why.UNFINISHED], report.removed) == (1, 1)
    left = [(one.key, one.kind) for one in await real.holdings("")]
    assert left == [(key, "object"), ("elsewhere/1", "upload")]


async def test_a_run_that_would_remove_too_much_removes_nothing(service: Service) -> None:
    day, _ = await stored(service, await upload(service, "c1"))
    for _ in range(reconcile.FEW + 1):
        await abandon(service, day, -5)
    report = await run(service)
    assert report.due[Why.ABANDONED] == reconcile.FEW + 1
    assert (report.removed, report.failed) == (0, True)
    assert "more than the 20" in report.stopped
    assert len(await service.holdings()) == reconcile.FEW + 2
    # A person who knows why may let so many go, and no more.
    assert (await reconcile.run(service.vault, repair=True, most=reconcile.FEW)).removed == 0
    assert (await reconcile.run(service.vault, repair=True, most=100)).removed == reconcile.FEW + 1


async def test_a_run_removes_as_many_as_it_may_by_itself(service: Service) -> None:
    day, _ = await stored(service, await upload(service, "c1"))
    for _ in range(reconcile.FEW + 1):
        await abandon(service, day, -5)
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "DELETE FROM recording WHERE id = (SELECT id FROM recording WHERE state = 'abandoned'"
            " LIMIT 1)"
        )
    assert (await run(service)).removed == reconcile.FEW


async def test_a_difference_of_the_moment_is_not_told(service: Service) -> None:
    """An upload that lands between the look at the rows and the look at the objects; and one whose
    object was listed before it was there.
    """
    await upload(service, "first")
    real = service.vault.objects
    meanwhile: list[str] = []

    async def walk(prefix: str) -> AsyncIterator[Holding]:
        if not meanwhile:
            meanwhile.append(await upload(service, "meanwhile"))
        async for holding in real.walk(prefix):
            yield holding

    turned: Any = Faulty(real, walk=walk)
    vault = replace(service.vault, objects=turned)
    report = await reconcile.run(vault, repair=True)
    assert (report.objects, report.unknown.count, report.lost.count) == (2, 0, 0)

    async def nothing(prefix: str) -> AsyncIterator[Holding]:
        for holding in [holding async for holding in real.walk(prefix)][:0]:
            yield holding

    blind: Any = Faulty(real, walk=nothing)
    report = await reconcile.run(replace(service.vault, objects=blind), repair=True)
    assert (report.recordings, report.objects, report.lost.count) == (2, 0, 0)


async def test_more_than_a_page_of_rows_and_objects(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed, "_PAGE", 2)
    monkeypatch.setattr(comparison, "_ASKED", 2)
    lost = [await upload(service, f"c{number}") for number in range(7)]
    for number, identifier in enumerate(lost):
        day, key = await stored(service, identifier)
        await put(service, recordings.object_key(day, uuid4(), uuid4()))
        if number != 3:
            await service.vault.objects.remove([Holding(key, "object")])
    report = await run(service)
    assert (report.recordings, report.lost.count, report.unknown.count) == (7, 6, 7)
    assert sorted(report.lost.named) == sorted(set(lost) - {lost[3]})


async def late_arrival(service: Service) -> None:
    """Something that a repair would remove."""
    day, _ = await stored(service, await upload(service, "c1"))
    await abandon(service, day, -5)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("system", "4711", "another PostgreSQL"),
        ("written", 1 << 60, "has written less"),
        ("ledger", 1 << 40, "ledger is shorter"),
        ("timeline", "0000000A", "timeline 1 after 10"),
    ],
)
async def test_a_database_that_was_put_back_stops_it_wholly(
    service: Service, field: str, value: object, why: str
) -> None:
    await late_arrival(service)
    await run(service, repair=False)
    path = service.vault.signer.directory / mark.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    before = path.read_text()
    report = await run(service)
    assert why in report.stopped
    assert (report.due[Why.ABANDONED], report.removed, report.failed) == (1, 0, True)
    assert path.read_text() == before, "what was seen last is kept until a person has looked"


async def test_a_ledger_that_was_signed_further_stops_it_wholly(service: Service) -> None:
    await late_arrival(service)
    await tree.checkpoint(service.vault)
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE ledger_head SET size = size - 1")
    report = await run(service)
    assert "archive rebuild" in report.stopped
    assert (report.removed, report.failed) == (0, True)


async def test_a_mark_that_cannot_be_read_stops_it(service: Service) -> None:
    await late_arrival(service)
    path = service.vault.signer.directory / mark.FILE
    path.write_text("not what was written")
    for act in (reconcile.run(service.vault, repair=True), sweep.run(service.vault)):
        with pytest.raises(SignerError, match="cannot be read"):
            await act
    assert len(await service.holdings()) == 2


async def test_the_mark_never_goes_back(service: Service) -> None:
    assert not await mark.gone_back(service.vault)
    first = json.loads((service.vault.signer.directory / mark.FILE).read_text())
    await upload(service, "c1")
    await service.acts()
    assert not await mark.gone_back(service.vault)
    second = json.loads((service.vault.signer.directory / mark.FILE).read_text())
    assert first["system"] == second["system"]
    assert first["written"] < second["written"]
    assert first["ledger"] < second["ledger"]


async def test_an_upload_that_was_stored_is_never_taken_for_one_given_up(service: Service) -> None:
    """The rows of an old database say `abandoned`; its ledger knows better."""
    day, _ = await stored(service, await upload(service, "c1"))
    key = await abandon(service, day, -5)
    identifier = UUID(key.split("/")[1])
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "INSERT INTO ledger_waiting (actor, act, recording) VALUES ('k', 'stored', $1)",
            identifier,
        )
    await service.acts()
    report = await run(service)
    assert (report.due[Why.ABANDONED], report.removed) == (1, 0)
    assert key in await keys(service)
