"""What is there in the end, held against what was acknowledged, after whatever kind of fault."""

import asyncio
import random
import time
from pathlib import Path

from app import audit
from jobs import expiry
from storage import tree
from storage.database import connection
from storage.upkeep import reconcile
from tests.rewriting import export
from tests.services import Service
from torture.load import Load
from torture.report import Row, Tally

SAMPLE = 5000
"""How many acknowledged calls are read at the end, at the most, besides those heard under way."""

_AT_ONCE = 8
_PATIENCE = 300.0
_ENDING = "state = 'stored' AND expires_at < archive_now() + interval '1 hour'"


async def told(load: Load, folder: Path, least: int) -> list[Row]:
    """Let everything come to rest and compare; at `least` so many calls were to be acknowledged
    under the faults: what is acknowledged once they are over does not count to that.
    """
    service, acknowledged = load.service, Tally(load.acknowledged)
    await _offer_what_is_open(load)
    left = await at_rest(service)
    lost = await _compare(load)
    if left:
        lost.fail(f"{left} recordings came to no end")
    orphans = await reconciled(service)
    entries = await story(service, folder / "ledger.txt")
    return [
        Row.of("", "acknowledged under them", acknowledged, least, "calls"),
        Row.of("", "all that was acknowledged, afterwards", lost, 1, "calls"),
        Row.of("", "what they answered meanwhile", _both(load.sent, load.heard), 1, "answers"),
        Row.of("", "objects against rows, before and after a repair", orphans, 1, "objects"),
        Row.of("", "the ledger of it all, verified from its export", entries, 1, "entries"),
    ]


def _both(one: Tally, other: Tally) -> Tally:
    return Tally(one.tried + other.tried, one.failed + other.failed, [*one.faults, *other.faults])


async def _offer_what_is_open(load: Load) -> None:
    """Send again what nobody acknowledged, as a sender does who does not give up."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def again(number: int) -> None:
        async with gate:
            for _ in range(5):
                if await load.offer(number):
                    return
                await asyncio.sleep(0.2)

    for _ in range(3):
        await load.service.end_leases()
        await asyncio.gather(*map(again, list(load.open)))


async def at_rest(service: Service) -> int:
    """Let everything come to its end: what is due erased, what was given up swept. How many
    recordings have not when it is waited for no longer.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        await service.end_leases()
        await service.sweep_everything()
        await expiry.run(service.vault)
        async with connection(service.vault.pool) as lent:
            left: int = await lent.fetchval(
                "SELECT count(*) FROM recording"
                f" WHERE state IN ('receiving', 'erasing', 'abandoned') OR {_ENDING}"
            )
        if not left or time.monotonic() > until:
            return left
        await asyncio.sleep(0.5)


async def _compare(load: Load) -> Tally:
    """Hold what was acknowledged against rows and ledger, and read it again."""
    service = load.service
    await tree.sequence(service.vault)
    tally = Tally()
    async with connection(service.vault.pool) as lent:
        ending = f"CASE WHEN {_ENDING} THEN 'overdue' ELSE state END"
        states = dict(await lent.fetch(f"SELECT id::text, {ending} FROM recording"))
        told = {
            row["id"]: (row["stored"], row["erased"])
            for row in await lent.fetch(
                "SELECT recording::text AS id, count(*) FILTER (WHERE act = 'stored') AS stored,"
                " count(*) FILTER (WHERE act = 'erased') AS erased FROM ledger"
                " WHERE recording IS NOT NULL GROUP BY recording"
            )
        }
    for ids, state, acts in (
        (load.kept.values(), "stored", (1, 0)),
        (load.passing.values(), "erased", (1, 1)),
    ):
        for each in ids:
            found = states.pop(each, "lost"), told.get(each)
            tally.note(found == (state, acts), f"{each} should be {state} and is {found}")
    for each, state in states.items():
        # Stored and never acknowledged, since its sender gave up: it falls due all the same.
        if (state, told.get(each)) not in (("erased", (1, 1)), ("stored", (1, 0))):
            tally.fail(f"{each}, never acknowledged, is {state} and on the ledger {told.get(each)}")
    await _read(load, tally)
    return tally


async def _read(load: Load, tally: Tally) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)
    before = load.heard.tried

    async def one(number: int) -> None:
        async with gate:
            await load.listen(number)

    chosen = random.sample(sorted(load.kept), min(SAMPLE, len(load.kept)))
    await asyncio.gather(*map(one, chosen))
    if load.heard.tried - before < len(chosen):
        tally.fail("not all that was acknowledged could be read again")


async def reconciled(service: Service) -> Tally:
    """Hold all objects against all rows: nothing lost, nothing unknown, nothing that should go.

    First as it is, or the repair would clean up what an erasure told as gone has left: once at rest
    no upload or export is under way, so that not even of those anything may be there. Then again
    after a repair, which takes nothing that is named.
    """
    tally = Tally()
    for when in ("at rest", "after a repair"):
        report = await reconcile.run(service.vault, repair=False)
        tally.tried = report.objects
        wrong = report.lost.count + report.unknown.count + sum(report.due.values())
        if wrong or report.stopped:
            tally.failed += wrong
            tally.fail(f"reconcile {when}: {report.as_json()}"[:1000])
        await reconcile.run(service.vault, repair=True)
    return tally


async def story(service: Service, place: Path) -> Tally:
    """Verify the ledger as an auditor does, from its export."""
    await export(service.vault, place)
    found = audit.verify_export(place, service.vault.signer.verifier, [])
    tally = Tally(int(str(found["entries"])))
    for fault in found["faults"]:  # type: ignore[attr-defined]
        tally.fail(fault)
    return tally
