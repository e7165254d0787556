"""`python -m torture`: try every promise, or the rows that are named, until it would break.

Prints the table. With all rows it is written to build/torture.json as well. Exit status 1 when
something failed; a goal that was not reached in the time is a NO in the table, and no failure.
"""

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from bench.report import machine
from tests import years
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
    proof,
    report,
    servers,
    versions,
)
from torture.nursery import ROOT
from torture.report import Limit, Row, Tally
from torture.room import Room, opened

Try = Callable[[Room, Limit], Awaitable[list[Row]]]

ROWS: dict[str, tuple[Try, int]] = {
    "model": (proof.measure, 1),
    "needles": (needles.measure, 3),
    "versions": (versions.measure, versions.GOAL + versions.GOAL // 2),
    "early": (early.measure, early.GOAL),
    "intact": (intact.measure, intact.GOAL),
    "ledger": (edits.measure, edits.GOAL),
    "links": (links.measure, links.GOAL),
    "servers": (servers.measure, servers.GOAL),
    "disks": (disks.measure, disks.GOAL),
    "closes": (closes.measure, closes.GOAL),
    "once": (once.measure, once.GOAL),
    "copies": (copies.measure, copies.GOAL),
    "outage": (outage.measure, 4),
    "kills": (kills.measure, kills.GOAL + kills.GOAL // 10),
}
"""Each row, and how often it is tried when there is time. The last gets what time is left.
"""

_AFTER = 30
"""Minutes after the others in which everything is compared, and calls still fall due."""


async def measure(room: Room, wanted: list[str], minutes: float) -> list[Row]:
    """Try what is wanted, each for its share of the time at the most."""
    end = time.monotonic() + 60 * minutes
    rows: list[Row] = []
    for place, name in enumerate(wanted):
        left = max(0.0, end - time.monotonic())
        row, tries = ROWS[name]
        began = time.monotonic()
        print(f"{name} ...", flush=True)
        limit = Limit(tries, began + left / _shares(len(wanted) - place))
        found = await _tried(name, row, room, limit)
        print(report.table(found))
        print(f"  took {time.monotonic() - began:.0f} s", flush=True)
        rows += found
    return rows


async def _tried(name: str, row: Try, room: Room, limit: Limit) -> list[Row]:
    """Its rows; where it broke, one that says so: the others are tried and written all the same."""
    try:
        return await row(room, limit)
    except Exception as error:  # whatever it was, it is this row's
        where = "".join(traceback.format_exception(error))
        return [Row.of(name, "the trying itself", Tally(1, 1, [where]), 1, "tries")]


def _shares(left: int) -> int:
    """By how many the time is shared that is left: the last counts for as much as four others."""
    return left + 3 if left > 1 else 1


def main() -> int:
    """The entry point."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("row", nargs="*", help=f"of: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=30, help="time in all (default: 30)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    if unknown := set(arguments.row) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    span = timedelta(minutes=arguments.minutes + _AFTER)
    if wait := years.until_years_end(datetime.now(UTC), span):
        parser.error(f"no call's year ends now, and the rows wait for one: try in {wait} (h:mm:ss)")
    wanted = [name for name in ROWS if name in (arguments.row or ROWS)]
    with opened(Path(tempfile.mkdtemp(prefix="torture-"))) as room:
        rows = uvloop.run(measure(room, wanted, arguments.minutes))
    if not arguments.row:
        report.write(rows, ROOT / "build" / "torture.json")
    print(f"\n{machine()}\n\n{report.table(rows)}")
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
