"""A list of calls as CSV (RFC 4180), safe to open in a spreadsheet.

A spreadsheet takes a cell that begins like a formula for one, and what callers and telephone
systems say ends up in cells: such a cell gets an apostrophe in front, which spreadsheets show as
text. Telephone numbers in E.164 begin with a plus, so that they all get one.
"""

import csv
import io
from collections.abc import Iterable

from archive.recording import TEXT_FIELDS, Recording
from archive.retention import Policy

MOST = 10_000
"""Calls of one list: what a person can look through, and a spreadsheet takes."""

COLUMNS = (
    *("id", "started_at", "duration", "call_type", "direction"),
    *TEXT_FIELDS,
    *("call_id", "source", "expires_at"),
)

MORE = f"more: a list has {MOST} calls at the most, narrow the search"
"""The last line's one cell where not all is there."""

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def head() -> str:
    """The first line."""
    return _lines([COLUMNS])


def lines(recordings: Iterable[Recording], policy: Policy) -> str:
    """A line for each."""
    return _lines([_cells(each, policy) for each in recordings])


def more() -> str:
    """The last line of a list that is cut off."""
    return _lines([(MORE,)])


def _cells(recording: Recording, policy: Policy) -> list[str]:
    call = recording.call
    told: dict[str, object] = {
        "id": recording.id,
        "started_at": policy.local(call.started_at).isoformat(),
        "duration": round(recording.audio.duration, 1),
        "call_type": call.call_type,
        "direction": call.direction,
        **{name: getattr(call, name) for name in TEXT_FIELDS},
        "call_id": call.call_id,
        "source": recording.source,
        "expires_at": policy.local(call.expiry.at).isoformat(),
    }
    return [safe(str(value)) if (value := told[name]) is not None else "" for name in COLUMNS]


def safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULAS) else text


def _lines(rows: Iterable[Iterable[str]]) -> str:
    held = io.StringIO()
    csv.writer(held).writerows(rows)
    return held.getvalue()
