"""`archive expire`: erase what is due, say what is or will be, let a stopped fuse go on."""

import json
import sys
from datetime import date, datetime, timedelta

from app.command import own_token
from app.config import Config
from app.vault import opened
from archive.retention import Policy
from jobs import expiry
from storage import database, removal
from storage.four_eyes import RefusedError
from storage.release import release
from storage.vault import Vault


async def say(config: Config, on: date | None, *, as_json: bool) -> int:
    """Name what is due now, or will be by the end of a day, and why."""
    async with opened(config, join=True) as vault:
        at = _end_of(on, vault.policy) if on else await database.now(vault.pool)
        due = await removal.due(vault, at)
        at = vault.policy.local(at)
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


async def act(config: Config, through: date | None, token_file: str, *, as_json: bool) -> int:
    """Erase what is due, after letting a blown fuse go on `through` a day if asked to; 1 if
    something is left.
    """
    token = own_token(token_file) if through else ""
    async with opened(config, join=True, patience=database.LONG) as vault:
        if through and not await _released(vault, through, token):
            return 1
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
    return 1 if report.failed or (report.stopped and not through) else 0


async def _released(vault: Vault, through: date, token: str) -> bool:
    """Release, and say what came of it; False when nothing may go on yet."""
    try:
        came = await release(vault, through, token)
    except RefusedError as error:
        print(f"archive: {error}", file=sys.stderr)
        return False
    day = through.isoformat()
    also = (
        f" {came.let_go} recordings that the ledger does not bear out go as well, and no proof of"
        " theirs ever holds again: put their rows back instead where you can."
    ) * bool(came.let_go)
    if not came.done:
        print(
            f"archive: a release through {day} is asked for, and nothing is erased yet: a second"
            " person has to run the same command within 24 hours, with an admin key of their"
            f" own.{also}",
            file=sys.stderr,
        )
        return False
    print(f"released through {day}{'.' * bool(also)}{also}", file=sys.stderr)
    return True


def _end_of(day: date, policy: Policy) -> datetime:
    return policy.midnight(day + timedelta(days=1)) - timedelta(microseconds=1)
