"""An export: the audio of chosen recordings in one file, for who asked for it and said why.

It is a copy, so it lives for days and never as long as anything in it. A few recordings somebody
may take alone; what is more than a person could hear meanwhile is a mass export, and a second
person has to agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from archive.errors import MalformedError

LIFE = timedelta(days=3)
"""How long an export can be fetched: over a weekend."""

AHEAD = timedelta(minutes=15)
"""How long before the first recording in it ends an export is over, so that it is gone by then."""

MOST = 100
"""Recordings of one export. All of them have to be let in before the first byte leaves."""

MOST_BYTES = 2_000_000_000
"""Bytes of audio in one export: it is stored by one request, and lies on a disk before."""

ALONE = 20
"""Recordings that a person may ask for within a DAY without a second one: a complaint is a few
calls, and twenty of the usual length are more than an hour's listening. Counted over all exports of
the day, or a hundred would be five times twenty."""

DAY = timedelta(hours=24)


class Stage(StrEnum):
    """How far an export has come."""

    WAITING = "waiting"  # for a second person
    QUEUED = "queued"
    MAKING = "making"
    READY = "ready"
    OVER = "over"  # nobody can fetch it any more; its bytes are gone, or going
    ERASED = "erased"


class Why(StrEnum):
    """Why an export is over."""

    EXPIRED = "expired"
    RECORDING = "recording"  # one in it was erased
    DAMAGED = "damaged"  # one in it is not whole
    CHANGED = "changed"  # something else is heard of one in it
    WITHDRAWN = "withdrawn"


def chosen(ids: Sequence[object]) -> list[UUID]:
    """Read which recordings are chosen, each once. Raises MalformedError, which repeats none."""
    try:
        found = list(dict.fromkeys(UUID(each) if isinstance(each, str) else None for each in ids))
    except ValueError:
        found = []
    known = [each for each in found if each]
    if not known or len(known) != len(found) or len(known) > MOST:
        raise MalformedError(f"Choose 1 to {MOST} recordings, each by its id.")
    return known


def until(now: datetime, ends: Sequence[datetime]) -> datetime:
    """When an export of recordings that end at these instants is over."""
    return min(now + LIFE, min(ends) - AHEAD)


def stage(
    *, erased: bool, over: bool, made: bool, working: bool, mass: bool, agreed: bool
) -> Stage:
    """Where an export stands, of what is known of it."""
    if erased:
        return Stage.ERASED
    if over:
        return Stage.OVER
    if made:
        return Stage.READY
    if mass and not agreed:
        return Stage.WAITING
    return Stage.MAKING if working else Stage.QUEUED


@dataclass(frozen=True, slots=True)
class File:
    """One file within an export."""

    name: str
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, object]:
        return {"name": self.name, "bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for: by whom, when and why, and who agreed."""

    id: UUID
    asker: str
    asked_at: datetime
    agreed_by: str | None
    reason: str
    expires_at: datetime


def manifest(
    order: Order, made_at: datetime, items: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """What is in an export, with the digests to check it by. Each item is of `item`."""
    return {
        "format": "call-archive export 1",
        "export": str(order.id),
        "asked_by": order.asker,
        "asked_at": order.asked_at.isoformat(),
        "agreed_by": order.agreed_by,
        "reason": order.reason,
        "made_at": made_at.isoformat(),
        "recordings": list(items),
    }


def item(recording: UUID, ends: datetime, audio: File, vcon: File) -> dict[str, object]:
    """What a manifest tells of one recording; `ends` is when every copy of it has to be gone."""
    return {
        "id": str(recording),
        "expires_at": ends.isoformat(),
        "audio": audio.as_json(),
        "vcon": vcon.as_json(),
    }
