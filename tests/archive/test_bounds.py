"""What a key is bound to: networks, a rate, and bytes a day."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from archive.bounds import FREE, Bounds, Bucket, Rate, until_midnight

HELSINKI = ZoneInfo("Europe/Helsinki")


@pytest.mark.parametrize(
    ("address", "covered"),
    [
        ("10.1.2.3", True),
        ("10.1.3.0", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("::ffff:10.1.2.3", True),  # as a listener for both families tells it
        ("::ffff:11.1.2.3", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", False),
        ("", False),
        (None, False),
        ("10.1.2.3, 10.1.2.4", False),
    ],
)
def test_networks(address: str | None, covered: bool) -> None:
    bounds = Bounds.from_texts("10.1.2.0/24, 192.0.2.7,2001:db8::/32")
    assert bounds.covers(address) is covered
    assert FREE.covers(address)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("networks", ""),
        ("networks", "10.0.0.1/8"),
        ("networks", "10.0.0.0/8,"),
        ("networks", "pbx.example"),
        ("rate", "20"),
        ("rate", "0/s"),
        ("rate", "20/d"),
        ("rate", "20/s "),
        ("rate", "1000000/s"),
        ("quota", "50"),
        ("quota", "0GB"),
        ("quota", "50gb"),
        ("quota", "1.5GB"),
    ],
)
def test_what_is_written_wrong_is_told(what: str, text: str) -> None:
    with pytest.raises(ValueError, match="written like"):
        Bounds.from_texts(**{what: text})


def test_what_is_written_right_is_read() -> None:
    bounds = Bounds.from_texts(None, "100/min", "50GB")
    assert (bounds.rate, bounds.quota) == (Rate(100, "100/min", 60), 50 * 10**9)
    assert Bounds.from_texts() == FREE


def test_a_bucket_gives_what_the_rate_says_and_no_more() -> None:
    bucket = Bucket(Rate.from_text("4/s"), 100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [0, 0, 0, 0]
    assert bucket.take(100.0) == 0.25
    assert bucket.take(100.125) == 0.125  # asking in vain costs nothing
    assert bucket.take(100.25) == 0
    assert bucket.take(100.25) == 0.25
    # A long rest gives one period's worth, not more.
    assert [bucket.take(1000.0) for _ in range(5)] == [0, 0, 0, 0, 0.25]


@pytest.mark.parametrize(
    ("now", "left"),
    [
        ("2026-11-24T23:59:59+02:00", timedelta(seconds=1)),
        ("2026-11-24T00:00:00+02:00", timedelta(hours=24)),
        ("2026-03-29T00:00:00+02:00", timedelta(hours=23)),
        ("2026-10-25T00:00:00+03:00", timedelta(hours=25)),
    ],
)
def test_a_day_ends_at_midnight_of_the_archive(now: str, left: timedelta) -> None:
    assert until_midnight(datetime.fromisoformat(now), HELSINKI) == left
