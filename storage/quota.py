"""How many bytes a key may hand over on one day of the archive's calendar.

What was taken in is counted in the transaction that makes it exist, so that services which share
the database share the count. Only keys with a quota are counted. It is asked before a body is read,
and again when the body is here: what is at that moment on its way to the store is not counted yet,
and a quota can be overrun by that much.
"""

import math
from datetime import date, datetime

from archive.access import Caller
from archive.bounds import until_midnight
from archive.errors import TooManyError
from archive.retention import Policy
from storage.database import Connection


async def require(
    lent: Connection, caller: Caller, policy: Policy, now: datetime, size: int
) -> None:
    """Refuse what would go over the caller's quota of the day. Raises TooManyError."""
    quota = caller.bounds.quota
    if quota is None:
        return
    handed_over: int = await lent.fetchval(
        "SELECT coalesce(sum(bytes), 0)::bigint FROM handed_over WHERE key = $1 AND day = $2",
        caller.id,
        policy.day_of(now),
    )
    if handed_over + max(size, 1) > quota:
        left = until_midnight(now, policy.zone).total_seconds()
        raise TooManyError(
            "The key has handed over as much as it may today; go on after midnight.",
            math.ceil(left),
        )


async def forget(lent: Connection, key: str, before: date) -> None:
    """Drop what was counted on days that are over."""
    await lent.execute("DELETE FROM handed_over WHERE key = $1 AND day < $2", key, before)
