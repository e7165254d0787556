"""`archive expire`: erase what is due, say what is or will be, let a stopped fuse go on."""

import json
import sys
from datetime import date, datetime, time, timedelta

from app.config import Config
from app.serve import opened
from archive.retention import Policy
from jobs import expiry
from storage import clocks, database, removal
from storage.clocks import ReleaseRefusedError


async def say(config: Config, on: date | None, *, as_json: bool) -> int:
    """Name what is due now, or will be by the end of a day, and why."""
    async with opened(config, join=True) as vault:
        at = _end_of(on, vault.policy) if on else await database.now(vault.pool)
        due = await removal.due(vault, at)
    if as_json:
        rows = [
            {
                "id": str(one.id),
                "call_type": one.call_type,
                "expires_at": one.expires_at.isoformat(),
                "why": one.why,
            }
            for one in due
        ]
        print(json.dumps({"at": at.isoformat(), "due": rows}))
        return 0
    for one in due:
        print(f"{one.id}  {one.call_type:<17} {one.why}")
    print(f"{len(due)} recordings are due at {at.isoformat(timespec='seconds')}")
    return 0


async def act(config: Config, release: date | None, *, as_json: bool) -> int:
    """Erase what is due, after letting a stopped fuse go on if asked to; 1 if something is left."""
    async with opened(config, join=True) as vault:
        if release:
            try:
                await clocks.release(vault, release)
            except ReleaseRefusedError as error:
                print(f"archive: {error}", file=sys.stderr)
                return 1
            print(f"released through {release.isoformat()}", file=sys.stderr)
        report = await expiry.run(vault)
    facts = {
        "erased": report.erased,
        "still_there": report.still_there,
        "could_not_ask": report.unknown,
        "stopped": report.stopped or None,
    }
    if as_json:
        print(json.dumps(facts))
    else:
        print(
            f"erased {report.erased}, still there {report.still_there}, "
            f"could not ask {report.unknown}"
        )
        if report.stopped:
            print(f"stopped: {report.stopped}", file=sys.stderr)
    # A release that had work to do has done it: what it left stopped was not asked for.
    return 1 if report.failed or (report.stopped and not release) else 0


def _end_of(day: date, policy: Policy) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), policy.zone) - timedelta(
        microseconds=1
    )
