"""Scopes as they stand in the database: what a reader is limited to, and who is in a team.

The row of a reader names call types, queues and teams in clear: a queue is a line of the company's,
a team a word of the operator's, and which call belongs to which is told by neither. Who is in a
team is sealed under a key of the ring, so that the database alone names nobody.
"""

import json
from dataclasses import dataclass

import asyncpg
from cryptography.exceptions import InvalidTag

from archive.access import EVERYTHING, Scope, member
from storage import boxes
from storage.keyring import Ring
from storage.sealing import DamagedError

COLUMNS = (
    "k.call_types, k.queues, k.teams, CASE WHEN k.teams IS NOT NULL THEN"
    " (SELECT array_agg(t.members) FROM team t WHERE t.name = ANY (k.teams)) END AS members,"
    " EXISTS (SELECT FROM glass g WHERE g.reader = k.id AND g.until > archive_now()"
    " AND g.ended_at IS NULL) AS broken"
)
"""What `read` needs, of a row `k` that holds rights."""


@dataclass(frozen=True, slots=True)
class Members:
    """Who is in a team: names of agents and of queues, as the telephony systems write them."""

    team: str
    agents: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()

    def pairs(self) -> set[tuple[str, str]]:
        """As a scope holds them."""
        agents = {member("agent", name) for name in self.agents}
        return agents | {member("queue", name) for name in self.queues}


def read(ring: Ring, row: asyncpg.Record) -> Scope:
    """The scope of a row that holds rights. Raises DamagedError when a team was tampered with.

    While the glass is broken (`storage.glass`) it has no limits. A team that is gone, or has nobody
    in it, leaves nothing to know of; never everything.
    """
    if row["broken"]:
        return EVERYTHING
    types, queues, teams = row["call_types"], row["queues"], row["teams"]
    among = None
    if queues is not None or teams is not None:
        among = {member("queue", name) for name in queues or ()}
        for sealed in row["members"] or ():
            team = unseal(ring, sealed)
            if team.team not in teams:
                raise DamagedError("the row of a team holds another team")
            among |= team.pairs()
    return Scope(
        None if types is None else frozenset(types), None if among is None else frozenset(among)
    )


def seal(ring: Ring, members: Members) -> bytes:
    """Seal who is in a team."""
    known = {"team": members.team, "agents": members.agents, "queues": members.queues}
    plain = json.dumps(known, ensure_ascii=False).encode()
    return boxes.seal(ring.lookup_key("team"), plain)


def unseal(ring: Ring, sealed: bytes) -> Members:
    """Open what `seal` sealed. Raises DamagedError when it was changed."""
    try:
        known = json.loads(boxes.unseal(ring.lookup_key("team"), sealed))
    except InvalidTag:
        raise DamagedError("the members of a team are not what was sealed") from None
    return Members(known["team"], tuple(known["agents"]), tuple(known["queues"]))
