"""Disks that are full while bodies come in, and disks that fail when a key ring is synced."""

import errno
import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from storage import durable
from storage.keyring import KeyRingError, NoDayKeyError, Ring
from tests.services import open_service, open_vault
from tests.small_disk import small_disk
from torture import truth
from torture.load import Load, audio
from torture.report import Limit, Row, Tally
from torture.room import Room

GOAL = 1000
_LARGE = 120_000
"""Frames of a body of which two fill the disk."""


async def measure(room: Room, limit: Limit) -> list[Row]:
    """Fill the spool's disk under load, and let syncs of the ring fail."""
    half = limit.of(limit.tries // 2)
    full, syncs, answers = Tally(), Tally(), Counter[int]()
    _failing_syncs(room.place(), half, syncs)
    real, rows = await _full_disk(room, half, full, answers)
    what = f"bodies on a disk that is {'' if real else 'called '}full"
    return [
        Row.of("acknowledged is never lost", what, full, GOAL // 2, "bodies"),
        Row.of("", "of them taken in", Tally(answers[201]), 1, "bodies"),
        Row.of("", "of them turned away", Tally(answers[503]), 1, "bodies"),
        *rows,
        Row.of("", "syncs of the key ring that fail", syncs, GOAL // 2, "writes"),
    ]


async def _full_disk(
    room: Room, limit: Limit, tally: Tally, answers: Counter[int]
) -> tuple[bool, list[Row]]:
    """Fill it and compare; whether it was a real disk, which needs root."""
    folder = room.place()
    with small_disk(folder / "spool") as real:
        async with (
            room.store() as store,
            open_vault(await room.database(), store, folder) as vault,
            open_service(vault) as service,
        ):
            load = Load(service, lambda: [(service.ingest, service.retrieval)], 2)
            async with load.running(2):
                while limit.allows(tally.tried):
                    answers[await _large(load, tally)] += 1
            tally.note(not list(vault.spool.iterdir()), "something is left in the spool")
            return real, await truth.told(load, folder, 1)


async def _large(load: Load, tally: Tally) -> int:
    """Offer a body that fits only while nobody else's is there, or not at all; what was said."""
    service, number = load.service, random.randrange(1 << 40)
    body = audio(number, random.choice((_LARGE, 3 * _LARGE)))
    started = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    params = {"call_type": "other", "started_at": started}
    answer = await service.put(f"large-{number}", body, params)
    held, said = answer.status in (201, 503), await answer.json(content_type=None)
    if answer.status == 201:
        identifier = said["id"]
        ear = await load.listener()
        heard = await (await service.get(f"/v1/recordings/{identifier}/audio", ear)).read()
        held = heard == body
    tally.note(held, f"a large body was answered {answer.status}, or not kept whole")
    return answer.status


def _failing_syncs(folder: Path, limit: Limit, tally: Tally) -> None:
    """Writes of a ring of which some syncs fail: what it gave once it gives for ever.

    Only those are counted in which one failed; the others have nothing to sync, or not so much.
    """
    today = [date(2026, 3, 1)]
    ring = Ring.open(folder / "ring", folder / "root", create=True, today=lambda: today[0])
    ring.ensure(today[0], today[0] + timedelta(days=20))
    known = {day: ring.day_key(day) for day in ring.days()}
    further: dict[date, bytes] = {}
    destroyed: set[date] = set()
    number = 0
    while limit.allows(tally.tried):
        number += 1
        today[0] += timedelta(days=random.random() < 0.3)
        wanted = today[0] - timedelta(days=1)
        with _failing(random.randrange(6)) as failed, suppress(KeyRingError):
            match random.randrange(3):
                case 0:
                    ring.ensure(today[0], today[0] + timedelta(days=20))
                case 1:
                    day = today[0] + timedelta(days=400)
                    ring.ensure(day, day)
                    further[day] = ring.day_key(day)
                case _:
                    ring.destroy(wanted)
                    destroyed.add(wanted)
        fresh = Ring.open(folder / "ring", folder / "root", create=False, today=lambda: today[0])
        gone = fresh.destroyed().keys()
        held = (
            destroyed <= gone
            and all(_has(fresh, day, key) for day, key in known.items() if day not in gone)
            and not any(_has(fresh, day, known[day]) for day in gone & known.keys())
            and all(_has(fresh, day, key) for day, key in further.items() if day not in gone)
        )
        tally.tried += bool(failed)
        if not held:
            tally.fail(f"after {number} writes the ring is not what it was")
        known |= {day: fresh.day_key(day) for day in fresh.days()}


def _has(ring: Ring, day: date, key: bytes) -> bool:
    with suppress(NoDayKeyError):
        return ring.day_key(day) == key
    return False


@contextmanager
def _failing(at: int) -> Iterator[list[int]]:
    """Let the sync of this number fail, and all that follow, as those of a dying disk do; which did
    is told.
    """
    real, done, failed = os.fsync, itertools.count(), list[int]()

    def fsync(descriptor: int) -> None:
        if (number := next(done)) >= at:
            failed.append(number)
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    durable.os.fsync = fsync
    try:
        yield failed
    finally:
        durable.os.fsync = real
