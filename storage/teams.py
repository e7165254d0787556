"""Teams: sets of agents and queues that the operator keeps, for readers to be limited to.

A change of a team changes what its readers may know of at their next request, and within a second
of what they are listening to. Each is an entry of the ledger; who is in the team is sealed there as
well.
"""

import re
from collections.abc import Sequence

from archive.recording import LONGEST, is_text
from archive.retention import Policy
from storage import ledger, scopes
from storage.database import Connection
from storage.keyring import Ring
from storage.scopes import Members

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

MOST = 1000
"""Agents and queues of one team: a search looks for each of them."""


class TeamRefusedError(ValueError):
    """A team cannot be kept as asked; the message says why, and names nobody."""


async def put(lent: Connection, ring: Ring, policy: Policy, members: Members) -> None:
    """Say who is in a team from now on, whoever was in it before. Raises TeamRefusedError."""
    _check(members)
    async with lent.transaction():
        await lent.execute(
            "INSERT INTO team (name, members) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE"
            " SET members = EXCLUDED.members",
            members.team,
            scopes.seal(ring, members),
        )
        now = await lent.fetchval("SELECT archive_now()")
        agents, queues = members.agents, members.queues
        facts = {"team": members.team, "agents": len(agents), "queues": len(queues)}
        sealed = ledger.seal(ring, policy.furthest(now), {"agents": agents, "queues": queues})
        await ledger.record(lent, ledger.SYSTEM, "team.changed", facts=facts, sealed=sealed)


def _check(members: Members) -> None:
    if not _NAME.fullmatch(members.team):
        raise TeamRefusedError(
            "a team's name has 1 to 64 letters, digits, dots, dashes or underscores"
        )
    names = (*members.agents, *members.queues)
    if not 0 < len(names) <= MOST:
        raise TeamRefusedError(f"a team has 1 to {MOST} agents and queues")
    if not all(0 < len(name.strip()) <= LONGEST and is_text(name) for name in names):
        raise TeamRefusedError(f"an agent or a queue is named in 1 to {LONGEST} characters")


async def remove(lent: Connection, name: str) -> None:
    """Remove a team: who is limited to it alone knows of nothing. Raises TeamRefusedError."""
    async with lent.transaction():
        if not await lent.fetchval("DELETE FROM team WHERE name = $1 RETURNING true", name):
            raise TeamRefusedError("there is no team of this name")
        await ledger.record(lent, ledger.SYSTEM, "team.removed", facts={"team": name})


async def every(lent: Connection, ring: Ring) -> Sequence[Members]:
    """All teams and who is in them, by name."""
    rows = await lent.fetch("SELECT members FROM team ORDER BY name")
    return [scopes.unseal(ring, row["members"]) for row in rows]
