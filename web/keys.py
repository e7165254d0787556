"""What a door remembers of the keys that come in: how often each asked, how much each has under
way, and whose use is being written down. The first bounds a key with a rate, in this process, the
second an uploader's key from wherever it is shown; the third never holds a request up.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from archive.access import Caller
from archive.bounds import Bucket, Rate
from archive.errors import TooManyError, UnavailableError
from archive.token import Token
from storage import credentials, quota
from storage.credentials import Login
from storage.database import connection
from storage.vault import Vault

log = logging.getLogger("archive.web")

_COUNTED = timedelta(days=7)
"""How long it is remembered what a key handed over on a day."""

_ENDING = 2.0
"""Seconds that are given at the end to what is being written down."""


_AGAIN = 5
"""Seconds after which a key may come again that had all under way that it may."""


class Keys:
    """The keys that came in by one door. A level belongs to one door, so that no key has two."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[Rate, Bucket]] = {}
        self._notes: dict[str, asyncio.Task[None]] = {}
        self._under_way: Counter[Token] = Counter()

    def count(self, caller: Caller, now: float) -> None:
        """Count one request, at this moment of the loop's clock. Raises TooManyError."""
        if (rate := caller.bounds.rate) is None:
            return
        known = self._buckets.get(caller.id)
        if known is None or known[0] != rate:
            known = self._buckets[caller.id] = (rate, Bucket(rate, now))
        if wait := known[1].take(now):
            raise TooManyError(
                f"The key may ask {rate.text}; wait as long as Retry-After says.", math.ceil(wait)
            )

    @contextmanager
    def under_way(self, token: Token, places: int) -> Iterator[None]:
        """One request with this token, from its head to the end of its answer. UnavailableError
        beyond three quarters of so many places, as where all are taken: a stolen key leaves some
        for the others.
        """
        if self._under_way[token] >= places - places // 4:
            raise UnavailableError("The key has too much under way at once; try again.", _AGAIN)
        self._under_way[token] += 1
        try:
            yield
        finally:
            self._under_way[token] -= 1
            if not self._under_way[token]:
                del self._under_way[token]

    def note(self, vault: Vault, login: Login) -> None:
        """See to it that the use of this key is written down, once a minute, beside the request."""
        key = login.caller.id
        if login.stale and key not in self._notes:
            task = self._notes[key] = asyncio.create_task(_note(vault, login))
            task.add_done_callback(lambda _: self._notes.pop(key))

    async def end(self) -> None:
        """Let what is being written down come to its end, shortly."""
        if tasks := list(self._notes.values()):
            _, late = await asyncio.wait(tasks, timeout=_ENDING)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


async def _note(vault: Vault, login: Login) -> None:
    key, day = login.caller.id, vault.policy.day_of(login.now)
    try:
        async with connection(vault.pool) as lent:
            await credentials.used(lent, key)
            if login.caller.bounds.quota is not None:
                await quota.forget(lent, key, day - _COUNTED)
    except UnavailableError:
        pass  # each request tells of that, and the next one tries again
    except Exception as error:  # nobody waits for this who could be told
        log.error("the use of a key could not be written down: %s", type(error).__name__)  # noqa: TRY400
