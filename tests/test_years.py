"""Tests that wait for the end of a year can do so at any moment."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.recording import CallType
from tests import years
from tests.jobs.test_expiry import a_year_ago
from tests.services import Service
from tests.web.test_listen import upload
from torture import __main__ as room

DAY = timedelta(days=1)


def ends(start: datetime) -> datetime:
    return years.POLICY.expiry(CallType.OTHER, start).at


@pytest.mark.parametrize(
    ("wanted", "end"),
    [
        # 29 February: on the day, 360 days after 6 March, and 60 after New Year's Eve.
        ("2028-02-29T12:00:00+02:00", "2028-03-01T00:00:00+02:00"),
        ("2028-02-29T23:59:00+02:00", "2028-03-01T00:59:00+02:00"),
        # The first of two equal hours, and the second, in which no year ends.
        ("2026-10-25T03:30:00+03:00", "2026-10-25T03:30:00+03:00"),
        ("2026-10-25T03:30:00+02:00", "2026-10-25T04:30:00+02:00"),
        # There was no 03:30 a year before.
        ("2026-03-30T03:30:00+03:00", "2026-03-30T04:30:00+03:00"),
        # Nor is there one now; 04:30 is there twice a year before.
        ("2027-03-28T04:30:00+03:00", "2027-03-28T04:30:00+03:00"),
        ("2029-02-28T12:00:00+02:00", "2029-02-28T12:00:00+02:00"),
        ("2028-02-28T12:00:00.123456+02:00", "2028-02-28T12:00:00.123456+02:00"),
    ],
)
def test_a_year_ends_when_it_is_wanted_or_as_soon_as_one_does(wanted: str, end: str) -> None:
    moment = datetime.fromisoformat(wanted)
    assert ends(years.starting(moment)) == datetime.fromisoformat(end)
    assert (years.started(moment) is not None) is (wanted == end)


@given(st.datetimes(datetime(2026, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_years_end_nearly_always(moment: datetime) -> None:
    wait = years.until_years_end(moment, timedelta(minutes=20))
    local = moment.astimezone(years.HELSINKI) + timedelta(minutes=20)
    assert not wait or local.month in (2, 3, 10)
    for later in (timedelta(), timedelta(minutes=20)):
        assert ends(years.starting(moment + wait + later)) == moment + wait + later


async def test_when_no_year_ends_the_clocks_of_a_test_go_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on 29 February: what is due in 20 seconds is due in a day and 20 seconds."""
    real = years.until_years_end

    def leap_day(moment: datetime, span: timedelta = timedelta()) -> timedelta:
        return DAY if span else real(moment)

    monkeypatch.setattr(years, "until_years_end", leap_day)
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    left = (await service.rows())[0]["expires_at"] - datetime.now(UTC)
    assert DAY < left < DAY + timedelta(seconds=20)
    report = await service.erase()
    assert (report.erased, report.stopped) == (0, "")
    await service.turn_clock(timedelta(seconds=30))
    report = await service.erase()
    assert (report.erased, report.stopped) == (1, "")


def test_the_torture_room_says_when_no_year_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(years, "until_years_end", lambda *_: timedelta(hours=12))
    monkeypatch.setattr("sys.argv", ["torture", "model"])
    with pytest.raises(SystemExit) as ended:
        room.main()
    assert ended.value.code == 2
    assert "no call's year ends now" in capsys.readouterr().err
