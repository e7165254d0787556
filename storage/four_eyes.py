"""Four eyes: what one person asks for and another one grants, by asking for the same.

The ledger is the only record: an asking is an entry, good for a day and for one granting, and the
granting is another that names both. Never two keys of one person: the operator says whose each is
(storage/persons.py), and a key of which nobody said it is no second person's. Whoever asked must
still hold their key and its level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from archive.access import Caller, Level
from archive.errors import UnauthenticatedError
from storage import credentials, ledger
from storage.database import Connection
from storage.keyring import Ring

WAIT = timedelta(hours=24)
"""How long a person who asked waits for the second."""


class RefusedError(ValueError):
    """This cannot be asked for, or not by this person; the message says why."""


@dataclass(frozen=True, slots=True)
class Matter:
    """What is asked for: its two acts on the ledger, who may, and what both must have named.

    `answers`: what a granting names that answers an asking, if that is less.
    """

    asked: str
    granted: str
    levels: frozenset[Level]
    facts: Mapping[str, object]
    recording: UUID | None = None
    answers: Mapping[str, object] | None = None


async def person(lent: Connection, ring: Ring, token: str, levels: frozenset[Level]) -> Caller:
    """Whose word it is, of two. Raises RefusedError as `holder` does, and for a key of which
    it was not said whose it is.
    """
    if not token:
        raise RefusedError(
            f"two people decide, each with a key of level {_listed(levels)} of their own: set"
            " ARCHIVE_TOKEN to yours, or name its file with --token-file"
        )
    caller = await holder(lent, ring, token, levels)
    known = "SELECT true FROM holder WHERE id = $1 AND person IS NOT NULL"
    if not await lent.fetchval(known, caller.id):
        raise RefusedError(
            "two people decide, and whose this key is was not said: say it with"
            " `archive key person NAME PERSON`"
        )
    return caller


async def holder(lent: Connection, ring: Ring, token: str, levels: frozenset[Level]) -> Caller:
    """Whose token it is. Raises RefusedError for one that is none, or of another level."""
    try:
        login = await credentials.authenticate(lent, ring, credentials.read(token))
    except UnauthenticatedError as error:
        raise RefusedError(
            f"{error.detail} Set ARCHIVE_TOKEN to your own, or name its file with --token-file."
        ) from None
    if login.caller.level not in levels:
        raise RefusedError(
            f"this takes a key of level {_listed(levels)};"
            f" this one is of level {login.caller.level}"
        )
    return login.caller


def _listed(levels: frozenset[Level]) -> str:
    return " or ".join(sorted(levels))


async def alone(lent: Connection) -> None:
    """Let one matter be decided at a time: two who ask at once would not see each other."""
    await lent.execute("SELECT FROM archive FOR UPDATE")


async def agree(
    lent: Connection, actor: str, matter: Matter, sealed: tuple[date, bytes] | None = None
) -> str | None:
    """Grant what another asked for, and return who; or else ask for it, and return None.

    To be called in a transaction, after `alone`.
    """
    other = await asker(lent, actor, matter)
    act, facts = matter.asked, dict(matter.facts)
    if other:
        act, facts = matter.granted, {**facts, "keys": [other, actor]}
    await ledger.record(lent, actor, act, recording=matter.recording, facts=facts, sealed=sealed)
    return other


async def asker(lent: Connection, actor: str, matter: Matter) -> str | None:
    """Who else asked for the same, not too long ago, and whose asking was not answered yet."""
    found: str | None = await lent.fetchval(
        "SELECT a.actor FROM told a JOIN holder h ON h.id = a.actor"
        " WHERE a.act = $2 AND h.valid AND h.level = ANY ($3) AND two_people(a.actor, $1)"
        " AND a.facts @> $4 AND a.recording IS NOT DISTINCT FROM $5"
        " AND a.at BETWEEN archive_now() - $6::interval AND archive_now()"
        " AND NOT EXISTS (SELECT FROM told g WHERE g.act = $7 AND g.at >= a.at"
        " AND g.facts @> $8 AND g.recording IS NOT DISTINCT FROM $5)"
        " ORDER BY a.at DESC LIMIT 1",
        actor,
        matter.asked,
        sorted(matter.levels),
        dict(matter.facts),
        matter.recording,
        WAIT,
        matter.granted,
        dict(matter.facts if matter.answers is None else matter.answers),
    )
    return found
