"""The operations door: whether the archive does what it promises, for machines and for auditors.

Health is not «the process is up»: it is that the database, the store and the fuse are well, that
nothing is overdue, and that nights, days, looks at objects and checkpoints come when they should.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from aiohttp import hdrs, web

from archive.access import OPERATORS
from archive.errors import ArchiveError, UnavailableError
from storage import fuse, gaps, overview, tree
from storage.database import connection
from storage.keyring import KeyRingError
from storage.signer import SignerError
from storage.vault import Vault
from web import (
    account,
    asked,
    cdrs,
    certificates,
    checking,
    gauges,
    glass,
    ledger,
    ledger_pages,
    openapi,
    overseeing,
    pages,
    problems,
    render,
    sign_in,
)
from web.doors import SHOWN, VAULT, OpenRoute, Route, Visit

FRESH = 1.0
"""Seconds from its begin on for which one look at everything is the answer to all who ask."""

_LOOK_AGAIN = 5
"""Seconds after which it may be worth to ask again whether all is well."""

PARTS = ("database", "objects", "keys", "fuse", "ledger")
"""What `/readyz` looks at besides the figures that have a limit."""


def routes() -> list[Route | OpenRoute]:
    """The addresses of this door."""
    return [
        OpenRoute("GET", "/healthz", healthz),
        OpenRoute("GET", "/readyz", Readiness().answer),
        Route("GET", "/metrics", OPERATORS, metrics),
        Route("GET", "/v1/expiry", OPERATORS, expiry),
        *cdrs.telling(),
        *ledger.routes(),
        *glass.operators_routes(),
        *certificates.routes(OPERATORS),
        Route("GET", "/v1/certificates/night/{day}", OPERATORS, certificates.night),
        *overseeing.routes(),
        *ledger_pages.routes(),
        *checking.routes(),
        *pages.routes(),
        *account.routes(OPERATORS),
        *account.page_routes(OPERATORS),
        *sign_in.routes(),
        OpenRoute("GET", "/openapi.json", openapi.page("operations")),
    ]


async def healthz(request: web.Request) -> web.Response:
    """`GET /healthz`: the process answers."""
    return render.data({"status": "ok"})


class Readiness:
    """The last look at everything. Anybody may ask for it, so that they get no more than one at a
    time: who asks while it is taken gets that one, which is over only after they asked.
    """

    def __init__(self) -> None:
        self._looking = asyncio.Lock()
        self._checks: dict[str, str] = {}
        self._began = self._ended = -math.inf

    async def answer(self, request: web.Request) -> web.Response:
        """`GET /readyz`: 200 when all is well and all promises are kept, 503 with what is not."""
        asked = time.monotonic()
        async with self._looking:
            if self._ended < asked and asked - self._began >= FRESH:
                began = time.monotonic()
                self._checks = await _look(request.app[VAULT])
                self._began, self._ended = began, time.monotonic()
        wrong = [part for part, state in self._checks.items() if state != "ok"]
        told = {"ready": not wrong, "checks": self._checks}
        return _not_ready(wrong, told) if wrong else render.data(told)


def _not_ready(wrong: Sequence[str], told: Mapping[str, object]) -> web.Response:
    status, name = problems.STATUS[UnavailableError]
    detail = f"Not well: {', '.join(wrong)}. `checks` says why, and `archive check` what to do."
    headers = {**render.NO_STORE, hdrs.RETRY_AFTER: str(_LOOK_AGAIN)}
    title = UnavailableError.title
    return problems.problem(status, name, title, detail, extra=told, headers=headers)


async def _look(vault: Vault) -> dict[str, str]:
    """What `/readyz` says of each part: `ok`, or what is wrong."""
    checks = dict.fromkeys((*PARTS, *gauges.CHECKS), "ok")
    day_end, signed = None, None
    try:
        day_end = _oldest_day_end(vault)
    except KeyRingError:
        checks["keys"] = "the key ring cannot be read: `archive check` says what to do"
    with suppress(SignerError):  # told of as the ledger's state, below
        signed = await _signed(vault)
    try:
        async with connection(vault.pool) as lent:
            checks |= gauges.judged(await overview.standing(lent, day_end, signed))
    except ArchiveError as error:
        checks["database"] = error.detail
    else:
        await _look_further(vault, checks)
    return checks


def _oldest_day_end(vault: Vault) -> datetime | None:
    """When the oldest day whose key is alive is or was over."""
    days = vault.ring.days()
    return overview.end_of(days[-1], vault.policy) if days else None


async def _signed(vault: Vault) -> int:
    """How many entries of the ledger the last checkpoint covers."""
    last = await asyncio.to_thread(vault.signer.last)
    return last.size if last else 0


async def _look_further(vault: Vault, checks: dict[str, str]) -> None:
    """What can be looked at only while the database answers."""
    try:
        verdict = await fuse.look(vault)
        checks["fuse"] = "ok" if verdict.whole else verdict.why
    except ArchiveError as error:
        checks["objects"] = error.detail
    try:
        await tree.agree(vault)
    except SignerError as error:
        checks["ledger"] = str(error)
    except ArchiveError as error:
        checks["database"] = error.detail


async def metrics(request: web.Request, visit: Visit) -> web.Response:
    """`GET /metrics`: the text format of Prometheus."""
    vault = visit.vault
    day_end, signed = _oldest_day_end(vault), await _signed(vault)
    async with connection(vault.pool) as lent:
        seen = await overview.standing(lent, day_end, signed)
        states = await overview.states(lent)
        missing = await gaps.missing(lent, vault.limits.expected_within)
    page = gauges.page(seen, states, len(vault.ring.days()), missing, request.app[SHOWN])
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return web.Response(body=page.encode(), headers={"Content-Type": kind})


async def expiry(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/expiry?from=DAY&to=DAY`: per expiry day what is due, erased and failed."""
    asked.refuse_others(request, "from", "to")
    today = visit.vault.policy.day_of(visit.now)
    first = asked.day(request, "from", today - timedelta(days=31))
    last = asked.day(request, "to", today + timedelta(days=366))
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
