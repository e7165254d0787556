"""`archive rebuild`: the database made whole out of the bucket, the key ring and the ledger."""

import json

from app.config import Config
from app.vault import opened
from storage import database, published
from storage.upkeep import rebuild
from storage.upkeep.rebuild import Report


async def run(config: Config, *, as_json: bool) -> int:
    """Rebuild, while no service runs; 1 if there is something to look at."""
    async with opened(config, whole=False, patience=database.LONG) as vault:
        await published.own(vault)
        report = await rebuild.run(vault)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        _print(report)
    return 1 if report.failed else 0


def _print(report: Report) -> None:
    done = report.replayed
    print(
        f"ledger: {done.entries} entries taken back; {done.erased} recordings erased again,"
        f" {done.closed} days closed, {done.revoked} keys revoked,"
        f" {done.locked} accounts locked"
    )
    print(
        f"to be said again: who is in {done.teams} teams,"
        f" whose {done.persons} keys and accounts are"
    )
    if done.untombed:
        print(
            f"erased before their time: {done.untombed} recordings, of whose calls nothing is known"
            " any more. They can be delivered again; `archive notices --drop` those that wait"
        )
    if done.periods:
        print("periods: those that two people granted since are in force again")
    print(
        f"objects: {report.objects} looked at; {report.rebuilt} recordings rebuilt,"
        f" {report.over} passed over that are erased"
    )
    if report.told:
        print(f"ledger: {report.told} recordings were due and gone, and are now told as erased")
    for identifier in report.lost.named:
        print(
            f"LOST     recording {identifier}: it was acknowledged, and nothing that opens is left"
        )
    for identifier in report.copies.named:
        print(
            f"LOST     redacted copy of {identifier}: nobody but `privacy` hears the original now."
            " Redact it anew, or put the copy's object back and run this again"
        )
    for name in report.strange.named:
        print(f"strange  {name}: it does not open, is not whole, or its call has another object")
