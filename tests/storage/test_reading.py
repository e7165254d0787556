"""Letting a reader in, at the very instants at which the answer changes."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from archive.access import Caller, Level
from archive.errors import (
    ForbiddenError,
    GoneError,
    ReasonNeededError,
    TooManyError,
)
from archive.listening import HOUR, REASON_HOLDS, Rules
from archive.search import Query
from storage import reading, search, tree
from storage.database import now
from storage.reading import Act
from storage.sealing import DamagedError
from storage.vault import Vault
from tests.roles import acting, connection
from tests.services import Service
from tests.web.test_exports import ask as export
from tests.web.test_exports import fetch, made, several
from tests.web.test_listen import ago, upload
from tests.web.test_redaction import redact
from tests.web.test_upload import problem

ANNA = Caller("anna", Level.SUPERVISOR)
HEAR, VIEW = Act("listened", {}, hears=True), Act("viewed", {})
INSTANT = timedelta(microseconds=1)


async def told(vault: Vault, act: str) -> int:
    await tree.sequence(vault)
    async with connection(vault.pool) as lent:
        return int(await lent.fetchval("SELECT count(*) FROM ledger WHERE act = $1", act))


async def test_at_its_instant_and_not_before_it_is_gone(service: Service) -> None:
    identifier = UUID(await upload(service, "c"))
    vault = acting(service.vault, "retrieval")
    (row,) = await service.rows()
    end: datetime = row["expires_at"]
    for act in (None, VIEW, HEAR):
        await reading.get(vault, ANNA, identifier, end - INSTANT, act)
        with pytest.raises(GoneError):
            await reading.get(vault, ANNA, identifier, end, act)
    assert (await told(vault, "viewed"), await told(vault, "listened")) == (1, 1)


async def test_what_is_no_level_of_a_reader_asks_nothing(service: Service) -> None:
    identifier = UUID(await upload(service, "c"))
    for level in (Level.UPLOADER, Level.AUDITOR, Level.ADMIN):
        caller = Caller("k", level, source="pbx" if level is Level.UPLOADER else None)
        with pytest.raises(ForbiddenError):
            await reading.get(service.vault, caller, identifier, await now(service.vault.pool))
        with pytest.raises(ForbiddenError):
            await search.find(service.vault, caller, Query(), await now(service.vault.pool))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("header = o.header", "header of another"),
        ("header = o.header, details = o.details", "header of another"),
        ("source = 'other-pbx'", "not what was sealed"),
        ("call_type = 'direct_marketing'", "not what was sealed"),
        ("expires_at = r.expires_at + interval '1 microsecond'", "not what was sealed"),
    ],
)
async def test_a_row_that_says_what_was_not_sealed_is_not_read(
    service: Service, change: str, why: str
) -> None:
    one, other = UUID(await upload(service, "a")), UUID(await upload(service, "b"))
    at = await now(service.vault.pool)
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            f"UPDATE recording r SET {change} FROM recording o WHERE r.id = $1 AND o.id = $2",
            one,
            other,
        )
    vault = acting(service.vault, "retrieval")
    with pytest.raises(DamagedError, match=why):
        await reading.get(vault, ANNA, one, at)
    assert (await reading.get(vault, ANNA, other, at)).recording.id == other


async def test_a_reason_holds_to_its_instant(service: Service) -> None:
    vault = replace(
        acting(service.vault, "retrieval"), listening=Rules(frozenset({"fault_report"}))
    )
    one, other = UUID(await upload(service, "a")), UUID(await upload(service, "b"))
    at = await now(vault.pool)
    assert await reading.give_reason(vault, ANNA, one, at, "why") == at + REASON_HOLDS

    async def opens(identifier: UUID, moment: datetime, caller: Caller = ANNA) -> bool:
        """Whether both ways of asking say so."""
        opened = await reading.get(vault, caller, identifier, moment)
        found = []
        for ask in (
            reading.get(vault, caller, identifier, moment, HEAR),
            reading.require_reason(vault, caller, opened, moment),
        ):
            try:
                await ask
            except ReasonNeededError:
                found.append(False)
            else:
                found.append(True)
        assert len(set(found)) == 1
        return found[0]

    assert await opens(one, at)
    assert await opens(one, at + REASON_HOLDS - INSTANT)
    assert not await opens(one, at + REASON_HOLDS)
    assert not await opens(other, at)
    assert not await opens(one, at, replace(ANNA, id="bo"))
    assert await opens(other, at, Caller("p", Level.PRIVACY))
    # What is over is forgotten at that instant as well, and not before.
    for later, left in ((REASON_HOLDS - INSTANT, {one, other}), (REASON_HOLDS, {other})):
        await reading.give_reason(vault, ANNA, other, at + later, "why")
        async with connection(vault.pool) as lent:
            rows = await lent.fetch("SELECT recording FROM reason")
        assert {row["recording"] for row in rows} == left


async def test_a_budget_is_of_an_hour_to_its_instant(service: Service) -> None:
    vault = replace(acting(service.vault, "retrieval"), listening=Rules(recordings_per_hour=2))
    ids = [UUID(await upload(service, f"c{number}")) for number in range(4)]
    at = await now(vault.pool)

    async def hears(number: int, moment: datetime) -> Any:
        try:
            await reading.get(vault, ANNA, ids[number], moment, HEAR)
        except TooManyError as error:
            return error.retry_after
        return None

    assert [await hears(number, at) for number in (0, 1, 2, 2, 0, 1)] == [
        None, None, 3600, 3600, None, None,
    ]  # fmt: skip
    assert await told(vault, "listening.stopped") == 1, "once an hour, also within an instant"
    assert await hears(3, at + HOUR - INSTANT) == 1
    assert await told(vault, "listening.stopped") == 1
    assert await hears(3, at + HOUR) is None
    assert await hears(2, at + HOUR) is None
    assert await hears(0, at + HOUR) == 3600
    assert await told(vault, "listening.stopped") == 2
    assert await told(vault, "listened") == 6


async def test_what_is_being_sent_is_asked_after_by_its_state(service: Service) -> None:
    one, other = UUID(await upload(service, "a")), UUID(await upload(service, "b"))
    vault = acting(service.vault, "retrieval")
    at = await now(vault.pool)
    first, second = [await reading.get(vault, ANNA, each, at) for each in (one, other)]
    async with connection(service.vault.pool) as lent:
        assert await reading.stands(lent, ANNA, first)
        await lent.execute(
            "UPDATE recording SET state = 'erasing', lease_until = archive_now() WHERE id = $1", one
        )
        assert not await reading.stands(lent, ANNA, first)
        assert await reading.stands(lent, ANNA, second)


def destroy(service: Service, day: date, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the key of a day, as if it were over."""
    ring = service.vault.ring
    with monkeypatch.context() as patch:
        patch.setattr(ring, "today", lambda: day + timedelta(days=1))
        ring.destroy(day)


