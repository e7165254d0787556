"""The form in which parts of a recording are marked: times as people write them, and back.

It works without a script; with one, its rows are filled from the picture of the sound.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archive.redaction import MOST, Span

SPARE = 3
"""Empty rows for whoever has no script that could add some."""

_TIME = re.compile(r"(?:(?:(\d{1,2}):)?(\d{1,3}):)?(\d{1,5})(?:[.,](\d{1,3}))?")


@dataclass(frozen=True, slots=True)
class Part:
    """One row: from, to, and the channel, as they stand in the form."""

    start: str = ""
    stop: str = ""
    channel: str = ""


def clock(milliseconds: int) -> str:
    """`75250` as `1:15.250`, an hour of it as `1:00:00`."""
    seconds, rest = divmod(milliseconds, 1000)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    text = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{text}:{seconds % 60:02}" + (f".{rest:03}" if rest else "")


def milliseconds(text: str) -> int | None:
    """Read `75`, `1:15`, `1:15.25` or `1:00:00,5`; None for anything else."""
    match = _TIME.fullmatch(text.strip())
    if not match:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    return (hours * 3600 + minutes * 60 + seconds) * 1000 + int((match[4] or "").ljust(3, "0"))


def parts_of(spans: Sequence[Span]) -> list[Part]:
    """Parts as rows."""
    return [
        Part(clock(each.start), clock(each.stop), "" if each.channel is None else f"{each.channel}")
        for each in spans
    ]


def parts(form: Mapping[str, str]) -> list[Part]:
    """The rows that somebody filled in, in their order."""
    found = [
        Part(*(form.get(f"{name}-{number}", "") for name in ("from", "to", "lane")))
        for number in range(MOST + SPARE)
    ]
    return [part for part in found if part.start.strip() or part.stop.strip()]


def raw(found: Sequence[Part]) -> list[dict[str, object]]:
    """Rows as a client of the API sends them; what is no time comes to nothing there."""
    return [
        {
            "start": milliseconds(part.start),
            "stop": milliseconds(part.stop),
            **({"channel": int(part.channel)} if re.fullmatch("[0-9]", part.channel) else {}),
        }
        for part in found
    ]


def query(spans: Sequence[Span]) -> str:
    """The same within an address."""
    each = (f"{span.start}-{span.stop}" for span in spans)
    lanes = ("" if span.channel is None else f"@{span.channel}" for span in spans)
    return ",".join(map("".join, zip(each, lanes, strict=True)))
