"""The list of what a search finds, as a file of CSV: for a reason, and up to so many calls.

It is sent page by page as it is found. Before each page, and while it is being sent, it is asked
whether who asked may still know of it; if not, and when the first of its calls comes to its end,
the answer is cut, and nobody takes a part for the whole. One that only came to its bound says so in
its last line.
"""

from collections.abc import AsyncIterator
from contextlib import nullcontext

from aiohttp import hdrs, web

from archive import asking, listening, listing
from archive.access import READERS
from archive.errors import MalformedError, UnauthenticatedError
from archive.search import Query
from storage import credentials, search, sessions
from storage.database import connection
from storage.search import Page
from web import asked, browser, cursors, reasons, render, sending
from web.allowance import Allowance
from web.doors import Route, Visit
from web.finding import Form

_MARK = "\ufeff"
"""What makes spreadsheets read UTF-8; programs need none."""


def routes() -> list[Route]:
    """The address for machines."""
    return [Route("GET", "/v1/recordings.csv", READERS, show)]


def page_routes() -> list[Route]:
    """The address that the search page sends its form to."""
    return [Route("POST", "/search/csv", READERS, save)]


async def show(request: web.Request, visit: Visit) -> web.StreamResponse:
    """`GET /v1/recordings.csv?…` with `Archive-Reason`: the list of a search."""
    reason = reasons.of(request)
    if reason is None:
        raise MalformedError("Say in the header `Archive-Reason` why, percent-encoded.")
    if "limit" in request.query:
        raise MalformedError("A list is whole, and has no `limit`.")
    query = Query.from_params(asked.filters(request))
    return await _send(request, visit, query, reason, "")


async def save(request: web.Request, visit: Visit) -> web.StreamResponse:
    """`POST /search/csv`: the list of the search that the page shows."""
    sent = await browser.form(request)
    reason = listening.reason(sent.get("reason"))
    params, _ = cursors.unseal_params(visit.vault.ring, sent.get("q", ""), visit.now)
    form = Form.from_params(params)
    policy = visit.vault.policy
    today = policy.day_of(visit.now)
    query = form.query(asking.understand(form.text, today), policy, today)
    return await _send(request, visit, query, reason, _MARK)


async def _send(
    request: web.Request, visit: Visit, query: Query, reason: str, mark: str
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            **render.NO_STORE,
            hdrs.CONTENT_TYPE: "text/csv; charset=utf-8; header=present",
            hdrs.CONTENT_DISPOSITION: 'attachment; filename="calls.csv"',
        }
    )
    allowance = Allowance(visit)
    lines = _lines(visit, allowance, query, reason, mark)
    return await sending.stream(request, allowance, response, nullcontext(lines))


async def _lines(
    visit: Visit, allowance: Allowance, query: Query, reason: str, mark: str
) -> AsyncIterator[bytes]:
    vault, begin = visit.vault, mark + listing.head()
    more = False
    async for page in search.every(vault, visit.caller, query, visit.now, reason, listing.MOST):
        await _require_known(visit, page)
        allowance.cover([each.call for each in page.items])
        yield (begin + listing.lines(page.items, vault.policy)).encode()
        begin, more = "", page.next is not None
    if more:
        yield listing.more().encode()


async def _require_known(visit: Visit, page: Page) -> None:
    """Raise UnauthenticatedError unless who asked may still know of all on this page."""
    holds = sessions.holds if visit.login.session else credentials.holds
    calls = [each.call for each in page.items]
    async with connection(visit.vault.pool) as lent:
        if not await holds(lent, visit.vault.ring, visit.login, *calls):
            raise UnauthenticatedError("Your rights were taken or changed just now.")
