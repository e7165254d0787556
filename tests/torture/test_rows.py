"""The short form of each row of the torture room: few tries, none of which may fail."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.jobs.test_expiry import a_year_ago
from tests.storage.upkeep.test_reconcile import put, stored
from tests.web.test_listen import upload
from torture import __main__ as whole
from torture import (
    closes,
    copies,
    disks,
    early,
    edits,
    intact,
    kills,
    links,
    needles,
    once,
    outage,
    servers,
    truth,
    versions,
)
from torture.report import Limit, Row, Tally, table
from torture.room import Room


def held(rows: Sequence[Row], least: int, chance: str = "") -> None:
    """Nothing failed, and as much as was meant to was tried; but what takes longer: `chance`."""
    assert [fault for row in rows for fault in row.faults] == []
    assert [row for row in rows if row.failed or not (row.tried or row.test == chance)] == []
    assert rows[0].tried >= least


async def test_kills_of_services(room: Room) -> None:
    held(await kills.measure(room, Limit(12), senders=4, soon=2), 12)


@pytest.mark.timeout(600)
async def test_kills_while_copies_are_made_and_end(room: Room) -> None:
    held(await copies.measure(room, Limit(16), many=4, soon=10), 16, "exported on the ledger")


async def test_kills_of_servers(room: Room) -> None:
    held(await servers.measure(room, Limit(3)), 3)


async def test_kills_in_the_closing_of_days(room: Room) -> None:
    held(await closes.measure(room, Limit(8)), 8)


async def test_faults_of_the_links(room: Room) -> None:
    held(await links.measure(room, Limit(60), soon=2), 60)


async def test_disks_that_fail(room: Room) -> None:
    held(await disks.measure(room, Limit(60)), 30)


@pytest.mark.timeout(600)
async def test_needles(room: Room) -> None:
    held(await needles.measure(room, Limit(1), rounds=1), 500)


async def test_versions_and_locks(room: Room) -> None:
    held(await versions.measure(room, Limit(1)), 6)


async def test_wrong_clocks(room: Room) -> None:
    held(await early.measure(room, Limit(40)), 40)


async def test_changed_objects_and_rows(room: Room) -> None:
    rows = await intact.measure(room, Limit(60), gateway=False)
    held(rows, 20)
    assert sum(row.tried for row in rows) == 60


async def test_edits_of_the_ledger(room: Room) -> None:
    held(await edits.measure(room, Limit(300)), 280)


async def test_exactly_once(room: Room) -> None:
    held(await once.measure(room, Limit(90), steps=12), 90)


@pytest.mark.timeout(300)
async def test_an_archive_that_is_away(room: Room) -> None:
    rows = await outage.measure(room, Limit(4), away=3)
    held(rows, 50)
    assert rows[1].tried >= 12


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
        gone = await upload(service, "gone", started_at=a_year_ago(seconds=2))
        await upload(service, "kept")
        _, key = await stored(service, gone)
        await service.turn_clock(timedelta(seconds=3))
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
