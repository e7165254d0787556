"""Which group of a provider's means which level here, and limited to what."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from archive.access import READERS, Level
from archive.recording import CallType

_LIMITS = ("call_types", "queues", "teams")
_LINE = re.compile(r"(?P<group>[^=]+)=\s*(?P<level>[a-z]+)(?P<limits>(\s+[a-z_]+:\S+)*)\s*")


@dataclass(frozen=True, slots=True)
class Grant:
    """Who is in this group has this level, and these limits (None is no limit)."""

    group: str
    level: Level
    call_types: tuple[str, ...] | None = None
    queues: tuple[str, ...] | None = None
    teams: tuple[str, ...] | None = None

    @property
    def limits(self) -> tuple[tuple[str, ...] | None, ...]:
        """Call types, queues and teams, in this order."""
        return self.call_types, self.queues, self.teams

    @classmethod
    def from_text(cls, text: str) -> "Grant":
        """Read `billing-leads = supervisor queues:billing|invoices teams:north`.

        Raises ValueError, which says how to write it.
        """
        match = _LINE.fullmatch(text.strip())
        levels = [each for each in Level if each is not Level.UPLOADER]
        if not match or match["level"] not in levels:
            raise ValueError(
                "must have lines like billing-leads = supervisor queues:billing|invoices, with one"
                f" of the levels {', '.join(levels)} and maybe {', '.join(_LIMITS)}"
            )
        level = Level(match["level"])
        limits = dict(part.split(":", 1) for part in match["limits"].split())
        if limits.keys() - set(_LIMITS) or (limits and level not in READERS):
            raise ValueError(f"must limit readers alone, to {', '.join(_LIMITS)}")
        read = {name: tuple(filter(None, said.split("|"))) for name, said in limits.items()}
        if not all(read.values()) or not set(read.get("call_types", ())) <= set(CallType):
            raise ValueError(f"must limit to one or more names, or of {', '.join(CallType)}")
        return cls(match["group"].strip(), level, **read)


def granted(groups: Collection[str], grants: Sequence[Grant]) -> Grant | None:
    """The first of the grants that is of one of these groups: the order decides."""
    return next((grant for grant in grants if grant.group in groups), None)
