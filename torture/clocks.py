"""Clocks that are wrong: each of the four that the archive looks at, turned by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from storage import clocks
from storage.vault import Vault
from tests import years
from tests.services import Faulty, set_clock

NONE = timedelta()


@dataclass(frozen=True, slots=True)
class Offsets:
    """How far each clock is ahead of the right time."""

    database: timedelta = NONE
    service: timedelta = NONE
    store: timedelta = NONE
    holder: timedelta = NONE

    @classmethod
    def all(cls, ahead: timedelta) -> "Offsets":
        """Every clock ahead alike."""
        return cls(ahead, ahead, ahead, ahead)


def ahead_of(right: Vault, offsets: Offsets) -> Vault:
    """The same vault with another store's clock, and another holder's."""
    store, ring = right.objects, right.ring
    policy = right.policy

    async def clock() -> datetime:
        return await store.clock() + offsets.store

    def today() -> date:
        return policy.day_of(years.now() + offsets.holder)

    ring.today = today
    turned: Any = Faulty(store, clock=clock)
    return replace(right, objects=turned)


@contextmanager
def service_ahead(offset: timedelta) -> Iterator[None]:
    """Turn the clock of the machine that the services of this process run on."""
    real = clocks.service_now
    clocks.service_now = lambda: years.now() + offset
    try:
        yield
    finally:
        clocks.service_now = real


@contextmanager
def _holding(vault: Vault) -> Iterator[None]:
    today = vault.ring.today
    try:
        yield
    finally:
        vault.ring.today = today


async def turn_database(vault: Vault, offset: timedelta) -> None:
    """Turn the database's clock."""
    await set_clock(vault, offset)


@contextmanager
def turned(vault: Vault, offsets: Offsets) -> Iterator[Vault]:
    """All but the database's clock turned, for as long as the context lasts."""
    with _holding(vault), service_ahead(offsets.service):
        yield ahead_of(vault, offsets)
