"""The fuse: nothing is erased while anything speaks against it.

Bytes and keys go only while the clocks agree (`storage.clocks`), while nothing holds the erasing,
while the ledger bears out what is due (`storage.borne`), and while no day has more of it than was
known and is usual (`storage.frozen`). A fuse that has blown stops erasing, never the barring of
reads. People let it go on, for the expiry days up to a date that they name (`storage.release`):
whoever can name today's date has looked at a calendar.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from storage import borne, clocks, frozen
from storage.clocks import Others, Reading
from storage.database import Connection, connection
from storage.vault import Vault

BATCH = 5000
"""How many of those that are due next are looked at."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the fuse is whole; if not, why, and up to which expiry day erasing may go on.

    `days` are those of what is due next, if the clocks that say so are believed.
    """

    whole: bool
    why: str
    released_through: date | None = None
    days: Sequence[date] = ()
    clocks_agree: bool = True

    @property
    def stops(self) -> bool:
        """Whether nothing at all may be erased."""
        return not self.whole and self.released_through is None


async def look(vault: Vault) -> Verdict:
    """Look whether the fuse is whole. UnavailableError when database or store cannot be asked."""
    store = await vault.objects.clock()
    holder = await asyncio.to_thread(vault.ring.today)
    async with connection(vault.pool) as lent:
        reading = await clocks.read(lent)
        others = Others(clocks.service_now(), store, holder)
        faults = clocks.judge(reading, others, vault.policy)
        days, further = await look_at_due(lent, reading)
    agree = not faults
    believed = days if agree or reading.released_through else ()
    if not (faults := faults + further):
        return Verdict(True, "nothing speaks against erasing", days=days)
    return Verdict(False, "; ".join(faults), reading.released_through, believed, agree)


async def look_at_due(lent: Connection, reading: Reading) -> tuple[Sequence[date], list[str]]:
    """The days of what is due next, and what speaks against erasing it besides the clocks."""
    due = await borne.look(lent, BATCH)
    faults = [reading.hold or "", due.fault, *await frozen.surge(lent, due.days)]
    return due.days, [fault for fault in faults if fault]