async def test_what_a_database_that_was_put_back_has_of_a_destroyed_day_is_gone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year's copy: its rows are stored, by a clock that was put back they have time, and no key
    opens them.
    """
    gone = await upload(service, "a", started_at=ago(days=9))
    kept = await upload(service, "b", started_at=ago(days=5))
    last = await upload(service, "c", started_at=ago(days=1))
    day = next(row["expires_on"] for row in await service.rows() if str(row["id"]) == gone)
    destroy(service, day, monkeypatch)
    path = f"/v1/recordings/{gone}"
    for part in ("", "/audio", "/audio?format=wav", "/audio?version=original", "/waveform",
                 "/redaction"):  # fmt: skip
        await problem(await service.get(path + part, "privacy"), 410, "gone")
    span = [{"start": 0.1, "stop": 0.2}]
    await problem(await redact(service, gone, span, token="privacy"), 410, "gone")
    await problem(await export(service, [gone]), 410, "gone")
    # A list has the others, page by page.
    page = await (await service.get("/v1/recordings?limit=1")).json()
    assert [item["id"] for item in page["items"]] == [last]
    page = await (await service.get(page["next"])).json()
    assert [item["id"] for item in page["items"]] == [kept]
    page = await (await service.get(page["next"])).json()
    assert (page["items"], page["next"]) == ([], None)


async def test_an_export_whose_day_is_destroyed_is_over_by_whatever_clock(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await made(service, await several(service, 1))
    async with connection(service.vault.pool) as lent:
        day = await lent.fetchval("SELECT expires_on FROM export")
    destroy(service, day, monkeypatch)
    shown = await (await service.get(f"/v1/exports/{identifier}")).json()
    assert (shown["stage"], shown["reason"]) == ("over", "")
    listed = (await (await service.get("/v1/exports")).json())["items"]
    assert [each["stage"] for each in listed] == ["over"]
    await problem(await fetch(service, identifier), 410, "gone")


async def test_a_key_that_is_not_there_and_was_not_destroyed_may_come_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older key ring was put back: nobody is to be told that the recording is gone."""
    identifier = await upload(service, "c")
    (row,) = await service.rows()
    destroy(service, row["expires_on"], monkeypatch)
    monkeypatch.setattr(service.vault.ring, "destroyed", dict)
    answer = await service.get(f"/v1/recordings/{identifier}/audio")
    await problem(answer, 503, "unavailable")


async def test_what_is_heard_again_costs_nothing(service: Service) -> None:
    vault = replace(acting(service.vault, "retrieval"), listening=Rules(recordings_per_hour=3))
    ids = [UUID(await upload(service, f"c{number}")) for number in range(4)]
    at = await now(vault.pool)
    for number in (0, 1, 0, 1, 0, 2):
        await reading.get(vault, ANNA, ids[number], at, HEAR)
    with pytest.raises(TooManyError):
        await reading.get(vault, ANNA, ids[3], at, HEAR)
