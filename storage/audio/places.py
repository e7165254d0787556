"""Who may have a worker's time among those that play: nobody all of it, and redactions some always.

A place is held until the last byte was taken, and a listener may be as slow as the voice: without
bounds one caller with one recording keeps everybody else from hearing any.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from archive.errors import UnavailableError

_WAIT = 30.0  # s that a copy waits for a place


class Places:
    """So many places, the last of them for redactions alone; one caller has half at the most."""

    def __init__(self, places: int) -> None:
        self._all = asyncio.Semaphore(places)
        self._heard = asyncio.Semaphore(max(places - 1, 1))
        self._share = max(places // 2, 1)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def taken(self, caller: str, *, redacts: bool = False) -> AsyncIterator[None]:
        """A worker's time, for a source fetched only then; one job at a time is done in it.

        Raises UnavailableError where none is free within half a minute.
        """
        own = self._own.setdefault(caller, asyncio.Semaphore(self._share))
        bounds = [own, self._all] if redacts else [own, self._heard, self._all]
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(_WAIT):
                    for each in bounds:
                        await held.enter_async_context(each)
            except TimeoutError:
                raise UnavailableError(
                    "Too many copies are being made at once; try again."
                ) from None
            yield
