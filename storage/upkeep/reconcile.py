"""Rows against objects, both ways: what is lost, what nobody knows, what should have gone.

| seen | what is done |
|---|---|
| a stored recording without its object, or with one of another size | lost: somebody is called |
| an object that no row names, its day still open | put on the list, and left alone |
| the object of an erased recording, or of an upload given up whose time is over | removed |
| the object of an export that is over, or that a later one of it took the place of | removed |
| an object under a day whose key is destroyed | removed, counted as a late arrival |
| the object of an upload or an erasure that is under way, or of an export | left alone |
| an older version of a recording's object | counted; it goes with the recording |
| an unfinished upload in parts, older than any put may last | removed |

Nothing is removed by a run that would remove too much, or on the word of a database that was put
back (`storage.upkeep.mark`).
"""

import logging
from collections.abc import Sequence

from storage import ledger
from storage.database import connection
from storage.upkeep import mark, strays
from storage.upkeep.comparison import Comparison, Report
from storage.upkeep.strays import Stray, Why
from storage.vault import Vault

__all__ = ["Report", "run"]

log = logging.getLogger("archive.reconcile")

FEW = 20
SHARE = 1000
"""A run removes at most FEW objects, or one of SHARE that it saw, whichever is more."""


async def run(vault: Vault, *, repair: bool, most: int = 0) -> Report:
    """Compare all rows with all objects; with `repair`, remove what the evidence is against.

    `most` is how many a person allows this run to remove, if that is more than it may by itself. It
    may run while services do, and several at once. Raises UnavailableError when the database or
    the store is away, and then any part of a repair may be done.
    """
    comparison = Comparison(vault)
    report = comparison.report
    report.stopped = await mark.gone_back(vault)
    await comparison.everything()
    if repair:
        await _repair(vault, comparison.doomed, report, most)
    _tell(report)
    return report


async def _repair(vault: Vault, doomed: Sequence[Stray], report: Report, most: int) -> None:
    allowed = max(FEW, report.objects // SHARE, most)
    count = sum(count for why, count in report.due.items() if why != Why.UNFINISHED)
    if not report.stopped and count > allowed:
        report.stopped = (
            f"{count} objects would be removed, more than the {allowed} that one run may remove of"
            f" {report.objects}: nothing was removed; docs/operations.md tells what to look at"
        )
    if not report.stopped:
        report.removed = await strays.remove(vault, doomed)
    async with connection(vault.pool) as lent:
        await ledger.record(lent, ledger.SYSTEM, "reconciled", facts=report.counts)


def _tell(report: Report) -> None:
    for identifier in report.lost.named:
        log.error("the object of recording %s is lost: it is not there whole", identifier)
    if report.unknown.count:
        log.error("no row names %d objects; `archive reconcile` lists them", report.unknown.count)
    if report.stopped:
        log.error("reconciling is stopped: %s", report.stopped)
    if report.removed:
        log.info("removed %d objects that should have gone", report.removed)
