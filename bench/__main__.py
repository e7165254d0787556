"""`python -m bench`: measure the figures, or those that are named; print the table. All of them are
written to build/bench.json as well.

A goal that does not hold is a NO in the table and in the file, and no failure of the run. A figure
that breaks is a NO as well; the others are measured and written all the same, and the exit status
is 1.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from bench import (
    day,
    drain,
    erasure,
    imports,
    ledger,
    pages,
    playback,
    reconcile,
    report,
    search,
    stack,
    uploads,
    verify,
)
from bench.report import Figure
from bench.stack import Service, Stack

OVER_ONE: dict[str, Callable[[Stack, Service], Awaitable[list[Figure]]]] = {
    "small": uploads.small,
    "large": uploads.large,
    "plays": playback.plays,
    "first-byte": playback.first_byte,
    "memory": uploads.memory,
    "drain": drain.drain,
    "import": imports.imports,
}
"""Figures over one service with an archive that only they fill."""

OWN: dict[str, Callable[[Stack], Awaitable[list[Figure]]]] = {
    "erasure": erasure.measure,
    "search": search.measure,
    "pages": pages.measure,
    "ledger": ledger.measure,
    "verify": verify.measure,
    "day": day.measure,
    "reconcile": reconcile.measure,
}
"""Figures with databases of their own."""


async def measure(wanted: list[str], folder: Path) -> list[Figure]:
    """Measure the figures of these names."""
    figures: list[Figure] = []
    async with stack.opened(folder) as opened:
        for name in OVER_ONE:
            if name in wanted:
                figures += await _timed(opened, name, _over_one(opened, name))
        for name in OWN:
            if name in wanted:
                figures += await _timed(opened, name, OWN[name](opened))
    return figures


async def _over_one(opened: Stack, name: str) -> list[Figure]:
    """By a new process for each, so that no figure stands on what another left in memory."""
    database = await opened.database("over_" + name.replace("-", "_"))
    async with opened.service(name, database) as service:
        return await OVER_ONE[name](opened, service)


async def _timed(opened: Stack, name: str, work: Awaitable[list[Figure]]) -> list[Figure]:
    """Its figures; where it broke, one that says so: the others are measured all the same."""
    began = time.perf_counter()
    print(f"{name} ... (load {os.getloadavg()[0]:.1f})", flush=True)
    try:
        figures = await work
    except Exception as error:  # whatever it was, it is this figure's
        traceback.print_exception(error)
        figures = [Figure.of_broken(name)]
    print(report.table(figures))
    print("\n".join(opened.client.meter.lines()))
    print(f"  took {time.perf_counter() - began:.0f} s (load {os.getloadavg()[0]:.1f})", flush=True)
    return figures


def main() -> int:
    """The entry point."""
    names = [*OVER_ONE, *OWN]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("figure", nargs="*", help=f"of: {', '.join(names)} (default: all)")
    parser.add_argument("--folder", help="where the servers keep their data (default: a temporary)")
    parser.add_argument("--objects", type=int, help="how many to reconcile (default: 1000000)")
    parser.add_argument("--rows", type=int, help="how many to import (default: 10000)")
    parser.add_argument("--files", type=int, help="how many to drain in a round (default: 2000)")
    arguments = parser.parse_args()
    reconcile.LARGE = arguments.objects or reconcile.LARGE
    imports.ROWS = arguments.rows or imports.ROWS
    drain.COUNT = arguments.files or drain.COUNT
    if unknown := set(arguments.figure) - set(names):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.folder))
    figures = uvloop.run(measure(arguments.figure or names, folder))
    if not arguments.figure:
        report.write(figures, stack.ROOT / "build" / "bench.json")
    print(f"\n{report.machine()}\n\n{report.table(figures)}")
    return 1 if any(each.broken for each in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
