"""Signing in, as rules: how long who failed has to wait, which passwords are taken, and where in
the archive somebody may be sent on to.
"""

import re
from dataclasses import dataclass

SHORTEST = 12
LONGEST = 256
"""The bounds of a password, in characters. What is in it is its owner's affair."""

_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}", re.ASCII)
"""An absolute path on this host, of visible ASCII, with no backslash, which browsers take for a
slash."""


@dataclass(frozen=True, slots=True)
class Slowing:
    """So many tries are free; each further one doubles the wait before the next, up to `longest`
    seconds.
    """

    free: int
    longest: float

    def wait(self, failures: int, since: float) -> float:
        """The seconds that are left to wait, `since` seconds after the last of so many failures."""
        if failures < self.free:
            return 0.0
        return max(min(2.0 ** min(failures - self.free, 30), self.longest) - since, 0.0)


OF_A_NAME = Slowing(free=4, longest=300.0)
OF_AN_ADDRESS = Slowing(free=30, longest=30.0)
"""An address is often many people's, behind one proxy or one office."""


def is_told(failures: int) -> bool:
    """Whether so many failures are written down: the first, the second, the fourth, the eighth."""
    return failures > 0 and failures & (failures - 1) == 0


def fault_of(password: str, name: str) -> str:
    """What is wrong with a new password: `short`, `long` or `name`; empty if nothing is."""
    if len(password) < SHORTEST:
        return "short"
    if len(password) > LONGEST:
        return "long"
    return "name" if name.casefold() in password.casefold() else ""


def way_on(path: str, otherwise: str) -> str:
    """A path of this door to go on to, or `otherwise` for anything that could lead elsewhere."""
    return path if _PATH.fullmatch(path) else otherwise
