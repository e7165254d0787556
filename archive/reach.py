"""Where the archive may go to fetch something: hosts that the configuration names, by https, and at
addresses that are in the open.

What names the place comes from outside, so it may name the inside: a database's port, a metadata
service, the archive's own doors. A host alone says nothing, for its name may lead anywhere and
elsewhere a moment later: the address is judged too, at the moment of connecting. Addresses of one's
own networks are reached only where those are declared.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from archive.bounds import Network

_NAT64 = IPv6Network("64:ff9b::/96")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Reach:
    """`hosts` are names, with a port where it is not the usual one; `*.` before a name stands for
    all below it. `networks` are one's own that may be reached besides the open ones.
    """

    hosts: tuple[str, ...]
    networks: tuple[Network, ...] = ()
    http: bool = False

    def covers(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether something may be fetched from there, wherever the name leads."""
        if scheme != "https" and not (scheme == "http" and self.http):
            return False
        name = host.lower().rstrip(".")
        name = f"[{name}]" if ":" in name else name
        if port not in (None, _PORTS[scheme]):
            name = f"{name}:{port}"
        return any(
            name.endswith(each[1:]) and len(name) >= len(each)
            if each.startswith("*.")
            else name == each
            for each in self.hosts
        )

    def admits(self, address: str) -> bool:
        """Whether a connection to this address may be made."""
        try:
            meant = _meant(ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        return _in_the_open(meant) or any(meant in network for network in self.networks)


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The address that one written as IPv6 leads to, where it has an IPv4 one in it."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _in_the_open(address: IPv4Address | IPv6Address) -> bool:
    closed = address.is_multicast or address.is_reserved or address.is_unspecified
    if isinstance(address, IPv6Address):
        closed = closed or address.is_site_local or address.teredo is not None
    return address.is_global and not closed
