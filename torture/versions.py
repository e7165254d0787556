"""What a store keeps beyond an object: older versions, marks of deletion, unfinished uploads; and
versions under an object lock, which nobody can erase yet and nobody may call erased.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from storage.database import connection
from tests.jobs.test_expiry import a_year_ago
from tests.services import Service, open_service, open_vault
from tests.stores.leftovers import locked_bucket, plant
from tests.web.test_listen import upload
from torture.clocks import Offsets, turn_database, turned
from torture.load import audio
from torture.report import Limit, Row, Tally
from torture.room import Room

GOAL = 50


async def measure(room: Room, limit: Limit) -> list[Row]:
    """Erase from a store with versions, and try to from one with a lock."""
    kept, locked = Tally(), Tally()
    while limit.allows(kept.tried + locked.tried):
        async with room.service(room.versioned()) as service:
            await _erased(service, kept)
        async with _locking(room) as service:
            await _locked(service, locked)
    return [
        Row.of("nothing survives its year", "versions, marks, parts (RGW)", kept, GOAL, "erasures"),
        Row.of("", "versions under a lock (RGW), told as there", locked, GOAL // 3, "of them"),
    ]


async def _due(service: Service, count: int) -> list[str]:
    ids = []
    for _ in range(count):
        number = random.randrange(1 << 40)
        ids.append(
            await upload(service, f"{number}", audio(number), started_at=a_year_ago(seconds=50))
        )
    return ids


async def _erased(service: Service, tally: Tally) -> None:
    """Beside each object all that a store can keep of it; afterwards there is nothing."""
    ids = await _due(service, 6)
    for holding in await service.holdings():
        await plant(service.vault.objects, holding.key)
    ahead = timedelta(seconds=55)
    await turn_database(service.vault, ahead)
    with turned(service.vault, Offsets.all(ahead)) as vault:
        service.vault = vault
        report = await service.erase()
    left = [holding.key for holding in await service.holdings()]
    for each in ids:
        tally.note(not any(each in key for key in left), f"{each}: something of it is left")
    if report.erased != len(ids):
        tally.fail(f"{report.erased} of {len(ids)} are erased")


@asynccontextmanager
async def _locking(room: Room) -> AsyncIterator[Service]:
    """An archive over a bucket that lets nothing be deleted for a day."""
    store = await locked_bucket(room.gateway())
    try:
        async with (
            open_vault(await room.database(), store, room.place()) as vault,
            open_service(vault) as service,
        ):
            yield service
    finally:
        await store.close()


async def _locked(service: Service, tally: Tally) -> None:
    """What the lock keeps is reported as still there, by the run and by its row; no day closes."""
    ids = await _due(service, 3)
    ahead = timedelta(hours=25)
    await turn_database(service.vault, ahead)
    with turned(service.vault, Offsets.all(ahead)) as vault:
        service.vault = vault
        report = await service.erase()
        await service.end_leases()
        night = await service.night()
    acts = await service.acts()
    rows = await service.rows()
    states = {str(row["id"]): row["state"] for row in rows}
    for each in ids:
        told = states[each] == "erasing" and ("erased", each) not in acts
        tally.note(told, f"{each}, under a lock, is {states[each]}")
    if (report.erased, report.still_there, night.expiry.still_there) != (0, len(ids), len(ids)):
        tally.fail(f"a lock was met and told as {report}")
    async with connection(service.vault.pool) as lent:
        closed = await lent.fetch(
            "SELECT facts->>'day' AS day FROM ledger WHERE act = 'day.closed'"
        )
    # Late in the evening a day without a call ends within these 25 hours as well.
    if {row["expires_on"].isoformat() for row in rows} & {row["day"] for row in closed}:
        tally.fail("the day of a locked one was closed")
