"""How often signing in was tried, so that guessing is slow: for each name and for each address.

A try is counted before it is looked at, in one step with the question whether it may be made, so
that many at the same time are no way around; who signs in takes theirs back. Names and addresses
stand here as keyed hashes alone, and for a day.

A browser in which somebody has signed in keeps a mark that says so, for their name alone. Its tries
are counted by themselves: whoever guesses elsewhere makes everybody wait who is not known yet, and
not the owner of the name at their own desk.
"""

import hmac
import math
import re
import secrets
from datetime import datetime, timedelta

from archive import sign_in
from archive.errors import TooManyError
from archive.sign_in import OF_A_NAME, OF_AN_ADDRESS, Slowing
from storage.database import Connection
from storage.keyring import Ring

NOBODY = "nobody"
"""What stands for every name that there is not, where it is counted what is told of failures."""


KNOWN_FOR = timedelta(days=90)
"""How long a browser is known in which somebody signed in."""

_KNOWN = re.compile(r"([A-Za-z0-9_-]{22}\.([0-9]{1,12}))\.([0-9a-f]{64})")


def know(ring: Ring, name: str, now: datetime) -> str:
    """What a browser keeps in which somebody has just signed in under this name."""
    said = f"{secrets.token_urlsafe(16)}.{int(now.timestamp())}"
    return f"{said}.{_known(ring, name, said)}"


def _known(ring: Ring, name: str, said: str) -> str:
    text = f"{said}\n{name}".encode(errors="surrogatepass")
    return hmac.new(ring.lookup_key("known-browser"), text, "sha256").hexdigest()


def lane(ring: Ring, name: str, shown: str, now: datetime) -> bytes:
    """What a try is counted by: the browser, where it shows that it is known, or else the name."""
    match = _KNOWN.fullmatch(shown)
    ours = match and hmac.compare_digest(match[3], _known(ring, name, match[1]))
    if match and ours and now.timestamp() - int(match[2]) < KNOWN_FOR.total_seconds():
        return _mark(ring, "browser", shown)
    return _mark(ring, "name", name)


def lane_of_owner(ring: Ring, account: str) -> bytes:
    """What the tries are counted by of who is signed in, and asked for the password again."""
    return _mark(ring, "owner", account)


async def count(lent: Connection, ring: Ring, lane: bytes, address: str) -> None:
    """Count a try; an address that is many people's, as a proxy's, is "" and not counted.

    Raises TooManyError, alike for names that there are and that there are not.
    """
    await lent.execute("DELETE FROM sign_in_try WHERE tried_at < archive_now() - interval '1 day'")
    async with lent.transaction():
        await _count(lent, lane, OF_A_NAME)
        if address:
            await _count(lent, _mark(ring, "address", address), OF_AN_ADDRESS)


async def _count(lent: Connection, mark: bytes, slowing: Slowing) -> None:
    row = await lent.fetchrow(
        "INSERT INTO sign_in_try (mark) VALUES ($1) ON CONFLICT (mark) DO UPDATE"
        " SET mark = EXCLUDED.mark"
        " RETURNING failures, extract(epoch FROM archive_now() - tried_at)::float8 AS since",
        mark,
    )
    if row and (wait := slowing.wait(row["failures"], max(row["since"], 0.0))):
        raise TooManyError("Signing in failed too often; wait.", math.ceil(wait))
    await lent.execute(
        "UPDATE sign_in_try SET failures = failures + 1, tried_at = archive_now() WHERE mark = $1",
        mark,
    )


async def forgive(lent: Connection, ring: Ring, lane: bytes, address: str) -> None:
    """Take a try back that was right: with all that failed in this lane before."""
    await lent.execute("DELETE FROM sign_in_try WHERE mark = $1", lane)
    await lent.execute(
        "UPDATE sign_in_try SET failures = greatest(failures - 1, 0) WHERE mark = $1",
        _mark(ring, "address", address),
    )


async def to_be_told(lent: Connection, ring: Ring, account: str | None) -> int:
    """Count a failure for the ledger: how many there were, or 0 when this one is not written down.

    All names that there are not count as one, so that nobody fills the ledger with them.
    """
    failures: int = await lent.fetchval(
        "INSERT INTO sign_in_try AS t (mark, failures) VALUES ($1, 1)"
        " ON CONFLICT (mark) DO UPDATE SET failures = t.failures + 1, tried_at = archive_now()"
        " RETURNING failures",
        _mark(ring, "told", account or NOBODY),
    )
    return failures if sign_in.is_told(failures) else 0


def _mark(ring: Ring, kind: str, what: str) -> bytes:
    said = f"{kind}\n{what}".encode(errors="surrogatepass")
    return hmac.digest(ring.lookup_key("sign-in-try"), said, "sha256")
