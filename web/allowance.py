"""How long an answer may go on being sent: until its recording's expiry, or that of the export, and
while the key holds for all that is in it.

The instant is known from the start. Whether the key was revoked meanwhile, rotated away or limited,
or the session ended, is asked more than once a second; while nobody can say, nothing is sent
either.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType

from archive.errors import ArchiveError, GoneError, UnauthenticatedError
from archive.export import Order
from archive.recording import Call
from storage import credentials, exports, reading, sessions
from storage.database import Connection, connection
from storage.recordings import Opened
from web.doors import Visit

LOOK = 0.7
"""Seconds between two questions."""

PATIENCE = 5.0
"""Seconds within which each has to be answered."""


class Allowance:
    """The time in which an answer may be sent; its end is a TimeoutError where it was entered."""

    def __init__(self, visit: Visit, *opened: Opened, export: Order | None = None) -> None:
        self._visit, self._opened, self._export = visit, opened, export
        self._calls = [each.recording.call for each in opened]
        ends = [each.expiry.at for each in self._calls]
        self._limit = asyncio.timeout_at(self._moment([export.expires_at] if export else ends))
        self._revoked = False
        self._covered: list[Call] = []

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._watch = asyncio.create_task(self._look())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.cancel()
        await self._limit.__aexit__(kind, error, trace)

    @property
    def over(self) -> str:
        """Why the time came to its end; empty if it did not."""
        return ("the key" if self._revoked else "expiry") if self._limit.expired() else ""

    def refusal(self) -> ArchiveError:
        """What is told of it when nothing was sent yet."""
        if self._revoked:
            return UnauthenticatedError("The key was revoked just now, or cannot be looked up.")
        told = "Its period has just ended. It cannot be brought back."
        if self._export or not self._opened:
            return GoneError(told)
        return GoneError(told, recording=str(self._opened[0].recording.id))

    def cover(self, calls: Sequence[Call]) -> None:
        """These are sent from now on, of an answer whose parts are found one after the other; of
        the part before, some may not be taken yet.
        """
        self._calls, self._covered = [*self._covered, *calls], [*calls]
        if not self._limit.expired():
            self._limit.reschedule(self._moment([each.expiry.at for each in self._calls]))

    def _moment(self, ends: Iterable[datetime]) -> float | None:
        """The first of these instants, on the loop's own clock."""
        end = min(ends, default=None)
        return None if end is None else self._visit.seen + (end - self._visit.now).total_seconds()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if not await self._holds():
                break
        if not self._limit.expired():
            self._revoked = True
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _holds(self) -> bool:
        vault = self._visit.vault
        try:
            async with asyncio.timeout(PATIENCE), connection(vault.pool) as lent:
                login = self._visit.login
                holds = sessions.holds if login.session else credentials.holds
                if not await holds(lent, vault.ring, login, *self._calls):
                    return False
                return await self._stand(lent)
        except Exception:  # a question without an answer is no yes
            return False

    async def _stand(self, lent: Connection) -> bool:
        if self._export and not await exports.stands(lent, self._export.id):
            return False
        return await reading.stands(lent, self._visit.caller, *self._opened)
