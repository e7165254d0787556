"""The ledger of an archive that has been in use for 500 days, as the archive itself would write it.

Each day calls come in, some are heard, what came in a year ago is erased, and in the night the day
is closed and the night's account is made. Of 1,000,000 entries 627,000 are `stored`, 188,000
`listened` and 170,000 `erased`.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from archive.ledger import Entry, instant
from archive.nights import root_over
from archive.retention import Expiry
from storage import holdings, intake, ledger
from storage.nights import Account

DAYS, YEAR = 500, 365
HEARD = 0.3
"""Of the calls of a day, how many are heard."""

_READERS = [f"k-{number:012x}" for number in range(20)]


class Story:
    """The entries, one after the other; `erased` are the recordings that are gone by the end."""

    def __init__(self, count: int, end: datetime) -> None:
        self._each = count / (DAYS * (1 + HEARD) + DAYS - YEAR)
        self._begin = (end - timedelta(days=DAYS)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        self._dice = random.Random(20)
        self._due: dict[date, list[tuple[UUID, Expiry, UUID]]] = defaultdict(list)
        self._told = 0
        self.erased: list[UUID] = []

    def entries(self) -> Iterator[Entry]:
        """All entries, in their order."""
        since, upto, gone = 0, 0, list[UUID]()
        for number in range(DAYS):
            day = self._begin + timedelta(days=number)
            yield from self._day(day)
            due = self._due.pop(day.date(), [])
            yield from self._erased(day, due)
            gone, since, upto = [one for one, _, _ in due], upto, self._told
            self.erased += gone
            yield from self._night(day, Account(since, upto, len(gone), [], root_over(gone, [])))

    def _day(self, day: datetime) -> Iterator[Entry]:
        count = round(self._each)
        for number in range(count):
            at = day + timedelta(days=0.9 * number / count)
            one, attempt = intake.uuid7(at), UUID(int=self._dice.getrandbits(128))
            expires = (at + timedelta(days=YEAR)).replace(microsecond=0)
            expiry = Expiry(expires, expires.date(), "P1Y Europe/Helsinki v1")
            self._due[expiry.on].append((one, expiry, attempt))
            yield self._entry(at, "k-0123456789ab", "stored", one, ledger.due(expiry))
            if self._dice.random() < HEARD:
                facts = {"format": "original", "range": "bytes=0-"}
                yield self._entry(at, self._dice.choice(_READERS), "listened", one, facts)

    def _erased(self, day: datetime, due: list[tuple[UUID, Expiry, UUID]]) -> Iterator[Entry]:
        for one, expiry, attempt in due:
            facts = {
                **ledger.due(expiry),
                "attempt": str(attempt),
                "absent": holdings.absent(versions=False),
            }
            yield self._entry(
                expiry.at + timedelta(seconds=0.3), ledger.SYSTEM, "erased", one, facts
            )

    def _night(self, day: datetime, account: Account) -> Iterator[Entry]:
        at = day + timedelta(days=1, hours=3)
        if account.erased:
            facts = {
                "day": day.date().isoformat(),
                "strays": 0,
                "holder": "0123456789abcdef",
                "key_destroyed_at": instant(at),
            }
            yield self._entry(at, ledger.SYSTEM, "day.closed", None, facts)
        yield self._entry(at, ledger.SYSTEM, "night.done", None, account.facts(at.date()))

    def _entry(
        self, at: datetime, actor: str, act: str, one: UUID | None, facts: dict[str, object]
    ) -> Entry:
        self._told += 1
        return Entry(self._told - 1, at.astimezone(UTC), actor, act, one, facts)
