"""How the rows of the torture room are counted and judged: what should not hold does not."""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from storage import clocks
from storage.database import connection
from tests.app.child_service import Child
from tests.jobs.test_expiry import a_year_ago
from tests.services import Service
from tests.storage.upkeep.test_reconcile import put, stored
from tests.stores.relay import Relay
from tests.web.test_listen import upload
from torture import __main__ as whole
from torture import closes, copies, early, edits, links, truth
from torture.load import Load
from torture.report import Limit, Row, Tally, table
from torture.room import Room

Meddle = Callable[[Service], Awaitable[None]]


def meddled(monkeypatch: pytest.MonkeyPatch, meddle: Meddle) -> None:
    """Let something be done to each archive of the room before anything is tried on it."""
    usual = Room.service

    @asynccontextmanager
    async def service(room: Room, server: Any = None) -> Any:
        async with usual(room, server) as opened:
            await meddle(opened)
            yield opened

    monkeypatch.setattr(Room, "service", service)


async def held_up(service: Service) -> None:
    """Let nothing be erased any more."""
    async with connection(service.vault.pool) as lent:
        await clocks.hold(lent, "a calendar was looked at, and it was wrong")


def loading(service: Service) -> Load:
    return Load(service, lambda: [(service.ingest, service.retrieval)])


def test_a_row_holds_only_when_enough_was_tried_and_nothing_failed() -> None:
    tally = Tally()
    for number in range(30):
        tally.note(number % 10 > 0, f"number {number}")
    failed = Row.of("a", "b", tally, 30, "tries")
    assert (failed.tried, failed.failed, failed.holds) == (30, 3, False)
    assert "FAILED  number 10" in table([failed])
    few, enough = (Row.of("a", "b", Tally(30), least, "tries") for least in (31, 30))
    assert (few.holds, enough.holds) == (False, True)
    assert enough.facts().keys() == {"promise", "test", "tried", "failed", "goal", "holds"}
    assert not Limit(5).allows(5)
    assert not Limit(5, 0).allows(1)


async def test_what_an_erasure_left_is_seen_before_the_reconciler_cleans_it_up(room: Room) -> None:
    async with room.service() as service:
        gone = await upload(service, "gone", started_at=a_year_ago(seconds=20))
        await upload(service, "kept")
        _, key = await stored(service, gone)
        await service.turn_clock(timedelta(seconds=21))
        assert (await service.erase()).erased == 1
        assert await truth.reconciled(service) == Tally(1)
        await put(service, key)
        seen = await truth.reconciled(service)
        assert seen.failed > 0
        assert "'erased': 1" in seen.faults[0]
        assert await truth.reconciled(service) == Tally(1)


async def test_a_row_that_breaks_is_a_fault_and_the_others_are_tried(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> list[Row]:
        raise AssertionError("it took too long")

    async def holds(*_: object) -> list[Row]:
        return [Row.of("b", "t", Tally(1), 1, "tries")]

    monkeypatch.setattr(whole, "ROWS", {"a": (breaks, 1), "b": (holds, 1)})
    broken, well = await whole.measure(room, ["a", "b"], 1)
    assert (broken.failed, broken.holds, well.holds) == (1, False, True)
    assert "it took too long" in broken.faults[0]


TOLD = [
    ("redaction.made", "r", {"copy": "c1"}),
    ("redaction.made", "r", {"copy": "c2", "replaced": "c1"}),
    ("redaction.withdrawn", "r", {"copy": "c2"}),
    ("redaction.made", "r", {"copy": "c3"}),
    ("export.made", None, {"export": "e"}),
    ("export.erased", None, {"export": "e"}),
    ("erased", "r", {"attempt": "a", "redacted": "c3"}),
]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({1: ("redaction.made", "r", {"copy": "c2"})}, "takes the place of another"),
        ({2: ("redaction.withdrawn", "r", {"copy": "c1"})}, "is withdrawn than stood"),
        ({6: ("erased", "r", {"attempt": "a"})}, "is told wrong"),
        ({6: ("erased", "r", {"redacted": "c3"})}, "is told wrong"),
        ({5: TOLD[6], 6: TOLD[5]}, "is told as erased before export e"),
        ({5: ("export.asked", None, {"export": "e"})}, "is not told as erased"),
        ({3: TOLD[5]}, "is erased twice"),
    ],
)
def test_what_is_told_of_copies_is_judged(change: dict[int, Any], fault: str) -> None:
    tally = Tally()
    story = [
        {"act": act, "recording": recording, "facts": facts, "position": position}
        for position, (act, recording, facts) in enumerate(
            change.get(number, each) for number, each in enumerate(TOLD)
        )
    ]
    copies._told(story, {"e": ["r"]}, tally)
    assert bool(tally.failed) == bool(fault)
    assert fault in " ".join(tally.faults)


