"""The operations door: whether the archive does what it promises, for machines and for auditors.

Health is not «the process is up»: it is that the database, the store and the fuse are well and that
nothing is overdue.
"""

from datetime import date, timedelta

from aiohttp import web

from archive.access import OPERATORS
from archive.errors import ArchiveError, MalformedError
from storage import clocks, ledger, overview
from storage.database import connection
from storage.keyring import KeyRingError
from web import openapi, render
from web.doors import VAULT, OpenRoute, Route, Visit

OVERDUE_LIMIT = timedelta(minutes=5)
"""How late an erasure may be before the archive says that it is not well."""

_LEDGER_PAGE = 1000


def routes() -> list[Route | OpenRoute]:
    """The addresses of this door."""
    return [
        OpenRoute("GET", "/healthz", healthz),
        OpenRoute("GET", "/readyz", readyz),
        Route("GET", "/metrics", OPERATORS, metrics),
        Route("GET", "/v1/expiry", OPERATORS, expiry),
        Route("GET", "/v1/ledger", OPERATORS, entries),
        OpenRoute("GET", "/openapi.json", openapi.page("operations")),
    ]


async def healthz(request: web.Request) -> web.Response:
    """`GET /healthz`: the process answers."""
    return render.data({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: 200 when every part is well, 503 with what is not."""
    vault = request.app[VAULT]
    checks = dict.fromkeys(("database", "objects", "keys", "fuse", "overdue"), "ok")
    try:
        vault.ring.days()
    except KeyRingError:
        checks["keys"] = "the key ring cannot be read: `archive check` says what to do"
    try:
        async with connection(vault.pool) as lent:
            late = await overview.overdue(lent)
            reading = await clocks.read(lent)
        if late.oldest and reading.database - late.oldest > OVERDUE_LIMIT:
            checks["overdue"] = f"{late.count} recordings are past their time and not erased"
    except ArchiveError as error:
        checks["database"] = error.detail
    else:
        try:
            verdict = await clocks.fuse(vault)
            checks["fuse"] = "ok" if verdict.whole else verdict.why
        except ArchiveError as error:
            checks["objects"] = error.detail
    well = all(state == "ok" for state in checks.values())
    answer = render.data({"ready": well, "checks": checks})
    answer.set_status(200 if well else 503)
    return answer


async def metrics(request: web.Request, visit: Visit) -> web.Response:
    """`GET /metrics`: the text format of Prometheus."""
    async with connection(visit.vault.pool) as lent:
        late = await overview.overdue(lent)
        states = await overview.states(lent)
    age = (visit.now - late.oldest).total_seconds() if late.oldest else 0
    lines = [
        "# HELP archive_recordings_overdue Recordings past their expiry that are not erased.",
        "# TYPE archive_recordings_overdue gauge",
        f"archive_recordings_overdue {late.count}",
        "# HELP archive_overdue_seconds How long the oldest of them is overdue.",
        "# TYPE archive_overdue_seconds gauge",
        f"archive_overdue_seconds {max(age, 0):.3f}",
        "# HELP archive_recordings Recordings by state.",
        "# TYPE archive_recordings gauge",
        *(f'archive_recordings{{state="{name}"}} {count}' for name, count in states.items()),
        "# HELP archive_day_keys Expiry days whose key is alive.",
        "# TYPE archive_day_keys gauge",
        f"archive_day_keys {len(visit.vault.ring.days())}",
    ]
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return web.Response(body="\n".join([*lines, ""]).encode(), headers={"Content-Type": kind})


async def expiry(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/expiry?from=DAY&to=DAY`: per expiry day what is due, erased and failed."""
    _refuse_others(request, "from", "to")
    today = visit.vault.policy.day_of(visit.now)
    first = _day(request, "from", today - timedelta(days=31))
    last = _day(request, "to", today + timedelta(days=366))
    async with connection(visit.vault.pool) as lent:
        days = await overview.days(lent, first, last)
        late = await overview.overdue(lent)
    return render.data(
        {
            "days": [
                {
                    "day": day.day.isoformat(),
                    "due": day.due,
                    "erased": day.erased,
                    "failed": day.failed,
                    "closed_at": day.closed_at and day.closed_at.isoformat(),
                }
                for day in days
            ],
            "overdue": late.count,
            "oldest_overdue": late.oldest and late.oldest.isoformat(),
        }
    )


async def entries(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/ledger?after=POSITION&limit=N`: what was done, by which key, when; oldest first."""
    _refuse_others(request, "after", "limit")
    after, limit = _number(request, "after", 0), _number(request, "limit", 100)
    if not 1 <= limit <= _LEDGER_PAGE:
        raise MalformedError(f"`limit` is a whole number from 1 to {_LEDGER_PAGE}.")
    async with connection(visit.vault.pool) as lent:
        page = await ledger.page(lent, after, limit)
    items = [
        {
            "position": entry.position,
            "at": entry.at.isoformat(),
            "actor": entry.actor,
            "act": entry.act,
            "recording": entry.recording and str(entry.recording),
            "facts": entry.facts,
        }
        for entry in page
    ]
    return render.data({"items": items, "next_after": page[-1].position if page else after})


def _refuse_others(request: web.Request, *known: str) -> None:
    """A parameter that is misspelt or said twice must not pass for an answer to it."""
    for name in request.query:
        if name not in known:
            raise MalformedError(f"There is no such parameter here, only: {', '.join(known)}.")
        if len(request.query.getall(name)) > 1:
            raise MalformedError(f"`{name}` can be given once.")


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise MalformedError(f"`{name}` is a whole number.")
    return int(text)


def _day(request: web.Request, name: str, default: date) -> date:
    text = request.query.get(name)
    try:
        return default if text is None else date.fromisoformat(text)
    except ValueError:
        raise MalformedError(f"`{name}` is a day, like 2026-11-24.") from None
