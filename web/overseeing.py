"""What expires: the auditors' page. What falls due in the coming year, what the last nights did,
what failed and why, and where the ledger stands. No recording can be named here or heard.
"""

import asyncio
import calendar
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from aiohttp import web

from archive.access import OPERATORS
from archive.errors import MalformedError
from archive.note import Checkpoint
from archive.recording import CallType
from storage import nights, overview
from storage.database import connection
from storage.overview import Day
from storage.signer import SignerError
from web import asked, face, pages
from web.doors import OpenRoute, Route, Visit
from web.finding import TYPES
from web.words import Words

NIGHTS = 14

_YEAR = timedelta(days=366)
_SHADES = 3


def routes() -> list[Route | OpenRoute]:
    """The addresses of the auditors' pages."""
    return [Route("GET", "/", OPERATORS, show)]


@dataclass(frozen=True, slots=True)
class Cell:
    """One day of the calendar; `shade` from 0 (nothing falls due) to 3 (as much as on the most)."""

    day: date
    due: int
    shade: int


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /?call_type=…&day=…`: the coming year, and one day of it."""
    asked.refuse_others(request, "call_type", "day")
    kind = request.query.get("call_type") or None
    if kind is not None and kind not in set(CallType):
        raise MalformedError(f"`call_type` is one of {', '.join(CallType)}.")
    policy = visit.vault.policy
    today = policy.day_of(visit.now)
    chosen = asked.day(request, "day", today)
    async with connection(visit.vault.pool) as lent:
        coming = await overview.coming(lent, today, today + _YEAR)
        late = await overview.overdue(lent)
        reports = await nights.latest(lent, NIGHTS)
        days = await overview.days(lent, chosen, chosen)
    counts = {day: _count(types, kind) for day, types in coming.items()}
    said = face.Reader.from_request(request).words
    values = {
        "late": late,
        "week": sum(number for day, number in counts.items() if day < today + timedelta(days=7)),
        "held": sum(counts.values()),
        "months": [(said.month(first), _weeks(first, counts)) for first in _firsts(today)],
        "weekdays": [said.locale.days["stand-alone"]["narrow"][number] for number in range(7)],
        "types": TYPES,
        "kind": kind,
        "today": today,
        "chosen": chosen,
        "chosen_types": sorted(coming.get(chosen, {}).items()),
        "chosen_day": days[0] if days else Day(chosen, 0, 0, 0, None),
        "nights": [_night(policy.local(at), report, said) for at, report in reports],
        "local": policy.local,
        "token": pages.token(request, visit),
        **await _head(visit),
    }
    return face.page(request, "expiry.html", values)


def _count(types: Mapping[str, int], kind: str | None) -> int:
    return sum(number for name, number in types.items() if kind in (None, name))


def _firsts(today: date) -> list[date]:
    """The first days of this month and the twelve after it."""
    months = [today.year * 12 + today.month - 1 + number for number in range(13)]
    return [date(month // 12, month % 12 + 1, 1) for month in months]


def _weeks(first: date, counts: Mapping[date, int]) -> list[list[Cell | None]]:
    """A month in weeks from Monday on; None for a place of another month."""
    most = max(counts.values(), default=0)
    return [
        [
            Cell(day, due := counts.get(day, 0), -(-due * _SHADES // most) if due else 0)
            if day.month == first.month
            else None
            for day in week
        ]
        for week in calendar.Calendar().monthdatescalendar(first.year, first.month)
    ]


def _night(began: datetime, report: Mapping[str, Any], said: Words) -> dict[str, object]:
    """One night as a line: when, what it did, and what stood in its way."""
    reconciled = report.get("reconciled") or {}
    troubles = [
        report.get("stopped"),
        reconciled.get("stopped") if isinstance(reconciled, dict) else None,
        *(f"{day['day']}: {day['why']}" for day in report.get("days", []) if not day["closed"]),
    ]
    return {
        "began": began,
        "when": f"{said.day(began.date())} {said.time(began)}",
        "erased": report.get("erased", 0),
        "left": report.get("still_there", 0) + report.get("could_not_ask", 0),
        "closed": sum(1 for day in report.get("days", []) if day["closed"]),
        "troubles": [text for text in troubles if text],
    }


async def _head(visit: Visit) -> dict[str, object]:
    """The ledger's last signed checkpoint; none if it cannot be read, which `/readyz` tells of."""
    signer = visit.vault.signer
    note = None
    with suppress(SignerError):
        note = await asyncio.to_thread(signer.last_note)
    return {
        "checkpoint": note and Checkpoint.parse(note.text),
        "note": note and str(note),
        "key": str(signer.verifier),
    }
