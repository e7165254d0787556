"""The pages of exports: what one asked for, how far it is, and when it will be erased.

The calls are chosen on the search page or on a recording's own. Who looks at a mass export as the
second person sees why it was asked for and by whom, and nothing of what is in it.
"""

from aiohttp import web

from archive import export, listening
from archive.access import READERS
from archive.errors import TooLargeError
from archive.export import Stage, Why
from storage import exports
from storage.exports import AGREE, Export
from web import browser, face, pages, render
from web import exports as api
from web.doors import OpenRoute, Route, Visit
from web.words import Words, marked

_CHOSEN = "call."
"""What the name of a chosen call's box begins with; its id follows."""

STAGES = {
    Stage.WAITING: marked("Waits for a second person"),
    Stage.QUEUED: marked("Will be made in a moment"),
    Stage.MAKING: marked("Is being made"),
    Stage.READY: marked("Ready"),
    Stage.OVER: marked("Over, and being erased"),
    Stage.ERASED: marked("Erased"),
}
_UNANSWERED = marked("Nobody agreed to it within a day. Ask for it anew.")
ENDS = {
    Why.EXPIRED: marked("Its time was over."),
    Why.RECORDING: marked("A call in it was erased."),
    Why.DAMAGED: marked("A call in it is damaged, so it could not be made."),
    Why.CHANGED: marked("Something else is heard of a call in it now."),
    Why.WITHDRAWN: marked("It was ended before its time."),
}


def routes() -> list[Route | OpenRoute]:
    """The addresses of the exports' pages."""
    one = "/exports/{id}"
    return [
        Route("GET", "/exports", READERS, show_all),
        Route("POST", "/exports", READERS, ask),
        Route("GET", one, READERS, show),
        Route("GET", f"{one}/file", READERS, api.fetch),
        Route("HEAD", f"{one}/file", READERS, api.fetch_head),
        Route("POST", f"{one}/agree", AGREE, agree),
        Route("POST", f"{one}/end", READERS, end),
    ]


async def show_all(request: web.Request, visit: Visit) -> web.Response:
    """`GET /exports`: one's own, newest first, after those that wait for who may agree."""
    found = await exports.of(visit.vault, visit.caller, visit.now)
    return _page(request, visit, found)


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /exports/{id}`: one of them; the address that a second person is sent."""
    identifier = render.identifier(request)
    found = await exports.find(visit.vault, visit.caller, identifier, visit.now)
    return _page(request, visit, [found], one=True)


async def ask(request: web.Request, visit: Visit) -> web.Response:
    """`POST /exports`: have the chosen calls made into one file."""
    form = await browser.form(request)
    ids = [name.removeprefix(_CHOSEN) for name in form if name.startswith(_CHOSEN)]
    if not ids:
        return browser.to("/exports?none=")
    if len(ids) > export.MOST:
        raise TooLargeError(f"An export may have {export.MOST} recordings: ask for several.")
    reason = listening.reason(form.get("reason"))
    made = await exports.ask(visit.vault, visit.caller, export.chosen(ids), reason, visit.now)
    return browser.to(f"/exports/{made.order.id}")


async def agree(request: web.Request, visit: Visit) -> web.Response:
    """`POST /exports/{id}/agree`: let another person have it."""
    await browser.form(request)
    await exports.agree(visit.vault, visit.caller, render.identifier(request), visit.now)
    return browser.to("/exports")


async def end(request: web.Request, visit: Visit) -> web.Response:
    """`POST /exports/{id}/end`: end one's own before its time."""
    await browser.form(request)
    await exports.withdraw(visit.vault, visit.caller, render.identifier(request), visit.now)
    return browser.to("/exports")


def _page(
    request: web.Request, visit: Visit, found: list[Export], *, one: bool = False
) -> web.Response:
    said = face.Reader.from_request(request).words
    values = {
        "one": one,
        "none_chosen": "none" in request.query,
        "found": [_shown(each, visit, said) for each in found],
        "days": export.LIFE.days,
        "token": pages.token(request, visit),
    }
    only = request.headers.get("X-Part") == "list"
    return face.page(request, "export_list.html" if only else "exports.html", values)


def _shown(found: Export, visit: Visit, said: Words) -> dict[str, object]:
    """One export as a person is told of it."""
    order, policy = found.order, visit.vault.policy
    own = order.asker == visit.caller.id
    busy = found.stage in (Stage.QUEUED, Stage.MAKING)
    waits = found.stage is Stage.WAITING
    late = waits and exports.unanswered(order.asked_at, visit.now)
    return {
        "id": order.id,
        "stage": found.stage,
        "title": said.count("%(n)s call", "%(n)s calls", found.number),
        "told": said.text(_UNANSWERED if late else STAGES[found.stage]),
        "why": said.text(ENDS[Why(found.ended)]) if found.ended else "",
        "busy": busy,
        "done": found.done,
        "number": found.number,
        "reason": order.reason,
        "asker": order.asker,
        "asked": said.moment(policy.local(order.asked_at)),
        "until": said.moment(policy.local(order.expires_at)),
        "megabytes": said.number(round((found.bytes or 0) / 1e6, 1)),
        "own": own,
        "waits": waits and own and not late,
        "agrees": waits and not own and visit.caller.level in AGREE,
        "ends": own and found.stage not in (Stage.OVER, Stage.ERASED),
    }
