"""Which periods are in force: those of the first start, until two people grant others.

The configuration says what is wanted. What is in force stands in the database, so that a slip in a
file, or one person's hand, neither keeps new recordings for longer nor erases them sooner: until
the change is granted they are taken in under the earlier periods. What is stored already keeps the
expiry that it was given, whatever happens here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from archive.access import Level
from archive.retention import Period, Policy
from storage import four_eyes
from storage.database import Connection
from storage.four_eyes import Matter, RefusedError
from storage.keyring import Ring

_LEVELS = frozenset({Level.PRIVACY, Level.ADMIN})


@dataclass(frozen=True, slots=True)
class Standing:
    """The policy in force, and whether the configuration wants another one."""

    policy: Policy
    waits: bool


async def standing(lent: Connection, wanted: Policy) -> Standing:
    """The policy in force; at the first start that is the one that is wanted."""
    row = await lent.fetchval("SELECT periods FROM policy")
    if row is None:  # only the owner of the tables comes here, before the first start
        await lent.execute(
            "INSERT INTO policy (periods) VALUES ($1) ON CONFLICT DO NOTHING", as_facts(wanted)
        )
        row = await lent.fetchval("SELECT periods FROM policy")
    return Standing(_policy(row), row != as_facts(wanted))


async def change(lent: Connection, ring: Ring, wanted: Policy, token: str) -> bool:
    """Ask for the policy that the configuration wants, or grant what another person asked for.

    True once it is in force. Raises RefusedError for a token that is not privacy's or an admin's,
    and when nothing else is wanted than what is in force.
    """
    facts = as_facts(wanted)
    matter = Matter("retention.asked", "retention.changed", _LEVELS, {"wanted": facts})
    async with lent.transaction():
        await four_eyes.alone(lent)
        caller = await four_eyes.person(lent, ring, token, _LEVELS)
        if not (await standing(lent, wanted)).waits:
            raise RefusedError("what the configuration wants is in force")
        if await four_eyes.agree(lent, caller.id, matter) is None:
            return False
        await lent.execute("UPDATE policy SET periods = $1", facts)
    return True


def as_facts(policy: Policy) -> dict[str, str]:
    """A policy as it is kept and told: the zone, and the period of each call type."""
    periods = {str(kind): str(period) for kind, period in policy.periods.items()}
    return {"timezone": policy.zone.key, **dict(sorted(periods.items()))}


def _policy(facts: Mapping[str, str]) -> Policy:
    known = dict(facts)
    zone = ZoneInfo(known.pop("timezone"))
    return Policy(zone, {kind: Period.parse(text) for kind, text in known.items()})
