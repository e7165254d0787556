"""The whole way of a recording over every store: taken in, played, erased, and nothing left."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from storage import ledger, published, tree
from storage.keyring import NoDayKeyError
from storage.objects import ObjectStore
from storage.recordings import object_key
from storage.upkeep import reconcile
from tests.jobs.test_expiry import a_year_ago, when_over
from tests.roles import connection
from tests.services import Service, open_service, open_vault
from tests.sounds import tone
from tests.stores.leftovers import locked_bucket, plant, put
from tests.stores.servers import Server
from tests.web.test_listen import found, upload
from tests.web.test_upload import problem

AUDIO = tone(30)


@pytest.fixture
async def service(
    database_url: str, object_store: ObjectStore, tmp_path: Path
) -> AsyncIterator[Service]:
    """A whole archive over each kind of store in turn."""
    async with open_vault(database_url, object_store, tmp_path) as vault:
        async with open_service(vault) as opened:
            yield opened


async def states(service: Service) -> list[str]:
    return [row["state"] for row in await service.rows()]


async def test_a_recording_is_taken_in_played_and_erased(service: Service) -> None:
    moment = a_year_ago(seconds=50)
    kept = await upload(service, "kept", AUDIO, started_at=a_year_ago(seconds=4000))
    gone = await upload(service, "gone", AUDIO, started_at=moment, agent="Anna")
    again = await service.put("gone", AUDIO, {"call_type": "fault_report", "started_at": moment})
    assert (again.status, (await again.json())["id"]) == (200, gone)
    assert len(await service.holdings()) == 2
    path = f"/v1/recordings/{gone}/audio"
    whole = await service.get(path)
    assert (whole.status, await whole.read()) == (200, AUDIO)
    for start, stop in ((0, 1), (65_535, 65_537), (200_000, 300_000), (len(AUDIO) - 9, len(AUDIO))):
        part = await service.get(path, Range=f"bytes={start}-{stop - 1}")
        assert (part.status, await part.read()) == (206, AUDIO[start:stop])
    copy = await service.get(path + "?format=mp3")
    assert copy.status == 200
    assert len(await copy.read()) > 10_000
    held = b""
    for holding in await service.holdings():
        async with service.vault.objects.get(holding.key, 0, 100_000) as pieces:
            held += b"".join([piece async for piece in pieces])
    assert AUDIO[:64] not in held
    assert AUDIO[1000:1064] not in held
    await service.turn_clock(timedelta(seconds=55))
    report = await service.erase()
    assert (report.erased, report.failed, report.stopped) == (1, 0, "")
    await problem(await service.get(path), 410, "gone")
    assert await found(service) == ["kept"]
    assert {holding.key.split("/")[1] for holding in await service.holdings()} == {kept}
    played = await service.get(f"/v1/recordings/{kept}/audio")
    assert (played.status, await played.read()) == (200, AUDIO)


async def test_every_version_mark_and_unfinished_upload_goes_with_the_recording(
    service: Service, object_server: Server
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=50))
    (key,) = [holding.key for holding in await service.holdings()]
    await plant(service.vault.objects, key)
    kinds = sorted(holding.kind for holding in await service.holdings())
    if object_server.versioned:
        assert kinds == ["marker", "upload", "upload", *["version"] * 4]
    else:
        assert kinds == ["object", "object", "upload", "upload"]
    await service.turn_clock(timedelta(seconds=55))
    assert (await service.erase()).erased == 1
    assert await service.holdings() == []
    assert await states(service) == ["erased"]


async def test_the_ledger_is_published_and_rows_are_held_against_objects(service: Service) -> None:
    identifier = await upload(service, "kept", AUDIO)
    for _ in range(2):
        await upload(service, f"more-{uuid4()}")
        await tree.checkpoint(service.vault)
    entries = [entry async for entry in published.entries(service.vault, 0)]
    async with connection(service.vault.pool) as lent:
        assert entries == await ledger.page(lent, 0, 1000)
    assert len(await service.vault.objects.holdings(published.PREFIX)) == 1
    (row,) = [row for row in await service.rows() if str(row["id"]) == identifier]
    key = object_key(row["expires_on"], row["id"], row["attempt"])
    await put(service.vault.objects, key.replace(str(row["attempt"]), str(uuid4())))
    report = await reconcile.run(service.vault, repair=True)
    assert (report.recordings, report.objects, report.lost.count) == (3, 4, 0)
    assert (report.unknown.count, report.removed) == (1, 0)
    held = [holding for holding in await service.holdings() if holding.key == key]
    await service.vault.objects.remove(held)
    assert (await reconcile.run(service.vault, repair=True)).lost.named == [identifier]


async def test_what_has_no_row_goes_when_its_day_is_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=50))
    day: date = (await service.rows())[0]["expires_on"]
    objects = service.vault.objects
    for name in ("a", "b"):
        await put(objects, f"{day}/{uuid4()}/{name}")
    await objects._bucket.call("POST", {"uploads": ""}, key=f"{day}/{uuid4()}/c")
    other = f"{day + timedelta(days=40)}/{uuid4()}/1"
    await put(objects, other)
    await service.turn_all_clocks(when_over(day), monkeypatch)
    night = await service.night()
    assert night.expiry.erased == 1
    closing = next(closing for closing in night.closings if closing.day == day)
    assert (closing.closed, closing.strays) == (True, 3)
    assert [holding.key for holding in await service.holdings()] == [other]
    with pytest.raises(NoDayKeyError):
        service.vault.ring.day_key(day)


@pytest.fixture
async def locking(rgw_server: Server, database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """An archive over a bucket that lets nothing be deleted for a day."""
    store = await locked_bucket(rgw_server)
    async with open_vault(database_url, store, tmp_path) as vault:
        async with open_service(vault) as opened:
            yield opened
    await store.close()


async def test_what_an_object_lock_keeps_is_never_called_erased(
    locking: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = locking
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=50))
    day: date = (await service.rows())[0]["expires_on"]
    await service.turn_clock(timedelta(seconds=55))
    report = await service.erase()
    assert (report.erased, report.still_there, report.unknown) == (0, 1, 0)
    assert [holding.kind for holding in await service.holdings()] == ["version"]
    await problem(await service.get(f"/v1/recordings/{gone}/audio"), 410, "gone")
    assert await states(service) == ["erasing"]
    metrics = await (await service.operate("/metrics")).text()
    assert "archive_recordings_overdue 1\n" in metrics
    assert "erased" not in [act for act, _ in await service.acts()]
    # Nor is its day closed: as long as a copy is known to be there, its key is kept to tell so.
    await service.turn_all_clocks(when_over(day), monkeypatch)
    night = await service.night()
    closing = next(closing for closing in night.closings if closing.day == day)
    assert (closing.closed, closing.why) == (False, "1 recordings of it are not erased yet")
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM day WHERE closed_at IS NOT NULL") == 0
