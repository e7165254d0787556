"""The operations door: whether the archive does what it promises, for machines and for auditors.

Health is not «the process is up»: it is that the database, the store and the fuse are well and that
nothing is overdue.
"""

from datetime import timedelta

from aiohttp import web

from archive.access import OPERATORS
from archive.errors import ArchiveError
from storage import clocks, overview, tree
from storage.database import connection
from storage.keyring import KeyRingError
from storage.signer import SignerError
from storage.vault import Vault
from web import asked, certificates, ledger, openapi, render
from web.doors import VAULT, OpenRoute, Route, Visit

OVERDUE_LIMIT = timedelta(minutes=5)
"""How late an erasure may be before the archive says that it is not well."""


def routes() -> list[Route | OpenRoute]:
    """The addresses of this door."""
    return [
        OpenRoute("GET", "/healthz", healthz),
        OpenRoute("GET", "/readyz", readyz),
        Route("GET", "/metrics", OPERATORS, metrics),
        Route("GET", "/v1/expiry", OPERATORS, expiry),
        *ledger.routes(),
        *certificates.routes(OPERATORS),
        Route("GET", "/v1/certificates/night/{day}", OPERATORS, certificates.night),
        OpenRoute("GET", "/openapi.json", openapi.page("operations")),
    ]


async def healthz(request: web.Request) -> web.Response:
    """`GET /healthz`: the process answers."""
    return render.data({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: 200 when every part is well, 503 with what is not."""
    vault = request.app[VAULT]
    checks = dict.fromkeys(("database", "objects", "keys", "fuse", "overdue", "ledger"), "ok")
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
        await _look_further(vault, checks)
    well = all(state == "ok" for state in checks.values())
    answer = render.data({"ready": well, "checks": checks})
    answer.set_status(200 if well else 503)
    return answer


async def _look_further(vault: Vault, checks: dict[str, str]) -> None:
    """What can be looked at only while the database answers."""
    try:
        verdict = await clocks.fuse(vault)
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
