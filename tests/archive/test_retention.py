"""The year: exact days, and properties over 1970 to 2100 in every time zone."""

import calendar
import runpy
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.retention import Period, Policy, decide, expires_at, explain, last_due

HELSINKI = ZoneInfo("Europe/Helsinki")
YEAR = Period(years=1)

ZONES = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})
INSTANTS = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2100, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("started", "expires"),
    [
        # The same wall-clock time of the next year, whatever number of hours that is.
        ("2025-06-01T12:00:00+03:00", "2026-06-01T12:00:00+03:00"),
        ("2025-03-29T12:00:00+02:00", "2026-03-29T12:00:00+03:00"),
        ("2026-03-29T12:00:00+03:00", "2027-03-29T12:00:00+03:00"),
        # 29 February expires on 28 February; 28 February of a leap year's eve does not move.
        ("2028-02-29T08:15:00+02:00", "2029-02-28T08:15:00+02:00"),
        ("2027-02-28T08:15:00+02:00", "2028-02-28T08:15:00+02:00"),
        ("2024-02-28T23:30:00+00:00", "2025-02-28T01:30:00+02:00"),
        # A wall-clock time in the gap moves forward by the gap (03:30 of 28 March 2027).
        ("2026-03-28T03:30:00+02:00", "2027-03-28T04:30:00+03:00"),
        # One that exists twice is the earlier (03:30 of 25 October 2026, first in summer time).
        ("2025-10-25T03:30:00+03:00", "2026-10-25T03:30:00+03:00"),
        # A call in the second of the two hours has the same wall-clock time, and the same expiry.
        ("2026-10-25T03:30:00+02:00", "2027-10-25T03:30:00+03:00"),
        # 365 days are not a year.
        ("2027-03-01T10:00:00+02:00", "2028-03-01T10:00:00+02:00"),
        # Fractions of a second stay.
        ("2025-06-01T12:00:00.123456+03:00", "2026-06-01T12:00:00.123456+03:00"),
    ],
)
def test_the_year_of_known_calls(started: str, expires: str) -> None:
    assert expires_at(at(started), YEAR, HELSINKI) == at(expires)


@given(INSTANTS, st.sampled_from(ZONES))
@settings(max_examples=600, deadline=None)
def test_the_wall_clock_is_the_same_or_moved_out_of_a_gap(started: datetime, name: str) -> None:
    zone = ZoneInfo(name)
    wall = started.astimezone(zone).replace(tzinfo=None)
    expected_day = min(wall.day, calendar.monthrange(wall.year + 1, wall.month)[1])
    expected = wall.replace(year=wall.year + 1, day=expected_day, fold=0)
    result = expires_at(started, YEAR, zone)
    shown = result.astimezone(zone).replace(tzinfo=None, fold=0)
    if shown == expected:
        # It exists; if twice, no earlier instant shows the same wall-clock time.
        before = (result - timedelta(hours=1)).astimezone(zone).replace(tzinfo=None, fold=0)
        assert before != expected
    else:
        # It does not exist: it moved forward by the gap, which is the change of the offset.
        before = (result - timedelta(seconds=1)).astimezone(zone)
        while before.utcoffset() == result.astimezone(zone).utcoffset():
            before -= timedelta(minutes=15)
        assert shown - expected == result.astimezone(zone).utcoffset() - before.utcoffset()


@given(INSTANTS, INSTANTS, st.sampled_from(["Europe/Helsinki", "Europe/London", "Asia/Tokyo"]))
@settings(max_examples=300, deadline=None)
def test_who_calls_later_by_an_hour_is_never_kept_shorter(
    one: datetime, other: datetime, name: str
) -> None:
    # Within the hour that exists twice the order of expiries may turn; beyond it never.
    first, second = sorted((one, other))
    if second - first > timedelta(hours=1):
        zone = ZoneInfo(name)
        assert expires_at(first, YEAR, zone) <= expires_at(second, YEAR, zone)


