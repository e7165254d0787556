"""Letting a blown fuse go on: the decision of two people, where two can be told apart.

A person is told by a key of level admin. Where two or more such keys are valid that are not said to
be one person's, the first person's release only asks, and another person's release of the same day,
within a day, is the one that counts. Each step is an entry of the ledger, and the asking is read
back from there.
"""

from dataclasses import dataclass
from datetime import date

from archive.access import Level
from storage import borne, clocks, four_eyes, ledger
from storage.database import Connection, connection
from storage.four_eyes import Matter, RefusedError
from storage.vault import Vault

_LEVELS = frozenset({Level.ADMIN})


@dataclass(frozen=True, slots=True)
class Release:
    """What came of it: released, by so many people, or only asked for; and how many recordings that
    the ledger does not bear out are let go with it.
    """

    done: bool
    people: int
    let_go: int


async def release(vault: Vault, through: date, token: str = "") -> Release:
    """Let erasing go on for expiry days up to `through`, on the word of who holds the token.

    Naming today also takes the database's clock for right from now on, and ends what holds the
    erasing. Raises RefusedError for a day that the database's clock has not reached, and for a
    token that is not an admin's.
    """
    async with connection(vault.pool) as lent, lent.transaction():
        await four_eyes.alone(lent)
        today = vault.policy.day_of((await clocks.read(lent)).database)
        if through > today:
            raise RefusedError(
                f"by the database's clock today is {today.isoformat()}: release no later day"
            )
        several = (await admins(lent))[0] > 1
        actor = ledger.SYSTEM
        if several or token:
            whose = four_eyes.person if several else four_eyes.holder
            actor = (await whose(lent, vault.ring, token, _LEVELS)).id
        reach = None if through == today else through
        count, digest = await borne.stopped(lent, reach)
        facts: dict[str, object] = {"through": through.isoformat(), "let_go": count}
        seen = {**facts, "digest": digest}
        answers = {"through": through.isoformat()}
        matter = Matter("fuse.release_asked", "fuse.released", _LEVELS, seen, answers=answers)
        asker = await four_eyes.asker(lent, actor, matter) if several else None
        if several and asker is None:
            facts["digest"] = digest
            await ledger.record(lent, actor, "fuse.release_asked", facts=facts)
            return Release(False, 1, count)
        facts |= {"people": 2 if asker else 1, "keys": [*([asker] if asker else []), actor]}
        await _let_go_on(lent, through, today)
        if await borne.let_go(lent, reach, digest, actor) != count:
            raise RefusedError("what is stopped has changed just now: look again")
        await ledger.record(lent, actor, "fuse.released", facts=facts)
        return Release(True, 2 if asker else 1, count)


async def admins(lent: Connection) -> tuple[int, int]:
    """How many people may hold a valid key of level admin, and how many do for certain.

    Where they may be two, a release is their decision; and it takes two who are known.
    """
    [row] = await lent.fetch(
        "SELECT count(DISTINCT coalesce(person, id)), count(DISTINCT person) FROM access_key"
        " WHERE level = $1 AND revoked_at IS NULL",
        Level.ADMIN,
    )
    return row[0], row[1]


async def _let_go_on(lent: Connection, through: date, today: date) -> None:
    await lent.execute(
        "UPDATE archive SET released_through = $1,"
        " hold = CASE WHEN $2 THEN NULL ELSE hold END,"
        " clock_mark = CASE WHEN $2 THEN archive_now() ELSE clock_mark END",
        through,
        through == today,
    )
