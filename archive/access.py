"""Who may do what: levels, and the caller that every verb asks for.

A level is held by a key. Levels do not contain each other: an uploader may create and never read,
an auditor reads the ledger and never hears a call.
"""

from dataclasses import dataclass
from enum import StrEnum

from archive.bounds import FREE, Bounds
from archive.errors import ForbiddenError


class Level(StrEnum):
    """The access levels of the archive."""

    UPLOADER = "uploader"
    SUPERVISOR = "supervisor"
    PRIVACY = "privacy"
    AUDITOR = "auditor"
    ADMIN = "admin"


READERS = frozenset({Level.SUPERVISOR, Level.PRIVACY})
"""Who may find and hear recordings."""

OPERATORS = frozenset({Level.AUDITOR, Level.ADMIN})
"""Who may look at the archive's workings, and never at a call."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the id of the key, its level, and what the key is limited to.

    `source` is set for uploaders; `call_types` limits readers, None meaning all of them; `bounds`
    are for any level, but the quota.
    """

    id: str
    level: Level
    source: str | None = None
    call_types: frozenset[str] | None = None
    bounds: Bounds = FREE

    def may_know(self, call_type: str) -> bool:
        """Whether recordings of this call type exist at all for this caller."""
        return self.call_types is None or call_type in self.call_types


def require(caller: Caller, levels: frozenset[Level]) -> None:
    """Raise ForbiddenError unless the caller's level is one of these."""
    if caller.level not in levels:
        needed = ", ".join(sorted(levels))
        raise ForbiddenError(f"This needs a key of level {needed}; yours is {caller.level}.")
