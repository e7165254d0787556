"""The end of an expiry day, when two close it at once, and when an upload comes after it."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from archive.errors import UnavailableError
from archive.recording import CallType
from archive.retention import Period
from jobs import nightly, schedule
from storage import database, days, durable, ledger, nights, notices, tree
from storage.keyring import NoDayKeyError
from storage.objects import StoreError
from storage.vault import Vault
from tests.jobs.test_expiry import a_year_ago, when_over
from tests.roles import connection
from tests.services import Faulty, Service, open_service
from tests.sounds import tone
from tests.web.test_cdrs import JSON, record
from tests.web.test_listen import upload
from tests.web.test_upload import problem, query
from tests.web.test_uploads import AUDIO, Client


async def test_two_services_that_close_a_day_at_once_tell_of_it_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day = (await service.rows())[0]["expires_on"]
    await service.turn_all_clocks(when_over(day), monkeypatch)
    assert (await service.erase()).erased == 1
    both_have_destroyed = Barrier(2, timeout=60)
    real = service.vault.ring

    def destroy(day: date) -> datetime:
        destroyed_at = real.destroy(day)
        both_have_destroyed.wait()
        return destroyed_at

    ring: Any = Faulty(real, destroy=destroy)
    vault = replace(service.vault, ring=ring)
    today = vault.policy.day_of(await database.now(vault.pool))
    closings = await asyncio.gather(
        *(days.close_through(vault, today - timedelta(days=1), today) for _ in range(2))
    )
    assert [[(one.day, one.closed) for one in each] for each in closings] == [[(day, True)]] * 2
    assert [act for act, _ in await service.acts()].count("day.closed") == 1


async def test_what_was_searched_for_ends_with_the_calls_of_its_day(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year after the search nobody can open its words any more, and the ledger holds."""
    await upload(service, "call", caller="+358401234567")
    assert (await service.get("/v1/recordings?number=%2B358401234567")).status == 200
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        entry = await lent.fetchrow("SELECT * FROM ledger WHERE act = 'searched'")
    assert entry is not None
    day, words = entry["ends_on"], entry["details"]
    assert day == service.vault.policy.furthest(entry["at"])
    assert "358401234567" in str(ledger.unseal(service.vault.ring, day, words))
    await service.turn_all_clocks(when_over(day), monkeypatch)
    await service.night()
    assert day in service.vault.ring.destroyed()
    with pytest.raises(NoDayKeyError):
        ledger.unseal(service.vault.ring, day, words)
    await tree.agree(service.vault)


async def test_an_upload_whose_day_was_closed_while_it_came_in_is_gone(vault: Vault) -> None:
    def closed(day: date) -> bytes:
        raise NoDayKeyError(day)

    def destroyed() -> dict[date, datetime]:
        now = datetime.now(UTC)
        return {vault.policy.day_of(now) + timedelta(days=count): now for count in range(370)}

    ring: Any = Faulty(vault.ring, day_key=closed, destroyed=destroyed)
    async with open_service(replace(vault, ring=ring)) as service:
        await problem(await service.put("late", tone(), query()), 410, "gone")
        assert await service.rows() == []


async def test_what_ends_on_a_day_without_a_key_yet_is_to_come_again(vault: Vault) -> None:
    """The period became longer, and the part that makes the keys was not started anew: to answer
    that the call is over would make its sender give it up.
    """
    periods = dict.fromkeys(CallType, Period(years=2))
    longer = replace(vault, policy=replace(vault.policy, periods=periods))
    async with open_service(longer) as service:
        refused = await service.put("early", tone(), query())
        told = await problem(refused, 503, "unavailable")
        assert "no key yet" in told["detail"]
        assert refused.headers["Retry-After"] == "60"
        client = Client(service)
        await client.create()
        await problem(await client.patch(0, AUDIO), 503, "unavailable")
        assert client.file().exists(), "the bytes are kept for the next try"
        call = json.dumps(record("early")).encode()
        await problem(await service.post("/v1/cdr", call, JSON), 503, "unavailable")
        now = datetime.now(UTC)
        expiry = longer.policy.expiry("other", now)
        with pytest.raises(UnavailableError, match="no key yet"):
            await notices.ask(longer, "hook", "early", expiry, {"delete_url": ""})
        assert await service.rows() == []
        # The jobs are started anew.
        nightly.make_keys(longer, now)
        assert (await client.patch(len(AUDIO), b"")).status == 204
        assert (await service.put("early", tone(), query())).status == 201


async def test_a_night_comes_to_its_end_though_rows_and_objects_cannot_be_compared(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day = (await service.rows())[0]["expires_on"]
    await service.turn_all_clocks(when_over(day), monkeypatch)

    async def out_of_order() -> list[str]:
        raise StoreError("The object store's list is not in the order of its keys.")

    objects: Any = Faulty(service.vault.objects, folders=out_of_order)
    service.vault = replace(service.vault, objects=objects)
    night = await service.night()
    assert [closing.closed for closing in night.closings] == [True]
    assert "not in the order" in night.reconciled.stopped
    assert "night.done" in [act for act, _ in await service.acts()]


def failing(fails: Callable[[bytes], bool]) -> Callable[[Path, int, bytes], None]:
    """Overwriting that fails for some of what is to be written."""
    real = durable.overwrite

    def overwrite(path: Path, position: int, content: bytes) -> None:
        if fails(content):
            raise OSError(30, "Read-only file system")
        real(path, position, content)

    return overwrite


async def a_day_that_is_over(service: Service, monkeypatch: pytest.MonkeyPatch) -> date:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day: date = (await service.rows())[0]["expires_on"]
    await service.turn_all_clocks(when_over(day), monkeypatch)
    return day


async def test_a_root_that_cannot_be_written_holds_up_its_day_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the night is never done, and all of it runs again each minute."""
    day = await a_day_that_is_over(service, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "overwrite", failing(lambda content: True))
        (closing,) = (await service.night()).closings
        assert (closing.day, closing.closed) == (day, False)
        assert "Read-only" in closing.why
        async with database.connection(service.vault.pool) as lent:
            assert await nights.last(lent), "the night is done, and comes again tomorrow"
        assert not await nightly.catch_up(service.vault)
        await schedule.tidy(service.vault)
        signed = service.vault.signer.last()
    acts = [act for act, _ in await service.acts()]
    assert (acts.count("days.frozen"), acts.count("night.done"), "day.closed" in acts) == (
        *(1, 1),
        False,
    )
    assert signed is not None
    assert signed.size == len(acts), "the ledger is signed all the same"
    assert await nightly.catch_up(service.vault)
    assert day in service.vault.ring.destroyed()


async def test_a_day_is_told_as_closed_when_the_root_of_its_key_is_wiped(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    day = await a_day_that_is_over(service, monkeypatch)
    root = (tmp_path / "root.key").read_bytes().splitlines()[0]
    with monkeypatch.context() as patched:
        patched.setattr(durable, "overwrite", failing(lambda content: content.startswith(b"-")))
        assert not (await service.night()).closings[0].closed
        assert day in service.vault.ring.destroyed()
        assert not await nightly.catch_up(service.vault)
        assert root in (tmp_path / "root.key").read_bytes()
        assert "day.closed" not in [act for act, _ in await service.acts()]
    assert await nightly.catch_up(service.vault)
    assert root not in (tmp_path / "root.key").read_bytes()
    assert [act for act, _ in await service.acts()].count("day.closed") == 1