@given(INSTANTS)
@settings(max_examples=300, deadline=None)
def test_a_year_is_never_more_than_366_days_and_an_hour(started: datetime) -> None:
    length = expires_at(started, YEAR, HELSINKI) - started
    assert timedelta(days=364, hours=22) < length < timedelta(days=366, hours=2)


@pytest.mark.parametrize("text", ["", "P", "1Y", "P1H", "P-1Y", "PT1H", "P0D", "P1D1Y", "year"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="P1Y"):
        Period.parse(text)


@pytest.mark.parametrize("text", ["P1Y", "P6M", "P90D", "P1Y6M", "P1Y2M3D"])
def test_a_period_is_written_as_it_was_read(text: str) -> None:
    assert str(Period.parse(text)) == text


def test_months_and_days_are_counted_on_the_calendar() -> None:
    started = at("2026-08-31T10:00:00+03:00")
    assert expires_at(started, Period.parse("P6M"), HELSINKI) == at("2027-02-28T10:00:00+02:00")
    assert expires_at(started, Period.parse("P90D"), HELSINKI) == at("2026-11-29T10:00:00+02:00")


def test_beyond_the_calendar_is_an_error() -> None:
    with pytest.raises(ValueError, match="calendar"):
        expires_at(datetime(9999, 1, 1, tzinfo=UTC), YEAR, HELSINKI)


def test_a_policy_tells_the_instant_the_local_day_and_the_rule() -> None:
    policy = Policy(HELSINKI, {"contract": YEAR})
    expiry = policy.expiry("contract", at("2025-11-23T23:30:00+00:00"))
    assert expiry.at == at("2026-11-24T01:30:00+02:00")
    assert expiry.on == date(2026, 11, 24)
    assert expiry.rule == "P1Y Europe/Helsinki v1"
    with pytest.raises(KeyError):
        policy.expiry("other", at("2025-11-23T23:30:00+00:00"))


def test_due_is_the_instant_itself_and_nothing_before_it() -> None:
    instant = at("2026-11-24T01:30:00+02:00")
    assert decide(instant, "r", instant).due
    early = decide(instant, "r", instant - timedelta(microseconds=1))
    assert not early.due
    assert "r" in early.why


def test_the_reason_names_start_period_zone_and_instant() -> None:
    started, rule = at("2028-02-29T06:15:00+00:00"), "P1Y Europe/Helsinki v1"
    text = explain(started, expires_at(started, YEAR, HELSINKI), rule, HELSINKI)
    for part in (
        "2028-02-29T08:15:00+02:00",
        "P1Y",
        "Europe/Helsinki",
        "2029-02-28T08:15:00+02:00",
    ):
        assert part in text


VERIFIER = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "verify_certificate.py"))
PERIODS = ["P1Y", "P6M", "P1M", "P90D", "P1D", "P1Y1M", "P2Y11M31D"]


@given(INSTANTS, st.sampled_from(ZONES), st.sampled_from(PERIODS))
@settings(max_examples=600, deadline=None)
def test_no_recording_is_due_later_than_its_rule_lets_a_verifier_believe(
    told: datetime, name: str, period: str
) -> None:
    """A call may start five minutes after it is told of. Both verifiers count the same."""
    zone, rule = ZoneInfo(name), f"{period} {name} v1"
    last = last_due(told.date(), rule)
    for ahead in (timedelta(), timedelta(minutes=5)):
        due = expires_at(told + ahead, Period.parse(period), zone)
        assert due.date() <= last <= due.date() + timedelta(days=6)
    assert VERIFIER["last_due"](told.isoformat(), rule) == last


@pytest.mark.parametrize("rule", ["", "1Y", "P", "P0D", "P1Yx", "for ever", "P99Y99999D"])
def test_a_rule_without_a_period_gives_no_last_day(rule: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        last_due(date(9950, 1, 1), rule)
    with pytest.raises((SystemExit, ValueError, OverflowError)):
        VERIFIER["last_due"]("9950-01-01T00:00:00Z", rule)
