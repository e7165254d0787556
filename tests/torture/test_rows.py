"""The short form of each row of the torture room: few tries, none of which may fail."""

import os
from collections.abc import Collection, Sequence

import pytest

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
    versions,
)
from torture.report import Limit, Row
from torture.room import Room


def held(rows: Sequence[Row], least: int, chance: Collection[str] = ()) -> None:
    """Nothing failed, and as much as was meant to was tried; but what takes longer: `chance`."""
    assert [fault for row in rows for fault in row.faults] == []
    assert [row for row in rows if row.failed or not (row.tried or row.test in chance)] == []
    assert rows[0].tried >= least


async def test_kills_of_services(room: Room) -> None:
    held(await kills.measure(room, Limit(12), senders=4, soon=2), 12)


@pytest.mark.timeout(600)
async def test_kills_while_copies_are_made_and_end(room: Room) -> None:
    """So few bring about each act by chance alone: what they lack the next ones may have."""
    lacking = {"redaction.withdrawn on the ledger", "export.made on the ledger"}
    chance = {*lacking, "exported on the ledger"}
    for _ in range(3):
        rows = await copies.measure(room, Limit(16), many=4, soon=10)
        held(rows, 16, chance)
        lacking -= {row.test for row in rows if row.tried}
        if not lacking:
            break
    assert not lacking


async def test_kills_of_servers(room: Room) -> None:
    held(await servers.measure(room, Limit(3)), 3)


async def test_kills_in_the_closing_of_days(room: Room) -> None:
    held(await closes.measure(room, Limit(8)), 8)


async def test_faults_of_the_links(room: Room) -> None:
    held(await links.measure(room, Limit(60), soon=2), 60, ["PUTs that landed late"])


@pytest.mark.parametrize("who", ["who runs this", "nobody"])
async def test_disks_that_fail(room: Room, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if who == "nobody":
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
    held(await disks.measure(room, Limit(60)), 30)


@pytest.mark.timeout(600)
async def test_needles(room: Room) -> None:
    held(await needles.measure(room, Limit(1), rounds=1), 500)


async def test_versions_and_locks(room: Room) -> None:
    rows = await versions.measure(room, Limit(1))
    held(rows, 6)
    assert [row.tried for row in rows] == [6, 3]


async def test_wrong_clocks(room: Room) -> None:
    held(await early.measure(room, Limit(40)), 40)


async def test_changed_objects_and_rows(room: Room) -> None:
    rows = await intact.measure(room, Limit(60), gateway=False)
    held(rows, 20)
    assert rows[0].tried + rows[1].tried == rows[2].tried == 60


async def test_edits_of_the_ledger(room: Room) -> None:
    rows = await edits.measure(room, Limit(300))
    held(rows, 280)
    assert rows[2].tried == 300


async def test_exactly_once(room: Room) -> None:
    rows = await once.measure(room, Limit(80), steps=12)
    held(rows, 80)
    assert rows[0].tried == 80  # what else is looked at is no erasure


@pytest.mark.timeout(300)
async def test_an_archive_that_is_away(room: Room) -> None:
    rows = await outage.measure(room, Limit(4), away=3)
    held(rows, 50)
    assert rows[1].tried >= 12
