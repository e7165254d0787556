"""Erasing what is due: *what* happens, whoever starts it (`jobs.schedule`, or `archive expire`)."""

import logging
from dataclasses import dataclass

from storage import clocks, removal
from storage.clocks import Verdict
from storage.vault import Vault

log = logging.getLogger("archive.expiry")


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
    verdict = await clocks.fuse(vault)
    if verdict.stops:
        log.error("erasing is stopped: %s; see `archive expire --release`", verdict.why)
        return Report(0, 0, 0, verdict.why)
    erased = still_there = unknown = 0
    while not unknown and (claims := await removal.claim(vault, verdict.released_through)):
        outcome = await removal.erase(vault, claims)
        erased += len(outcome.erased)
        still_there += len(outcome.still_there)
        unknown += len(outcome.unknown)
    if verdict.whole:
        await clocks.mark(vault)
    report = Report(erased, still_there, unknown, _partly(verdict))
    if erased or report.failed:
        log.info("erased %d, still there %d, could not ask %d", erased, still_there, unknown)
    return report


def _partly(verdict: Verdict) -> str:
    if verdict.whole:
        return ""
    return f"{verdict.why}; released through {verdict.released_through}"


async def run_if_due(vault: Vault) -> bool:
    """The same, several times a second: asks first whether anything is due at all.

    False when not all of it could be erased: then it is of no use to try again at once.
    """
    if not await removal.any_due(vault):
        return True
    report = await run(vault)
    return not (report.failed or report.stopped)
