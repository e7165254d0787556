"""What a key is bound to besides its level: the networks it may come from, how often it may ask,
and how much it may hand over in a day. Pure rules; who counts is above.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from zoneinfo import ZoneInfo

Network = IPv4Network | IPv6Network

_PERIODS = {"s": 1, "min": 60, "h": 3600}
_RATE = re.compile(r"([1-9][0-9]{0,5})/(s|min|h)", re.ASCII)
_QUOTA = re.compile(r"([1-9][0-9]{0,5})(kB|MB|GB|TB)", re.ASCII)
_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds, and as many at once."""

    count: int
    text: str
    seconds: int

    @classmethod
    def from_text(cls, text: str) -> "Rate":
        """Read `20/s`, `100/min` or `1000/h`. Raises ValueError."""
        match = _RATE.fullmatch(text)
        if not match:
            raise ValueError("a rate is written like 20/s, 100/min or 1000/h")
        return cls(int(match[1]), text, _PERIODS[match[2]])


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a key is bound to; None binds to nothing. `quota` in bytes a day."""

    networks: tuple[Network, ...] | None = None
    rate: Rate | None = None
    quota: int | None = None

    @classmethod
    def from_texts(
        cls, networks: str | None = None, rate: str | None = None, quota: str | None = None
    ) -> "Bounds":
        """Read what a person wrote. Raises ValueError, which says how to write it."""
        return cls(
            None if networks is None else read_networks(networks),
            None if rate is None else Rate.from_text(rate),
            None if quota is None else _bytes(quota),
        )

    def covers(self, address: str | None) -> bool:
        """Whether a request from this address may be made; without an address only if any may."""
        return self.networks is None or within(address, self.networks)


FREE = Bounds()
"""Bound to nothing."""


class Bucket:
    """The requests that a key has left: as many as its rate says, filled up evenly.

    Times are seconds of one clock that never goes back.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._left = float(rate.count)
        self._at = now

    def wait(self, now: float) -> float:
        """The seconds until there is one to take; 0 if there is."""
        speed = self._rate.count / self._rate.seconds
        self._left = min(self._rate.count, self._left + (now - self._at) * speed)
        self._at = now
        return (1 - self._left) / speed if self._left < 1 else 0.0

    def take(self, now: float) -> float:
        """Take one, and return 0; or the seconds until there is one again."""
        if wait := self.wait(now):
            return wait
        self._left -= 1
        return 0.0


def until_midnight(now: datetime, zone: ZoneInfo) -> timedelta:
    """How long the day of this instant goes on; its end may be 23 or 25 hours after its start."""
    local = now.astimezone(zone)
    midnight = datetime.combine(local.date() + timedelta(days=1), time(), zone)
    return timedelta(seconds=midnight.timestamp() - now.timestamp())


def peer_of(address: str | None) -> IPv4Address | IPv6Address | None:
    """Who an address is, whichever way a listener tells of it; None for none."""
    try:
        peer = ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    # A listener for both families tells of an IPv4 peer in IPv6's notation.
    return (peer.ipv4_mapped or peer) if isinstance(peer, IPv6Address) else peer


def within(address: str | None, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of these networks."""
    peer = peer_of(address)
    return peer is not None and any(peer in network for network in networks)


def read_networks(text: str) -> tuple[Network, ...]:
    """Read `10.0.0.0/8,2001:db8::/32`. Raises ValueError."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(","))
    except ValueError:
        raise ValueError(
            "networks are written like 10.0.0.0/8,2001:db8::/32, with no bits after the prefix"
        ) from None


def _bytes(text: str) -> int:
    match = _QUOTA.fullmatch(text)
    if not match:
        raise ValueError("a quota is written like 500MB, 50GB or 2TB")
    return int(match[1]) * _UNITS[match[2]]
