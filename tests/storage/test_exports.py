"""Making and erasing exports under faults: none is ever half, none outlives what is in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from archive.errors import UnavailableError
from storage import attempts, days, early, export_erasing, export_making, recordings
from storage.keyring import NoDayKeyError
from storage.objects import StoreError
from storage.upkeep import reconcile
from storage.upkeep.strays import Why
from tests.jobs.test_expiry import a_year_ago, one_by_one, when_over
from tests.roles import connection
from tests.services import Faulty, Service
from tests.storage.upkeep.test_reconcile import put
from tests.web.test_exports import asked, fetch, fetched, made, several, stage
from tests.web.test_redaction import redacted, withdraw
from tests.web.test_upload import problem


async def row(service: Service, identifier: str | None = None) -> Any:
    async with connection(service.vault.pool) as lent:
        return await lent.fetchrow(
            "SELECT * FROM export WHERE $1::uuid IS NULL OR id = $1",
            identifier and UUID(identifier),
        )


async def end_lease(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE export SET lease_until = archive_now() - interval '1 second'")


async def of_export(service: Service, identifier: str) -> list[str]:
    return [one.key for one in await service.holdings() if identifier in one.key]


def faulty(service: Service, **faults: Any) -> Any:
    objects: Any = Faulty(service.vault.objects, **faults)
    return replace(service.vault, objects=objects)


async def grant(service: Service, identifier: str) -> None:
    """What two people do (tests/storage/test_early.py)."""
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "INSERT INTO ledger_waiting (actor, act, recording, facts) VALUES ('a',"
            ' \'erasure.granted\', $1, \'{"keys": ["a", "b"]}\')',
            UUID(identifier),
        )


async def test_a_put_that_failed_is_made_once_more_under_another_name(service: Service) -> None:
    identifier = await asked(service, await several(service, 1))
    real, names = service.vault.objects, []

    async def lands_late(key: str, *rest: Any) -> None:
        names.append(key)
        await real.put(key, *rest)
        raise StoreError("timed out, and landed all the same")

    with pytest.raises(UnavailableError):
        await export_making.run(faulty(service, put=lands_late))
    assert await stage(service, identifier) == "making"
    await problem(await fetch(service, identifier), 503, "unavailable")
    assert not await export_making.run(service.vault), "as long as the first may still be at it"
    await end_lease(service)
    assert await export_making.run(service.vault)
    assert len(await of_export(service, identifier)) == 2
    found = await reconcile.run(service.vault, repair=True)
    assert (found.unknown.count, found.lost.count) == (0, 0)
    assert (found.due[Why.EXPORT], found.removed) == (1, 1)
    assert names[0] not in await of_export(service, identifier)
    await fetched(service, identifier)


async def test_a_maker_who_was_too_slow_makes_nothing(service: Service) -> None:
    identifier = await asked(service, await several(service, 1))
    real = service.vault.objects

    async def slow(*args: Any) -> None:
        await end_lease(service)
        assert await export_making.run(service.vault), "another one makes it meanwhile"
        await real.put(*args)

    assert await export_making.run(faulty(service, put=slow))
    found = await row(service)
    assert found["epoch"] == 2
    await fetched(service, identifier)
    key = recordings.object_key(found["expires_on"], found["id"], found["attempt"])
    assert key in await of_export(service, identifier)


async def test_what_is_ended_while_it_is_made_is_not_made(service: Service) -> None:
    identifier = await asked(service, await several(service, 1))
    real = service.vault.objects

    async def ended(*args: Any) -> None:
        url = f"{service.retrieval}/v1/exports/{identifier}"
        assert (await service.ask("DELETE", url, "supervisor")).status == 204
        # Its maker may still be sending: what is erased now could come again.
        assert await export_erasing.run(service.vault) == 0
        await real.put(*args)

    assert await export_making.run(faulty(service, put=ended))
    assert (await row(service))["made_at"] is None
    assert await export_erasing.run(service.vault) == 0
    await end_lease(service)
    assert await export_erasing.run(service.vault) == 1
    assert await of_export(service, identifier) == []


async def test_a_recording_waits_for_the_export_that_is_just_being_made(service: Service) -> None:
    """Or the ledger would tell of it as erased while a copy is on its way to the store."""
    ids = await several(service, 2)
    identifier = await asked(service, ids)
    real = service.vault.objects

    async def granted(*args: Any) -> None:
        await grant(service, ids[0])
        outcome = await early.run(service.vault)
        assert (outcome.erased, outcome.failed) == ([], 1)
        await real.put(*args)

    assert await export_making.run(faulty(service, put=granted))
    await problem(await fetch(service, identifier), 410, "gone")
    await end_lease(service)
    assert len((await early.run(service.vault)).erased) == 1
    assert await stage(service, identifier) == "erased"
    assert await of_export(service, identifier) == []


async def test_one_that_holds_what_is_in_several_batches_holds_none_of_them_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are removed at once; an export goes by one of them only."""
    one_by_one(monkeypatch)
    ids = await several(service, 4, started_at=a_year_ago(hours=1))
    await made(service, ids)
    await service.turn_all_clocks(timedelta(hours=2), monkeypatch)
    gone = attempts.gone

    async def slow(*args: Any) -> bool:
        await asyncio.sleep(0.5)
        return await gone(*args)

    monkeypatch.setattr(attempts, "gone", slow)
    report = await service.erase()
    assert (report.erased, report.failed) == (4, 0)


