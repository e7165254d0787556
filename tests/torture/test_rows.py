"""The short form of each row of the torture room: few tries, none of which may fail."""

from collections.abc import Sequence

from torture import kills
from torture.report import Limit, Row
from torture.room import Room


def held(rows: Sequence[Row], least: int) -> None:
    """Nothing failed, and as much as was meant to was tried."""
    assert [fault for row in rows for fault in row.faults] == []
    assert [row for row in rows if row.failed] == []
    assert rows[0].tried >= least


async def test_kills(room: Room) -> None:
    held(await kills.measure(room, Limit(12), senders=4, soon=2), 12)
