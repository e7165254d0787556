"""Erasing what is due: *what* happens, whoever starts it (`jobs.schedule`, or `archive expire`)."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from archive.errors import UnavailableError
from storage import clocks, frozen, fuse, removal
from storage.fuse import Verdict
from storage.removal import Claim, Outcome
from storage.vault import Vault

log = logging.getLogger("archive.expiry")

FIRST = 250
"""Recordings of the first batch; each is four times as large as the one before. One that was killed
in a large batch would begin it anew each time, and a service that is killed again and again is to
come through what is due all the same. A store may look through the whole day for each batch.
"""

HANDS = 2
"""Batches that are claimed at once: what one waits for, store or database, the other can use."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one run did. `stopped` says why it did not erase everything; empty if it did."""

    erased: int
    still_there: int
    unknown: int
    stopped: str = ""

    @property
    def failed(self) -> int:
        """How many were due and are not erased; they are claimed again when their lease is over."""
        return self.still_there + self.unknown


async def run(vault: Vault) -> Report:
    """Erase all that is due. Raises UnavailableError when the database or the store is away."""
    outcomes: list[Outcome] = []
    away = None
    async with asyncio.TaskGroup() as hands:
        try:
            verdict = await _hand_out(vault, hands, outcomes)
        except UnavailableError as error:
            away = error  # what is being erased comes to its end all the same
    if away:
        raise away
    if not verdict.whole:
        log.error("the fuse has blown: %s; see `archive expire --release`", verdict.why)
    if verdict.clocks_agree:
        await clocks.mark(vault, whole=verdict.whole)
    erased, still_there, unknown = (
        sum(len(getattr(outcome, name)) for outcome in outcomes)
        for name in ("erased", "still_there", "unknown")
    )
    report = Report(erased, still_there, unknown, _stopped(verdict))
    if erased or report.failed:
        log.info("erased %d, still there %d, could not ask %d", erased, still_there, unknown)
    return report


async def _hand_out(vault: Vault, hands: asyncio.TaskGroup, outcomes: list[Outcome]) -> Verdict:
    """Claim batches while others are erased; returns what the fuse said last."""
    free, turn = asyncio.Semaphore(HANDS), asyncio.Lock()

    async def erase(claims: Sequence[Claim]) -> None:
        outcomes.append(await removal.erase(vault, claims, turn))
        free.release()

    batch = FIRST
    while True:
        await free.acquire()
        verdict = await fuse.look(vault)
        while not await frozen.compare(vault, verdict.days):
            verdict = await fuse.look(vault)  # it is held now, and the fuse says so
        if verdict.stops or any(outcome.unknown for outcome in outcomes):
            return verdict
        claims = await removal.claim(vault, verdict.released_through, batch)
        hands.create_task(erase(claims))
        if len(claims) < batch:
            return verdict
        batch = min(4 * batch, removal.BATCH)


def _stopped(verdict: Verdict) -> str:
    if verdict.whole:
        return ""
    if verdict.stops:
        return verdict.why
    return f"{verdict.why}; released through {verdict.released_through}"


async def run_if_due(vault: Vault) -> bool:
    """The same, several times a second: asks first whether anything is due at all.

    False when not all of it could be erased: then it is of no use to try again at once.
    """
    if not await removal.any_due(vault):
        return True
    report = await run(vault)
    return not (report.failed or report.stopped)
