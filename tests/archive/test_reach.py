"""Where something may be fetched: hosts by name, addresses by what they are."""

from ipaddress import ip_network

import pytest

from archive.reach import Reach

REACH = Reach(("api.example.com", "*.store.example.com", "inside.example.fi:8443", "[2001:db8::1]"))


@pytest.mark.parametrize(
    ("scheme", "host", "port"),
    [
        ("https", "api.example.com", None),
        ("https", "API.Example.com.", 443),
        ("https", "a.b.store.example.com", None),
        ("https", "inside.example.fi", 8443),
        ("https", "2001:db8::1", None),
    ],
)
def test_hosts_that_are_named(scheme: str, host: str, port: int | None) -> None:
    assert REACH.covers(scheme, host, port)


@pytest.mark.parametrize(
    ("scheme", "host", "port"),
    [
        ("http", "api.example.com", None),
        ("ftp", "api.example.com", None),
        ("file", "", None),
        ("https", "api.example.com", 8443),
        ("https", "inside.example.fi", None),
        ("https", "store.example.com", None),
        ("https", "evilstore.example.com", None),
        ("https", "api.example.com.evil.example", None),
        ("https", "", None),
    ],
)
def test_hosts_that_are_not(scheme: str, host: str, port: int | None) -> None:
    assert not REACH.covers(scheme, host, port)


def test_http_is_a_setting_of_its_own() -> None:
    assert Reach(("a.example",), http=True).covers("http", "a.example", 80)
    assert not Reach(("a.example",), http=True).covers("http", "a.example", 443)


INSIDE = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "198.18.0.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378::", "2001:db8::1",
    "", "example.com", "127.1", "0x7f000001", "2130706433",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_of_the_inside_are_not_reached(address: str) -> None:
    assert not REACH.admits(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:4700::6810:84e5", "::ffff:93.184.215.14"]
)
def test_addresses_in_the_open_are(address: str) -> None:
    assert REACH.admits(address)


def test_networks_of_ones_own_are_reached_where_they_are_declared() -> None:
    reach = Reach(("a.example",), (ip_network("10.1.0.0/16"), ip_network("fd00:1::/64")))
    assert reach.admits("10.1.2.3")
    assert reach.admits("::ffff:10.1.2.3")
    assert reach.admits("fd00:1::5")
    assert not reach.admits("10.2.0.1")
    assert not reach.admits("127.0.0.1")
    assert not reach.admits("fd00:2::5")
