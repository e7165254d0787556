"""What lies in landing buckets and is left there for now: why, and when it is looked at again.

An object that is refused is not read again for a day, one that waits for what belongs to it, or
that the archive failed of, the less often the longer it does, and one that was taken in is only
removed, however often the store refuses that. An object is known by a keyed hash of its key,
version and ETag: names hold numbers. A row whose object is gone goes with the next look at the
whole bucket.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from storage.database import Connection
from storage.holdings import Holding
from storage.keyring import Ring

A_DAY = timedelta(days=1)
"""How long what was refused is left alone: the mapping, or a key's bounds, may change."""

_SOONEST, _LATEST = timedelta(seconds=10), timedelta(hours=1)


class Fate(StrEnum):
    """What became of an object that is still there."""

    TAKEN = "taken"
    REFUSED = "refused"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Left:
    """`due`: it is to be looked at again."""

    fate: Fate
    why: str
    due: bool


async def begin(lent: Connection, names: Sequence[str]) -> None:
    """Know these landing buckets and no others, and ask again about what was refused."""
    await lent.execute("DELETE FROM landing WHERE name <> ALL ($1)", names)
    await lent.execute(
        "INSERT INTO landing (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", names
    )
    await lent.execute(
        "UPDATE landing_left SET again_at = archive_now() WHERE landing = ANY ($1)", names
    )


async def of(
    lent: Connection, ring: Ring, name: str, held: Iterable[Holding]
) -> Mapping[Holding, Left]:
    """What is known of these."""
    known = {_hash(ring, name, each): each for each in held}
    rows = await lent.fetch(
        "SELECT object, fate, why, again_at <= archive_now() AS due FROM landing_left"
        " WHERE landing = $1 AND object = ANY ($2)",
        name,
        [*known],
    )
    return {known[row["object"]]: Left(Fate(row["fate"]), row["why"], row["due"]) for row in rows}


async def note(
    lent: Connection, ring: Ring, name: str, held: Sequence[Holding], fate: Fate, why: str = ""
) -> None:
    """Write down what became of these, and so when they are looked at again."""
    for each in held:
        await lent.execute(
            "INSERT INTO landing_left (landing, object, fate, why, again_at)"
            " VALUES ($1, $2, $3, $4, CASE $3 WHEN 'taken' THEN archive_now()"
            " WHEN 'refused' THEN archive_now() + $5::interval"
            " ELSE archive_now() + least($7::interval,"
            " greatest($6::interval, archive_now() - coalesce($8, archive_now()))) END)"
            " ON CONFLICT (landing, object)"
            " DO UPDATE SET fate = excluded.fate, why = excluded.why, again_at = excluded.again_at",
            name,
            _hash(ring, name, each),
            fate,
            why,
            A_DAY,
            _SOONEST,
            _LATEST,
            each.at,
        )


async def looked(
    lent: Connection, name: str, began: datetime, oldest: datetime | None, refused: int
) -> None:
    """The whole bucket was looked at: rows that were due before and were not renewed are of what
    is gone.
    """
    await lent.execute("DELETE FROM landing_left WHERE landing = $1 AND again_at < $2", name, began)
    await lent.execute(
        "UPDATE landing SET looked_at = archive_now(), oldest = $2, refused = $3 WHERE name = $1",
        name,
        oldest,
        refused,
    )


async def refused(lent: Connection, name: str) -> int:
    """How many were, when the bucket was last looked at as a whole."""
    return await lent.fetchval("SELECT refused FROM landing WHERE name = $1", name) or 0


def _hash(ring: Ring, name: str, held: Holding) -> bytes:
    at = held.at.isoformat() if held.at else ""
    text = "\0".join((name, held.key, held.id or "", held.etag, at))
    return hmac.digest(ring.lookup_key("landing"), text.encode("utf-8", "surrogatepass"), "sha256")
