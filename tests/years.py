"""When a call had to start so that its year ends at the moment that a test wants.

At some moments no call's year ends: on 29 February, in the second of two equal hours, and a year
after an hour that the clocks left out. A test that runs then takes the next moment at which one
does, and its clocks go on to it: the machine's and the store's at once, the database's with the
next call that is sent (`tests.services`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

from archive.recording import CallType
from archive.retention import Period, Policy
from storage import clocks
from storage.objects import ObjectStore

HELSINKI = ZoneInfo("Europe/Helsinki")
HOUR = timedelta(hours=1)
POLICY = Policy(HELSINKI, {kind: Period(years=1) for kind in CallType})

BEFORE, AFTER = timedelta(minutes=10), timedelta(hours=4)
"""All this while around the moment at which a test asks years have to end."""


@dataclass(slots=True)
class Clock:
    """How far the running test's clocks have gone on; only those may that its end puts back."""

    ahead: timedelta = timedelta()
    may_go_on: bool = False


CLOCK = Clock()


def started(end: datetime) -> datetime | None:
    """The start of a call whose year ends at this very moment; None when no year does."""
    for days, hours in product((365, 366), (0, 1, -1)):
        start = (end - timedelta(days=days, hours=hours)).astimezone(HELSINKI)
        if POLICY.expiry(CallType.OTHER, start).at == end:
            return start
    return None


def until_years_end(moment: datetime, span: timedelta = timedelta()) -> timedelta:
    """How many hours on a year ends again, and does for so long: mostly none."""
    points = [moment + min(hours * HOUR, span) for hours in range(span // HOUR + 2)]
    waits = (hours * HOUR for hours in range(48))
    return next(wait for wait in waits if all(started(point + wait) for point in points))


def starting(end: datetime) -> datetime:
    """The start of a call whose year ends then, or at the next moment at which one does."""
    start = started(end + until_years_end(end))
    assert start
    return start


def now() -> datetime:
    """The time by the running test's clocks, before it turns any."""
    return datetime.now(UTC) + CLOCK.ahead


def due_in(**later: float) -> datetime:
    """The start of a call whose year ends so much from now; by clocks that go on if they must."""
    if CLOCK.may_go_on and not CLOCK.ahead:
        CLOCK.ahead = until_years_end(datetime.now(UTC) - BEFORE, BEFORE + AFTER)
    return starting(now() + timedelta(**later))


@contextmanager
def going_on() -> Iterator[None]:
    """For as long as the context lasts the clocks may go on."""
    machine, store = clocks.service_now, ObjectStore.clock

    async def clock(objects: ObjectStore) -> datetime:
        return await store(objects) + CLOCK.ahead

    CLOCK.may_go_on = True
    clocks.service_now = lambda: machine() + CLOCK.ahead
    ObjectStore.clock = clock  # type: ignore[method-assign]
    try:
        yield
    finally:
        clocks.service_now, ObjectStore.clock = machine, store  # type: ignore[method-assign]
        CLOCK.ahead, CLOCK.may_go_on = timedelta(), False