async def test_what_is_acknowledged_once_it_is_over_does_not_count_to_the_goal(room: Room) -> None:
    async with room.service() as service:
        load = loading(service)
        load.started[0] = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        load.open.add(0)
        rows = await truth.told(load, room.place(), 1)
    assert [row.failed for row in rows] == [0] * len(rows)
    assert [(row.tried, row.holds) for row in rows[:2]] == [(0, False), (1, True)]


async def test_what_comes_to_no_end_is_told_also_if_nobody_acknowledged_it(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "_PATIENCE", 0.5)
    async with room.service() as service:
        identifier = await upload(service, "due", started_at=a_year_ago(minutes=30))
        assert await truth.at_rest(service) == 1
        rows = await truth.told(loading(service), room.place(), 0)
    faults = rows[1].faults
    assert faults[0].startswith(f"{identifier}, never acknowledged, is overdue")
    assert faults[1] == "1 recordings came to no end"


async def test_a_service_that_ends_by_itself_is_no_kill_that_held(room: Room) -> None:
    """It said why, and not in a traceback."""
    log = room.place() / "log"
    log.write_text("ingest 1\nretrieval 2\nready\nthe key ring cannot be read\n")
    ended: Any = SimpleNamespace(pid=0, poll=lambda: 1, wait=lambda _: 1)
    nursery: Any = SimpleNamespace(bear=lambda *_, **__: Child(ended, log))
    house: Any = None
    async with room.service() as service:
        await service.night()
        night = closes._Night(house, service, nursery, Tally(), Counter())
        await closes._one_day(night, timedelta())
    assert (night.kills.tried, night.kills.failed) == (4, 6)  # and the two that come after them
    assert "the key ring cannot be read" in night.kills.faults[0]


async def test_nothing_is_early_where_nothing_is_erased_and_that_is_a_fault(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddled(monkeypatch, held_up)
    first, fuse, right = await early.measure(room, Limit(2))
    assert (first.failed, fuse.failed) == (0, 0)
    assert (right.tried, right.failed) == (3, 3)


async def test_a_witness_that_refuses_whatever_it_is_shown_notices_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose_token(service: Service) -> None:
        service.tokens["auditor"] = service.tokens["uploader"]

    meddled(monkeypatch, lose_token)
    rows = await edits.measure(room, Limit(1))
    assert [row.failed for row in rows] == [0, 0, 0, 2]
    assert rows[3].faults == ("a witness refuses the ledger, untouched",) * 2


async def test_what_the_store_refused_has_not_landed_late(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_: Relay) -> list[int]:
        return [403]

    monkeypatch.setattr(Relay, "release", refused)
    rows = await links.measure(room, Limit(1), soon=2)
    late = next(row for row in rows if row.test == "PUTs that landed late")
    assert (late.tried, late.holds) == (0, False)


def test_the_room_waits_where_no_year_ends_before_it_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A year after the hour that the clocks leave out none ends."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2027, 3, 28, 23, 15, tzinfo=tz)

    monkeypatch.setattr(whole, "datetime", Clock)
    monkeypatch.setattr(whole, "opened", lambda _: pytest.fail("it began"))
    monkeypatch.setattr(sys, "argv", ["torture", "--minutes", "30"])
    with pytest.raises(SystemExit):
        whole.main()
    assert "no call's year ends now" in capsys.readouterr().err
