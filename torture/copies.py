"""kill -9 of two services while copies of recordings are made and end: redactions, saved and taken
back; exports, asked for, made, fetched, over and erased; under calls that fall due or are erased
early meanwhile.

Here a copy lives for seconds (`hands.hurry`), so that an export is made while something in it falls
due, and is erased by two services at once. In the end the store has one object for each recording
that is left and one for its copy, and no other; of each recording that is gone the ledger names the
key that it had and that of the copy which stood; and every export that held it was told as erased
before it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs import nightly
from storage import early, export_erasing, recordings, steps, tree
from storage.database import connection
from tests.app.child_service import Child
from tests.services import Service
from tests.web.test_redaction import swept
from torture import truth
from torture.hands import Hands
from torture.kills import Kills, doors
from torture.nursery import Nursery
from torture.report import Limit, Row, Tally
from torture.room import Room

GOAL = 2_000
PASSES = (
    dict.fromkeys(steps.REDACTION, 12)
    | dict.fromkeys(steps.EXPORT, 6)
    | dict.fromkeys(steps.ERASURE, 3)
)
_SHOWN = ("stored", "redaction.made", "redaction.withdrawn", "export.made", "exported", "erased")
_ACTS = {
    "redaction.made": (GOAL, "copies"),
    "redaction.withdrawn": (GOAL // 20, "of them"),
    "export.made": (GOAL // 10, "exports"),
    "exported": (GOAL // 20, "recordings"),
}
"""What has to have been done for the rest to say something, and how often."""

_HANDS = 12
_PATIENCE = 120.0


async def measure(room: Room, limit: Limit, *, many: int = _HANDS, soon: float = 16) -> list[Row]:
    """Kill, and compare. `soon`: in how many seconds, at the most, a call is due that falls due."""
    async with room.house() as (calm, service):
        house = replace(calm, more={**calm.more, "TEST_HURRY": "1"})
        with Nursery() as nursery:
            up: dict[str, Child] = {}
            hands = Hands(service, doors(up), soon)
            kills = Kills(house, nursery, limit, hands, up, PASSES)
            await nightly.run(service.vault)
            took = await kills.under(many)
            up["a"] = await nursery.bear(house, "a").ready()
            left = await _at_rest(service)
            copies = await _compare(hands)
            if left:
                copies.fail(f"{left} recordings and exports came to no end")
            up["a"].kill()
        acts = Counter(act for act, _ in await service.acts())
        orphans = await truth.reconciled(service)
        story = await truth.story(service, house.folder / "ledger.txt")
    told = ", ".join(f"{act} {acts[act]}" for act in _SHOWN)
    print(f"  {kills.tally.tried / took:.1f} kills a second; {kills.told}; {told}", flush=True)
    return [
        Row.of("copies end with it", "kill -9 of two services", kills.tally, GOAL, "kills"),
        kills.row,
        *(Row.of("", f"{act} on the ledger", Tally(acts[act]), *of) for act, of in _ACTS.items()),
        Row.of("", "recordings, copies and exports, afterwards", copies, 5 * GOAL, "of them"),
        Row.of("", "what was heard and answered meanwhile", hands.heard, 1, "answers"),
        Row.of("", "objects against rows, before and after a repair", orphans, 1, "objects"),
        Row.of("", "the ledger of it all, verified from its export", story, 1, "entries"),
    ]


async def _at_rest(service: Service) -> int:
    """Let everything end that is to end: what is due, what was granted, each export. How many have
    not when it is waited for no longer.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        left = await truth.at_rest(service)
        await early.run(service.vault)
        await export_erasing.run(service.vault)
        async with connection(service.vault.pool) as lent:
            left += await lent.fetchval(
                "SELECT (SELECT count(*) FROM export WHERE erased_at IS NULL)"
                " + (SELECT count(*) FROM recording r WHERE state <> 'erased' AND EXISTS"
                " (SELECT FROM told WHERE act = 'erasure.granted' AND recording = r.id))"
            )
        if not left or time.monotonic() > until:
            break
        await asyncio.sleep(0.5)
    await swept(service)
    return left


async def _compare(hands: Hands) -> Tally:
    service, tally = hands.service, Tally()
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT * FROM recording")
        entries = await lent.fetch("SELECT * FROM ledger ORDER BY position")
    await _objects(service, rows, tally)
    exports = {
        named.split()[0]: [call.id for call in held] for named, held in hands.exports.items()
    }
    _told(entries, exports, tally)
    states = {str(row["id"]): row["state"] for row in rows}
    for call in hands.calls:
        wanted = "erased" if call.ends else "stored"
        found = states.get(call.id, "lost")
        tally.note(found == wanted, f"{call.id} should be {wanted} and is {found}")
        if found == "stored":
            await hands.listen(call, last=True)
    return tally


async def _objects(service: Service, rows: list[Any], tally: Tally) -> None:
    """One object for each recording that is left, one for its copy, and no other."""
    wanted = {
        recordings.object_key(row["expires_on"], row["id"], attempt)
        for row in rows
        for attempt in (row["attempt"], row["redacted"])
        if attempt
    }
    found = {holding.key for holding in await service.holdings()}
    for key in wanted | found:
        where = "in the store alone" if key in found else "in a row alone"
        tally.note(key in wanted & found, f"{key} is {where}")


def _told(entries: list[Any], exports: Mapping[str, list[str]], tally: Tally) -> None:
    """What the ledger tells of each erasure: once, with the keys, and of exports before."""
    standing: dict[str, str] = {}
    erased: dict[str, int] = {}
    made: set[str] = set()
    over: dict[str, int] = {}
    for entry in entries:
        act, facts, identifier = entry["act"], entry["facts"], str(entry["recording"])
        if act == "redaction.made":
            right = facts.get("replaced") == standing.get(identifier)
            tally.note(right, f"a copy of {identifier} takes the place of another")
            standing[identifier] = facts["copy"]
        elif act == "redaction.withdrawn":
            right = standing.pop(identifier, None) == facts["copy"]
            tally.note(right, f"another copy of {identifier} is withdrawn than stood")
        elif act == "erased":
            right = facts.get("redacted") == standing.get(identifier) and "attempt" in facts
            tally.note(right and identifier not in erased, f"{identifier} is told wrong: {facts}")
            erased[identifier] = entry["position"]
        elif act == "export.made":
            made.add(facts["export"])
        elif act == "export.erased":
            tally.note(facts["export"] not in over, f"export {facts['export']} is erased twice")
            over[facts["export"]] = entry["position"]
    for identifier, ids in exports.items():
        tally.note(identifier in over, f"export {identifier} is not told as erased")
        for each in ids if identifier in made else ():
            late = over.get(identifier, 0) > erased.get(each, len(entries))
            tally.note(
                not late, f"{each} is told as erased before export {identifier}, which had it"
            )
