"""What a door bears of those who send: how many connections, how slowly, how much around how
little, and how many wrong keys. Rules and counts alone; `connections` carries them out.

None of them asks how long an upload takes: a slow line may need hours, and a call that is still
being spoken can be sent meanwhile. What counts is that something comes.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Protocol

from archive.bounds import Bucket, Network, Rate, peer_of, within
from archive.errors import TooManyError

IDLE = 75.0
"""Seconds that a connection may wait for a whole head, from its start or its last answer."""

HEAD = 15.0
"""Seconds for a head from its first byte."""

LINE = 2**16
FIELD = 2**14
FIELDS = 100
HEAD_BYTES = LINE + FIELD
"""Bytes of the first line of a head and of one of its fields, how many fields there may be, and
bytes of all of it: a thousand heads at once are held twice over while they come in."""

SLOWEST = 256
GRACE = 60.0
"""Bytes a second that a body comes in with at least, and for how many seconds it may be slower.
The slowest codec of speech has twice as many."""

WRAPPING = 2**12
"""Bytes that a body's chunks may have around it, besides twice what is in them."""

UNTAKEN = 600.0
"""Seconds that somebody may take nothing of an answer."""

WHOLE = 24 * 3600.0
"""Seconds for a request and its answer together: twice the longest recording."""

WRONG_KEYS = Rate.from_text("60/min")
"""Requests of an address without a valid key."""

WRONG_SESSIONS = Rate.from_text("600/min")
"""Requests of an address with a session that there is not, and ways back from a provider that it
did not vouch for. Many people behind one address come with sessions that are over, each morning:
that is nobody's guess, so it may be more than keys."""

FLOODS = Rate.from_text("30/min")
"""Connections of an address that had to be ended. Beyond them it gets none for a while, since each
costs the door more than it costs the sender."""

_KNOWN = 10_000
"""Addresses that are remembered."""

_STEP = 2.0
"""The most seconds that one look counts: a service that stood still blames no sender for it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections of a door, in all and an address.

    `proxies` are addresses behind which there are many: they are not counted, and have to count
    their own clients. Nobody's word is taken for whose request it is.
    """

    connections: int = 1000
    per_address: int = 128
    proxies: tuple[Network, ...] = ()

    def counted(self, address: str | None) -> str:
        """What an address counts as: of IPv6 its /64, which is one house's; "" for none."""
        peer = peer_of(address and address.partition("/")[0])
        if peer is None or within(address, self.proxies):
            return ""
        return str(peer if peer.version == 4 else ip_network((peer, 64), strict=False))


class Pace:
    """How long the sender of a body may still be slow."""

    def __init__(self, now: float) -> None:
        self._left, self._at, self._received = GRACE, now, 0

    def keeps(self, received: int, now: float, *, waiting: bool) -> bool:
        """Whether so many bytes by now are enough; `waiting`: it was the sender's turn."""
        if waiting:
            self._left -= min(now - self._at, _STEP)
        self._left = min(GRACE, self._left + (received - self._received) / SLOWEST)
        self._at, self._received = now, received
        return self._left > 0


def wrapped_too_much(wire: int, received: int) -> bool:
    """Whether so many bytes on the wire are a flood of tiny chunks, extensions or trailers."""
    return wire > WRAPPING + 2 * received


class Guest(Protocol):
    """A connection, as far as it is counted."""

    address: str

    def waited(self) -> float | None:
        """Since when, on the loop's clock, it has nothing to do; None if it has."""

    def cut(self) -> None:
        """End it now."""

    def look(self, now: float) -> None:
        """See whether it goes on as it should."""


class Tally:
    """How often each address did something, by a rate."""

    def __init__(self, limits: Limits, rate: Rate, clock: Callable[[], float]) -> None:
        self._limits, self._rate, self._clock = limits, rate, clock
        self._buckets: dict[str, Bucket] = {}

    def wait(self, address: str | None) -> float:
        """Seconds until it is within the rate again; 0 if it is."""
        known = self._buckets.get(self._limits.counted(address))
        return known.wait(self._clock()) if known is not None else 0.0

    def count(self, address: str | None) -> None:
        """It did it once more."""
        if counted := self._limits.counted(address):
            if counted not in self._buckets and len(self._buckets) >= _KNOWN:
                del self._buckets[next(iter(self._buckets))]
            now = self._clock()
            self._buckets.setdefault(counted, Bucket(self._rate, now)).take(now)


class WrongKeys(Tally):
    """How often each address came without a valid key, or session. Beyond the rate none of it is
    looked at, so that a flood costs no question to the database."""

    def __init__(
        self, limits: Limits, clock: Callable[[], float] = time.monotonic, rate: Rate = WRONG_KEYS
    ) -> None:
        super().__init__(limits, rate, clock)

    def check(self, address: str | None) -> None:
        """Raises TooManyError for an address that came too often."""
        if wait := self.wait(address):
            raise TooManyError(
                "From this address came too many requests without a valid key."
                " Wait as long as Retry-After says.",
                math.ceil(wait),
            )


class Crowd:
    """The connections of a door."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.guests: set[Guest] = set()
        self._ended: Counter[str] = Counter()
        self._of: Counter[str] = Counter()
        self._floods = Tally(limits, FLOODS, clock)

    def flooded(self, guest: Guest, why: str) -> None:
        """A connection has to be ended for what it does."""
        self._ended[why] += 1
        self._floods.count(guest.address)

    def enter(self, guest: Guest) -> bool:
        """Let a connection in, if need be in the place of the one that has waited longest."""
        if self._floods.wait(guest.address):
            self._ended["after too many of these"] += 1
            return False
        if guest.address and self._of[guest.address] >= self.limits.per_address:
            self._ended["too many of an address"] += 1
            return False
        if len(self.guests) >= self.limits.connections and not self._make_room():
            self._ended["too many in all"] += 1
            return False
        self.guests.add(guest)
        self._of[guest.address] += 1
        return True

    def leave(self, guest: Guest) -> None:
        """Forget one that has ended."""
        if guest in self.guests:
            self.guests.remove(guest)
            self._of[guest.address] -= 1
            if not self._of[guest.address]:
                del self._of[guest.address]

    def _make_room(self) -> bool:
        idle = [(since, guest) for guest in self.guests if (since := guest.waited()) is not None]
        if not idle:
            return False
        _, longest = min(idle, key=lambda each: each[0])
        self._ended["idle when it was full"] += 1
        self.leave(longest)
        longest.cut()
        return True

    def told(self) -> str:
        """What was ended since this was last asked, and how often."""
        said = ", ".join(f"{count} {why}" for why, count in sorted(self._ended.items()))
        self._ended.clear()
        return said
