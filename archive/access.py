"""Who may do what: levels, scopes, and the caller that every verb asks for.

A level is held by a key. Levels do not contain each other: an uploader may create and never read,
an auditor reads the ledger and never hears a call. A scope narrows what a reader knows of: what
lies outside does not exist for them.
"""

from dataclasses import dataclass
from enum import StrEnum

from archive.bounds import FREE, Bounds
from archive.errors import LevelError
from archive.recording import caseless


class Level(StrEnum):
    """The access levels of the archive."""

    UPLOADER = "uploader"
    SUPERVISOR = "supervisor"
    PRIVACY = "privacy"
    AUDITOR = "auditor"
    ADMIN = "admin"


READERS = frozenset({Level.SUPERVISOR, Level.PRIVACY})
"""Who may find and hear recordings."""

ORIGINALS = frozenset({Level.PRIVACY})
"""Who may hear what was made silent for everybody else, and have it heard again."""

OPERATORS = frozenset({Level.AUDITOR, Level.ADMIN})
"""Who may look at the archive's workings, and never at a call."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which recordings exist for a reader; None is no limit, and both limits count.

    `among` are queues and agents, as `member` writes them: a recording is inside when its queue or
    its agent is one of them.
    """

    call_types: frozenset[str] | None = None
    among: frozenset[tuple[str, str]] | None = None

    def covers(self, call_type: str, queue: str | None, agent: str | None) -> bool:
        """Whether a recording of this type, queue and agent may be known of."""
        if self.call_types is not None and call_type not in self.call_types:
            return False
        if self.among is None:
            return True
        known = (("queue", queue), ("agent", agent))
        named = {member(field, name) for field, name in known if name}
        return not named.isdisjoint(self.among)

    def covers_erased(self, call_type: str) -> bool:
        """The same for one whose queue and agent nobody can tell any more."""
        return self.covers(call_type, None, None)


EVERYTHING = Scope()
"""No limit."""


def member(field: str, name: str) -> tuple[str, str]:
    """A queue or an agent, as scopes hold it: case, the way that marks are written and spaces
    around it do not count.
    """
    return field, caseless(name.strip())


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the id of the key, its level, and what the key is limited to.

    `source` is set for uploaders; `scope` limits readers; `bounds` are for any level, but the
    quota.
    """

    id: str
    level: Level
    source: str | None = None
    scope: Scope = EVERYTHING
    bounds: Bounds = FREE


def require(caller: Caller, levels: frozenset[Level]) -> None:
    """Raise LevelError, a ForbiddenError, unless the caller's level is one of these."""
    if caller.level not in levels:
        needed = ", ".join(sorted(levels))
        raise LevelError(f"This needs a key of level {needed}; yours is {caller.level}.")
