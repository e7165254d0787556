"""The year: how long a recording may be kept, and when it is due.

A period is counted on the calendar, not in days: the expiry is the same wall-clock time, day and
month of the later year, in the archive's time zone. Where that day is missing (29 February) it is
the last day of the month, as in the Finnish Act 150/1930, section 3. Where that wall-clock time is
missing (clock put forward) it moves forward by the gap; where it exists twice (clock put back) it
is the earlier one. Both are what PEP 495 gives for `fold=0`. The extension of legal periods over a
holiday (section 5 of the same Act) never applies: it would keep a recording longer than promised.
"""

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

RULE_VERSION = 1
"""Raised whenever the same call would get another expiry than before; stored with each recording.
"""

_PERIOD = re.compile(r"P(?:(\d{1,2})Y)?(?:(\d{1,3})M)?(?:(\d{1,5})D)?")


@dataclass(frozen=True, slots=True)
class Period:
    """A calendar period of ISO 8601: years, then months, then days."""

    years: int = 0
    months: int = 0
    days: int = 0

    @classmethod
    def parse(cls, text: str) -> "Period":
        """Read `P1Y`, `P6M`, `P90D` or a mix in that order. ValueError if it is none, or empty."""
        match = _PERIOD.fullmatch(text)
        parts = [int(part or 0) for part in match.groups()] if match else []
        if not any(parts):
            raise ValueError("a period is written like P1Y, P6M or P90D, and is not empty")
        return cls(*parts)

    def __str__(self) -> str:
        parts = ((self.years, "Y"), (self.months, "M"), (self.days, "D"))
        return "P" + "".join(f"{count}{unit}" for count, unit in parts if count)


def expires_at(started_at: datetime, period: Period, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, from which the call that started then may no longer be kept.

    `started_at` must be aware. Raises ValueError when the result lies beyond the year 9999.
    """
    wall = started_at.astimezone(zone).replace(tzinfo=None, fold=0)
    later = datetime.combine(_later(wall.date(), period), wall.time())
    return later.replace(tzinfo=zone).astimezone(UTC)


def _later(day: date, period: Period) -> date:
    months = day.year * 12 + day.month - 1 + period.years * 12 + period.months
    year, month = divmod(months, 12)
    if year > 9998:
        raise ValueError("the expiry lies beyond the calendar")
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last)) + timedelta(days=period.days)


def last_due(told: date, rule: str) -> date:
    """The last day, in UTC, on which what is told of on this one can be due by its rule.

    A call that starts a little after it was taken in, and any time zone, may have begun a day
    later, and end another one later. Raises ValueError or OverflowError for a rule that is none.
    """
    day = timedelta(days=1)
    return _later(told + day, Period.parse(rule.split(" ", 1)[0])) + day


def is_day_of(day: date, due: date) -> bool:
    """Whether what is due on this day by UTC can be filed under that one: in no zone is it further
    than a day away.
    """
    return abs((day - due).days) <= 1


@dataclass(frozen=True, slots=True)
class Expiry:
    """When one recording is due, and by which rule. `on` is the local date of `at`."""

    at: datetime
    on: date
    rule: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The archive's time zone, and the period of each call type."""

    zone: ZoneInfo
    periods: Mapping[str, Period]

    def expiry(self, call_type: str, started_at: datetime) -> Expiry:
        """Compute the expiry, once, at ingest. KeyError for a call type without a period."""
        period = self.periods[call_type]
        at = expires_at(started_at, period, self.zone)
        return Expiry(at, self.day_of(at), f"{period} {self.zone.key} v{RULE_VERSION}")

    def furthest(self, now: datetime) -> date:
        """The last day that a call of now may be filed under."""
        return max(self.expiry(call_type, now).on for call_type in self.periods)

    def day_of(self, instant: datetime) -> date:
        """The local date of an instant: the day a recording is filed and its key is made under."""
        return instant.astimezone(self.zone).date()

    def midnight(self, day: date) -> datetime:
        """The instant at which a day begins."""
        return datetime.combine(day, time(), self.zone)

    def local(self, instant: datetime) -> datetime:
        """The same instant with the archive's own offset, as the doors show it."""
        return instant.astimezone(self.zone)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a recording is to be erased now, and the reason in words."""

    due: bool
    why: str


def decide(at: datetime, rule: str, now: datetime) -> Decision:
    """Decide on the full facts whether the recording is due: never before its instant."""
    if now >= at:
        return Decision(True, f"its period is over at {at.isoformat()} ({rule})")
    return Decision(False, f"its period ends at {at.isoformat()} ({rule})")


def explain(started_at: datetime, at: datetime, rule: str, zone: ZoneInfo) -> str:
    """Say to a person why the expiry is what it is; `rule` as it was stored at ingest."""
    period = rule.split(" ", 1)[0]
    return (
        f"The call started at {started_at.astimezone(zone).isoformat()}; it is kept for {period} "
        f"on the calendar of {zone.key}, to the same wall-clock time, and is erased at "
        f"{at.astimezone(zone).isoformat()} (rule: {rule})."
    )
