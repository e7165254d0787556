"""Redaction: parts of a recording that nobody is to hear, but for who may hear the original.

What is marked is made silent in a copy, which from then on is the recording for everybody: its
audio, its peaks, its digest. The original stays as it is, until its year is over. Whoever hears a
recording may have parts of it made silent; only `access.ORIGINALS` may let any of them be heard
again.

Places are whole milliseconds from the beginning. A part is silent on all channels, or on one.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from archive.errors import InvalidError

MOST = 100
"""Parts of one recording that can be marked."""

Cut = tuple[int, int, int | None]
"""The same part in samples: the first, the one after the last, and the channel or all."""

_SPAN = re.compile(r"(\d{1,9})-(\d{1,9})(?:@(\d{1,2}))?")
_WRONG = (
    f"must be 1 to {MOST} parts, each with a `start` within the recording and a later `stop` in"
    " whole milliseconds, and a `channel` from 0 on if not all are meant"
)


@dataclass(frozen=True, slots=True)
class Span:
    """A part from `start` to before `stop`, in milliseconds; `channel` None is all of them."""

    start: int
    stop: int
    channel: int | None = None

    def as_json(self) -> dict[str, int]:
        """As it is told and taken."""
        told = {"start": self.start, "stop": self.stop}
        return told if self.channel is None else {**told, "channel": self.channel}


@dataclass(frozen=True, slots=True)
class Redaction:
    """What was made silent in a recording, when, and why."""

    made_at: datetime
    spans: tuple[Span, ...]
    reason: str


def from_json(raw: object, duration: float, channels: int) -> tuple[Span, ...]:
    """Read parts as a client sends them, for a recording of so many seconds and channels.

    Those that touch become one; what reaches behind the end is cut there. Raises InvalidError.
    """
    if not isinstance(raw, list) or not 1 <= len(raw) <= MOST:
        raise InvalidError({"spans": _WRONG})
    return checked((_one(each) for each in raw), duration, channels)


def from_text(text: str, duration: float, channels: int) -> tuple[Span, ...]:
    """Read `1200-3400,5000-6000@1`: the same within an address. Raises InvalidError."""
    matches = [_SPAN.fullmatch(each) for each in text.split(",", MOST)]
    spans = [Span(int(m[1]), int(m[2]), int(m[3]) if m[3] else None) for m in matches if m]
    if len(spans) != len(matches) or len(spans) > MOST:
        raise InvalidError({"spans": _WRONG})
    return checked(spans, duration, channels)


def checked(spans: Iterable[Span], duration: float, channels: int) -> tuple[Span, ...]:
    """The parts in order, those that touch as one. Raises InvalidError."""
    end = math.ceil(duration * 1000)
    found = []
    for span in spans:
        if not 0 <= span.start < min(span.stop, end) or (span.channel or 0) not in range(channels):
            raise InvalidError({"spans": _WRONG})
        found.append(Span(span.start, min(span.stop, end), span.channel))
    if not found:
        raise InvalidError({"spans": _WRONG})
    of_one: dict[int | None, list[tuple[int, int]]] = {span.channel: [] for span in found}
    for span in found:
        of_one[span.channel].append((span.start, span.stop))
    merged = [Span(*one, channel) for channel, many in of_one.items() for one in joined(many)]
    return tuple(sorted(merged, key=lambda each: (each.start, each.stop, each.channel or 0)))


def covers(new: Sequence[Span], old: Sequence[Span], channels: int) -> bool:
    """Whether nothing that is silent by the old parts would be heard by the new ones."""
    for channel in range(channels):
        silent = _silent(new, channel)
        for start, stop in _silent(old, channel):
            if not any(first <= start and stop <= last for first, last in silent):
                return False
    return True


def cuts(spans: Iterable[Span], rate: int) -> list[Cut]:
    """The parts in samples of this rate: never less than was marked."""
    return [
        (span.start * rate // 1000, -(-span.stop * rate // 1000), span.channel) for span in spans
    ]


def joined(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Intervals in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(parts):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


def _silent(spans: Iterable[Span], channel: int) -> list[tuple[int, int]]:
    return joined((each.start, each.stop) for each in spans if each.channel in (None, channel))


def _one(raw: object) -> Span:
    known = raw if isinstance(raw, dict) else {}
    values = [known.get(name) for name in ("start", "stop", "channel")]
    start, stop, channel = (value if type(value) is int else None for value in values)
    if start is None or stop is None or (channel is None and values[2] is not None):
        raise InvalidError({"spans": _WRONG})
    return Span(start, stop, channel)