async def test_what_is_damaged_is_not_exported(service: Service) -> None:
    ids = await several(service, 2)
    identifier = await asked(service, ids)
    real = service.vault.objects

    @asynccontextmanager
    async def rotten(key: str, start: int, stop: int) -> AsyncIterator[Any]:
        async def bent(pieces: Any) -> AsyncIterator[bytes]:
            async for piece in pieces:
                yield bytes([piece[0] ^ (ids[1] in key)]) + piece[1:]

        async with real.get(key, start, stop) as pieces:
            yield bent(pieces)

    assert await export_making.run(faulty(service, get=rotten))
    body = await (await service.get(f"/v1/exports/{identifier}")).json()
    assert (body["stage"], body["ended"]) == ("over", "damaged")
    assert await export_erasing.run(service.vault) == 1


async def test_an_export_is_not_erased_before_the_store_says_so(service: Service) -> None:
    identifier = await made(service, await several(service, 1))
    await service.ask("DELETE", f"{service.retrieval}/v1/exports/{identifier}", "supervisor")

    async def away(*_: Any) -> Any:
        raise StoreError("away")

    async def nothing(doomed: Any) -> Any:
        return doomed

    for fault in ({"holdings": away}, {"remove": nothing}):
        assert await export_erasing.run(faulty(service, **fault)) == 0
        assert await stage(service, identifier) == "over"
    assert await export_erasing.run(service.vault) == 1
    assert await of_export(service, identifier) == []


async def test_an_export_of_what_became_silent_is_erased(service: Service) -> None:
    """Nobody could fetch it any more, and what is in it is not to be heard."""
    ids = await several(service, 2)
    before = await made(service, ids)
    assert await export_erasing.run(service.vault) == 0
    await redacted(service, ids[1], [{"start": 100, "stop": 200}])
    after = await made(service, ids)
    assert await export_erasing.run(service.vault) == 1
    assert [await stage(service, each) for each in (before, after)] == ["erased", "ready"]
    assert (await row(service, before))["ended"] == "changed"
    assert await of_export(service, before) == []
    assert (await withdraw(service, ids[1])).status == 204
    assert await export_erasing.run(service.vault) == 1
    assert await stage(service, after) == "erased"


async def test_a_day_is_closed_once_its_exports_are_erased_and_takes_their_key(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await made(service, await several(service, 1))
    day = (await row(service))["expires_on"]
    await service.turn_all_clocks(when_over(day), monkeypatch)
    today = day + timedelta(days=1)
    closings = await days.close_through(service.vault, day, today)
    last = closings[-1]
    assert (last.day, last.closed) == (day, False)
    assert "exports" in last.why
    assert await export_erasing.run(service.vault) == 1
    [closing] = await days.close_through(service.vault, day, today)
    assert closing.closed
    assert await of_export(service, identifier) == []
    with pytest.raises(NoDayKeyError):
        service.vault.ring.day_key(day)
    assert await stage(service, identifier) == "erased"


async def test_reconciling_knows_exports_and_what_is_left_of_them(service: Service) -> None:
    identifier = await made(service, await several(service, 1))
    found = await reconcile.run(service.vault, repair=True)
    assert (found.unknown.count, found.removed, found.lost.count) == (0, 0, 0)
    key = (await of_export(service, identifier))[0]
    day = (await row(service))["expires_on"]
    await service.ask("DELETE", f"{service.retrieval}/v1/exports/{identifier}", "supervisor")
    assert await export_erasing.run(service.vault) == 1
    late = await put(service, key)
    stranger = await put(service, recordings.object_key(day, uuid4(), uuid4()))
    found = await reconcile.run(service.vault, repair=True)
    assert found.unknown.named == [stranger]
    assert found.removed == 1
    assert late not in [one.key for one in await service.holdings()]
    # Also once the row is gone: the ledger tells that there was an export of this id.
    async with connection(service.vault.pool) as lent:
        await lent.execute("DELETE FROM export")
    late = await put(service, recordings.object_key(day, UUID(identifier), uuid4()))
    assert (await reconcile.run(service.vault, repair=True)).removed == 1
    assert late not in [one.key for one in await service.holdings()]
