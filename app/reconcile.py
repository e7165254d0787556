"""`archive reconcile`: rows against objects, both ways; a report first, repair if asked for."""

import json
import sys

from app.config import Config
from app.vault import opened
from storage.upkeep import reconcile
from storage.upkeep.reconcile import Report


async def run(config: Config, *, repair: bool, most: int, as_json: bool) -> int:
    """Compare, and remove what the evidence is against if `repair`; 1 if somebody has to look."""
    async with opened(config, join=True) as vault:
        report = await reconcile.run(vault, repair=repair, most=most)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        _print(report)
    return 1 if report.failed else 0


def _print(report: Report) -> None:
    print(f"{report.recordings} recordings stored, {report.objects} objects under expiry days")
    for identifier in report.lost.named:
        print(f"LOST     recording {identifier}: its object, or its copy's, is not there whole")
    for name in report.unknown.named:
        print(f"unknown  {name}: no row names it; it is left alone until its day is over")
    for why, count in report.due.items():
        if count:
            print(f"due      {count} to be removed: {why}")
    if report.versions:
        print(f"versions {report.versions} older ones, which go with their recordings")
    left = sum(report.due.values()) - report.removed
    print(f"removed {report.removed}" + (f", {left} left: --repair removes them" if left else ""))
    if report.stopped:
        print(f"stopped: {report.stopped}", file=sys.stderr)
